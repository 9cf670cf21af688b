// Tiles of matrix products on tensor cores: what every large-batch phase of training consists of.
//
// A block makes a tile of kTileRows x kTileColumns of C = A B. Its operands pass through shared memory in slices of
// kSlice along the depth, two slices on their way while a third is worked on:
//
//            B   depth x columns                A slice in shared memory      kStages of them, in turn
//            +--------+                         operand "deep":  [row][k]     rows of kSlice + 4 floats
//            | slice  |                         otherwise:       [k][row]     rows of tile + 8 floats
//   A        +--------+
//   +-----+  +--------+                         The paddings let the 32 lanes of a warp read their fragments from 32
//   | s.  |  | tile C |                         different banks: 4 g + t, and 8 t + g (lane = 4 g + t).
//   +-----+  +--------+
//
// Eight warps share a tile, each has 32 x 16 of it: two by two products of 16 x 8.
#pragma once

#include "fragments.cuh"
#include "rows.cuh"

namespace gesda {

constexpr int kTileRows = 64, kTileColumns = 64, kSlice = 32, kStages = 3;
constexpr int kWarpRows = 32, kWarpColumns = 16;
constexpr int kDeepStride = kSlice + 4, kFlatStride = kTileRows + 8;
static_assert(kTileRows == kTileColumns, "one layout of slices serves both operands");
static_assert(kTileRows / kWarpRows * (kTileColumns / kWarpColumns) * 32 == kThreads, "warps cover the tile");
constexpr int kSliceFloats =
    kTileRows * kDeepStride > kSlice* kFlatStride ? kTileRows * kDeepStride : kSlice * kFlatStride;
constexpr int kProductBytes = kStages * 2 * kSliceFloats * 4;  // of shared memory
static_assert(kProductBytes <= 64 * 1024, "Turing has 64 KiB for a block");

// A(i, k) or B(k, i), i in [0, extent), k in [0, depth): at values[i * stride + k] if `deep`, else at
// values[k * stride + i]. Both aligned to 16 bytes, stride a multiple of 4; rows are zero from their end to a multiple
// of 4.
struct Operand {
  const float* values;
  int stride, extent;
};

// The sums of a thread: of its warp's two by two products of 16 x 8.
struct TileSums {
  float of[2][2][4];
};

// Copies the slice of `depth` at k0 of the operand's tile at i0; what lies outside becomes zero.
template <bool kDeep>
GESDA_DEVICE void fetch_slice(float* slice, const Operand& operand, int i0, int k0, int depth) {
  constexpr int kAcross = (kDeep ? kSlice : kTileRows) / 4, kDown = kDeep ? kTileRows : kSlice;
  const int across_end = kDeep ? depth - k0 : operand.extent - i0, down_end = kDeep ? operand.extent - i0 : depth - k0;
  const float* from = operand.values + static_cast<long long>(kDeep ? i0 : k0) * operand.stride + (kDeep ? k0 : i0);
  for (int item = thread_index(); item < kAcross * kDown; item += kThreads) {
    const int down = item / kAcross, across = item % kAcross * 4;
    const bool real = down < down_end && across < across_end;
    copy_async(slice + down * (kDeep ? kDeepStride : kFlatStride) + across,
               from + (real ? static_cast<long long>(down) * operand.stride + across : 0), real);
  }
}

template <bool kDeep>
GESDA_DEVICE float element(const float* slice, int i, int k) {
  return kDeep ? slice[i * kDeepStride + k] : slice[k * kFlatStride + i];
}

// sums += the products of a slice: rows and columns of this warp start at row0 and column0.
template <Arithmetic kArithmetic, bool kDeepA, bool kDeepB>
GESDA_DEVICE void add_slice(const float* a, const float* b, int row0, int column0, TileSums& sums) {
  GESDA_UNROLL_BY(kArithmetic == kStrict ? 1 : 2)  // by registers
  for (int k0 = 0; k0 < kSlice; k0 += 8) {
    FragmentB<kArithmetic> y[2];
    GESDA_UNROLL
    for (int j = 0; j < 2; ++j)
      y[j] = fragment_b<kArithmetic>([&](int k, int c) { return element<kDeepB>(b, column0 + 8 * j + c, k0 + k); });
    GESDA_UNROLL
    for (int i = 0; i < 2; ++i) {
      const auto x =
          fragment_a<kArithmetic>([&](int r, int k) { return element<kDeepA>(a, row0 + 16 * i + r, k0 + k); });
      GESDA_UNROLL
      for (int j = 0; j < 2; ++j) multiply(sums.of[i][j], x, y[j]);
    }
  }
}

// sums += A B for the tile at (row0, column0), by the whole block. May be called again for a further product.
template <Arithmetic kArithmetic, bool kDeepA, bool kDeepB>
GESDA_DEVICE void add_product(const Operand& a, const Operand& b, int row0, int column0, int depth, TileSums& sums) {
  float* const shared = static_cast<float*>(shared_memory());
  const int warp = thread_index() / 32;
  const int warp_row = warp % (kTileRows / kWarpRows) * kWarpRows;
  const int warp_column = warp / (kTileRows / kWarpRows) * kWarpColumns;
  const auto slice_of = [shared](int step) { return shared + step % kStages * 2 * kSliceFloats; };
  const int steps = (depth + kSlice - 1) / kSlice;
  const auto fetch = [&](int step) {
    if (step < steps) {
      fetch_slice<kDeepA>(slice_of(step), a, row0, step * kSlice, depth);
      fetch_slice<kDeepB>(slice_of(step) + kSliceFloats, b, column0, step * kSlice, depth);
    }
    commit_copies();  // empty groups too, so that the count of groups is that of steps
  };
  sync_block();  // nobody reads what an earlier product has left there
  for (int step = 0; step < kStages - 1; ++step) fetch(step);
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<kStages - 2>();
    sync_block();  // the slice is complete, and nobody works on the one before, which the next copies overwrite
    fetch(step + kStages - 1);
    add_slice<kArithmetic, kDeepA, kDeepB>(slice_of(step), slice_of(step) + kSliceFloats, warp_row, warp_column, sums);
  }
  wait_for_copies<0>();
}

// Calls visit(row, column, sum) for every element of the block's tile, with rows and columns of C. The sums go through
// shared memory, so that neighbouring threads get neighbouring columns and the code behind a sum is there once.
template <class Visit>
GESDA_DEVICE void for_each_sum(const TileSums& sums, int row0, int column0, const Visit& visit) {
  float* const tile = static_cast<float*>(shared_memory());
  const int warp = thread_index() / 32, lane = thread_index() % 32, g = lane / 4, t = lane % 4;
  const int warp_row = warp % (kTileRows / kWarpRows) * kWarpRows;
  const int warp_column = warp / (kTileRows / kWarpRows) * kWarpColumns;
  sync_block();  // nobody reads the product's slices any more
  GESDA_UNROLL
  for (int i = 0; i < 16; ++i) {
    const int r = i / 8, c = i / 4 % 2, j = i % 4;
    tile[(warp_row + 16 * r + g + j / 2 * 8) * kFlatStride + warp_column + 8 * c + 2 * t + j % 2] = sums.of[r][c][j];
  }
  sync_block();
  GESDA_KEEP_LOOP
  for (int item = thread_index(); item < kTileRows * kTileColumns; item += kThreads) {
    const int row = item / kTileColumns, column = item % kTileColumns;
    visit(row0 + row, column0 + column, tile[row * kFlatStride + column]);
  }
}

}  // namespace gesda
