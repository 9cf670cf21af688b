// Matrix products on panels: the micro-kernels and the loops around them.
//
// A product of a task's rows with one panel of weights runs over blocks of kDepth: the block of weights (made on
// the way if it is a transpose) stays in the first-level cache while all row tiles pass over it, and the sums
// rest in a small scratch tile between blocks. Each output element is summed over k in ascending order by fused
// multiply-adds, whatever the tiling: the bits depend on neither threads nor tile shapes.
#pragma once

#include "cpp/src/kernel_table.hpp"
#include "cpp/src/variants/choose.hpp"

namespace gesda {
namespace GESDA_VARIANT {

constexpr int kRowBlock = 128;                    // rows of a task, at most
constexpr int kDepth = kPanel == 32 ? 192 : 256;  // a multiple of kPanel
constexpr int kUpdateDepth = 208;                 // rows of both pairs that an update sums at a time: they fit in L1

struct Workspace {  // laid over the thread's floats
  float sums[kRowBlock * kPanel];
  union {
    float block[kDepth * kPanel];
    u32 pairs[kDepth * kPanel];  // bf16: twice the depth
  };
};

GESDA_FN int panels_of(int columns) { return (columns + kPanel - 1) / kPanel; }
GESDA_FN int vectors_of(int columns) { return columns >= kPanel ? kVectors : (columns + kLanes - 1) / kLanes; }
GESDA_FN int smaller(int a, int b) { return a < b ? a : b; }

// sums[Rows][kPanel] (+)= A[Rows][depth] * B[depth][Vectors]; A walks through panels, B is one panel.
template <int Rows, int Vectors>
__attribute__((noinline)) void multiply_tile(const float* a, std::size_t a_stride, const float* b, int depth,
                                             float* sums, bool first) {
  FloatVector acc[Rows][Vectors];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) acc[r][v] = first ? FloatVector{} : load(sums + r * kPanel + v * kLanes).v;
  for (int k = 0; k < depth; k += kPanel, a += a_stride) {
    const int width = depth - k < kPanel ? depth - k : kPanel;
    const float* row = a;
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
      __builtin_prefetch(a + a_stride + r * kPanel);  // a jump that hardware does not foresee
#pragma GCC unroll 2
    for (int i = 0; i < width; ++i, ++row, b += kPanel) {
      FloatVector x[Vectors];
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) x[v] = load(b + v * kLanes).v;
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) {
        const F factor(row[r * kPanel]);
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) acc[r][v] = mad(factor, F(x[v]), F(acc[r][v])).v;
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store(sums + r * kPanel + v * kLanes, F(acc[r][v]));
}

// sums[Rows][kPanel] (+)= A[depth][Rows].T * B[depth][Vectors], then the same with the second pair.
template <int Rows, int Vectors>
__attribute__((noinline)) void multiply_transposed_tile(const float* a1, const float* b1, const float* a2,
                                                        const float* b2, int depth, float* sums, bool first) {
  FloatVector acc[Rows][Vectors];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) acc[r][v] = first ? FloatVector{} : load(sums + r * kPanel + v * kLanes).v;
  const float* a = a1;
  const float* b = b1;
  for (int pair = a2 == nullptr ? 1 : 0; pair < 2; ++pair, a = a2, b = b2) {
    for (int k = 0; k < depth; ++k, a += kPanel, b += kPanel) {
      FloatVector x[Vectors];
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) x[v] = load(b + v * kLanes).v;
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) {
        const F factor(a[r]);
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) acc[r][v] = mad(factor, F(x[v]), F(acc[r][v])).v;
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store(sums + r * kPanel + v * kLanes, F(acc[r][v]));
}

// ---- transposition of kLanes x kLanes blocks ----
template <int... I>
struct Indices {};
template <int N, int... I>
struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <int... I>
struct MakeIndices<0, I...> {
  typedef Indices<I...> type;
};
// Where element i of an interleaving of a and b comes from (b counts from kLanes): units of `Unit` floats of the low
// (Half 0) or high (Half 1) half of each stretch of `Stretch` floats, in turn from a and b.
template <int Unit, int Stretch, int Half>
constexpr int interleaved_index(int i) {
  const int within = i % Stretch, unit = within / Unit;
  return (i / Stretch) * Stretch + Half * (Stretch / 2) + (unit / 2) * Unit + within % Unit + (unit % 2) * kLanes;
}
template <int Unit, int Stretch, int Half, int... I>
GESDA_FN FloatVector interleave(FloatVector a, FloatVector b, Indices<I...>) {
  return __builtin_shufflevector(a, b, interleaved_index<Unit, Stretch, Half>(I)...);
}
// Rows first and second become their interleavings.
template <int Unit, int Stretch>
GESDA_FN void interleave_rows(FloatVector& first, FloatVector& second) {
  typedef typename MakeIndices<kLanes>::type All;
  const FloatVector low = interleave<Unit, Stretch, 0>(first, second, All{});
  second = interleave<Unit, Stretch, 1>(first, second, All{});
  first = low;
}
typedef float Quad __attribute__((vector_size(16)));

// Four floats of each of the rows 0, 4, 8 ... below `in`, side by side in a vector of Lanes.
template <int Lanes>
GESDA_FN auto every_fourth_row(const float* in) {
  const auto quad = [in](int row) { return *reinterpret_cast<const Quad*>(in + row * kPanel); };
  if constexpr (Lanes == 4) {
    return quad(0);
  } else if constexpr (Lanes == 8) {
    return __builtin_shufflevector(quad(0), quad(4), 0, 1, 2, 3, 4, 5, 6, 7);
  } else {
    // Lanes / 2, not 8: so that variants without vectors of 8 never make one, whose passing GCC would warn of.
    return __builtin_shufflevector(every_fourth_row<Lanes / 2>(in), every_fourth_row<Lanes / 2>(in + 8 * kPanel), 0, 1,
                                   2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  }
}
// x[j][i] = in[i][j] for 4 columns j and kLanes rows i; rows kPanel apart.
GESDA_FN void load_four_columns(const float* in, FloatVector (&x)[4]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) x[i] = every_fourth_row<kLanes>(in + i * kPanel);
  interleave_rows<1, 4>(x[0], x[2]);
  interleave_rows<1, 4>(x[1], x[3]);
  interleave_rows<1, 4>(x[0], x[1]);
  interleave_rows<1, 4>(x[2], x[3]);
}
GESDA_FN void transpose_four_columns(const float* in, float* out) {
  FloatVector x[4];
  load_four_columns(in, x);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) store(out + j * kPanel, F(x[j]));
}

// block[k - k0][i] = M(row0 + i, k), k in [k0, k0 + depth): `depth` columns of kPanel rows of M, k0 a multiple of
// kPanel. Rows past M's last are zero.
inline void transpose_block(const Weights& m, int row0, int k0, int depth, float* block) {
  const int rows = smaller(kPanel, m.rows - row0);
  for (int k = 0; k < depth; k += kPanel) {
    const float* in = m.panels.data + static_cast<std::size_t>((k0 + k) / kPanel) * m.panels.stride +
                      static_cast<std::size_t>(row0) * kPanel;
    float* out = block + static_cast<std::size_t>(k) * kPanel;
    for (int i = 0; i < kPanel * kPanel; i += 16) __builtin_prefetch(in + m.panels.stride + i);  // far from this one
    if (rows == kPanel) {
      for (int i = 0; i < kPanel; i += kLanes)
        for (int j = 0; j < kPanel; j += 4) transpose_four_columns(in + i * kPanel + j, out + j * kPanel + i);
    } else {
      for (int j = 0; j < kPanel; ++j)
        for (int i = 0; i < kPanel; ++i) out[j * kPanel + i] = i < rows ? in[i * kPanel + j] : 0.0f;
    }
  }
}

// work.sums = in[row0 .. row0 + rows) * weights(:, panel), all `inputs` terms.
inline void multiply_rows(Panels in, int row0, int rows, int inputs, const Weights& weights, int panel, int columns,
                          Workspace& work) {
  const int vectors = vectors_of(columns - panel * kPanel);
  const int tiles = (rows + kTileRows - 1) / kTileRows;
  const int blocks = (inputs + kDepth - 1) / kDepth;  // of about equal depth
  const int most = ((inputs + blocks - 1) / blocks + kPanel - 1) / kPanel * kPanel;
  for (int k0 = 0; k0 < inputs; k0 += most) {
    const int depth = smaller(most, inputs - k0);
    const float* b;
    if (weights.transposed) {
      transpose_block(weights, panel * kPanel, k0, depth, work.block);
      b = work.block;
    } else {
      b = weights.panels.data + static_cast<std::size_t>(panel) * weights.panels.stride +
          static_cast<std::size_t>(k0) * kPanel;
    }
    const float* a =
        in.data + static_cast<std::size_t>(k0 / kPanel) * in.stride + static_cast<std::size_t>(row0) * kPanel;
    for (int t = 0; t < tiles; ++t) {
      const int r0 = rows * t / tiles, r1 = rows * (t + 1) / tiles;
      with_count<kTileRows>(r1 - r0, [&](auto tile_rows) {
        with_count<kVectors>(vectors, [&](auto tile_vectors) {
          multiply_tile<decltype(tile_rows)::value, decltype(tile_vectors)::value>(
              a + static_cast<std::size_t>(r0) * kPanel, in.stride, b, depth, work.sums + r0 * kPanel, k0 == 0);
        });
      });
    }
  }
}

// sums[rows_of_w][kPanel] = A1[:, row panel].T B1[:, panel] + A2.T B2 over all rows of the minibatch.
inline void multiply_gradient(const UpdateTask& task, int row_panel, int rows_of_w, int panel, float* sums) {
  const int vectors = vectors_of(task.outputs - panel * kPanel);
  const int tiles = (rows_of_w + kTileRows - 1) / kTileRows;
  const float* a1 = task.a1.data + static_cast<std::size_t>(row_panel) * task.a1.stride;
  const float* b1 = task.b1.data + static_cast<std::size_t>(panel) * task.b1.stride;
  const float* a2 = task.a2.data ? task.a2.data + static_cast<std::size_t>(row_panel) * task.a2.stride : nullptr;
  const float* b2 = task.a2.data ? task.b2.data + static_cast<std::size_t>(panel) * task.b2.stride : nullptr;
  const int deepest = a2 ? kUpdateDepth / 2 : kUpdateDepth;
  const int blocks = (task.rows + deepest - 1) / deepest;
  for (int block = 0; block < blocks; ++block) {
    const int k0 = static_cast<int>(static_cast<long>(task.rows) * block / blocks);
    const int k1 = static_cast<int>(static_cast<long>(task.rows) * (block + 1) / blocks);
    const std::size_t skip = static_cast<std::size_t>(k0) * kPanel;
    for (int t = 0; t < tiles; ++t) {
      const int r0 = rows_of_w * t / tiles, r1 = rows_of_w * (t + 1) / tiles;
      with_count<kTileRows>(r1 - r0, [&](auto tile_rows) {
        with_count<kVectors>(vectors, [&](auto tile_vectors) {
          multiply_transposed_tile<decltype(tile_rows)::value, decltype(tile_vectors)::value>(
              a1 + skip + r0, b1 + skip, a2 ? a2 + skip + r0 : nullptr, a2 ? b2 + skip : nullptr, k1 - k0,
              sums + r0 * kPanel, block == 0);
        });
      });
    }
  }
}

}  // namespace GESDA_VARIANT
}  // namespace gesda
