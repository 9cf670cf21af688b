// bf16: packing matrices into pairs, and products of pairs with float32 sums.
//
// The operands are rounded to bf16 (to nearest, ties to even), a word holds two neighbours along the dimension that a
// product sums over, and one instruction of AVX512-BF16 adds both their products to a float32 sum. Elsewhere shifts and
// two multiply-adds do the same, in the same order: for tests, not for speed. The loops are those of products.hpp.
#pragma once

#include "cpp/src/variants/noise.hpp"

namespace gesda {
namespace GESDA_VARIANT {

constexpr int kPairPanel = kPanel / 2;      // words of a row of a panel by columns
constexpr int kPairDepth = 2 * kDepth;      // a block of pairs fills the same memory
constexpr int kUpdatePairs = kUpdateDepth;  // pairs of rows of both products that an update sums at a time

GESDA_FN U load_pairs(const u32* p) { return *reinterpret_cast<const WordVector*>(p); }  // aligned
GESDA_FN void store_pairs(u32* p, U a) { *reinterpret_cast<WordVector*>(p) = a.v; }      // aligned

// x rounded to bf16, in the high halves; the low ones hold what is left of the sum. NaN stays NaN, quiet.
GESDA_FN U rounded(F x) {
  const U u = bits(x);
  const U up = u + U(0x7FFFu) + ((u >> 16) & U(1u));
  const Mask nan = {x.v != x.v};
  return bits(pick(nan, floats(u | U(0x400000u)), floats(up)));
}
GESDA_FN U join(U low, U high) { return (low >> 16) | (high & U(0xFFFF0000u)); }  // of what `rounded` gives

// sums + a . b
GESDA_FN F dot_pairs(U a, U b, F sums) {
#if defined(__AVX512BF16__)
  return (FloatVector)_mm512_dpbf16_ps((__m512)sums.v, (__m512bh)a.v, (__m512bh)b.v);
#else
  const U high(0xFFFF0000u);
  sums = mad(floats(a & high), floats(b & high), sums);  // products of two bf16 are exact: fused or not, the same bits
  return mad(floats(a << 16), floats(b << 16), sums);
#endif
}

// ---- packing ----
template <int First, int... I>
GESDA_FN WordVector every_other(WordVector a, WordVector b, Indices<I...>) {
  return __builtin_shufflevector(a, b, (2 * I + First)...);
}

// Two rows of a panel, the second one null past the matrix's last. `columns`: how many are left; what follows is zero.
GESDA_FN void pack_rows(const float* first, const float* second, int columns, u32* by_columns, u32* by_rows) {
  typedef typename MakeIndices<kLanes>::type All;
  U words[2][kVectors];
  for (int r = 0; r < 2; ++r) {
    const float* row = r == 0 ? first : second;
    for (int v = 0; v < kVectors; ++v) {
      const F x = row != nullptr ? load(row + v * kLanes) : F(0.0f);
      words[r][v] = rounded(pick(first_lanes(columns - v * kLanes), x, F(0.0f)));
    }
  }
  if (by_rows != nullptr)
    for (int v = 0; v < kVectors; ++v) store_pairs(by_rows + v * kLanes, join(words[0][v], words[1][v]));
  if (by_columns == nullptr) return;
  for (int r = 0; r < (second == nullptr ? 1 : 2); ++r)
    for (int v = 0; v < kVectors; v += 2) {
      const WordVector a = words[r][v].v, b = words[r][v + 1].v;
      store_pairs(by_columns + r * kPairPanel + v / 2 * kLanes,
                  join(U(every_other<0>(a, b, All{})), U(every_other<1>(a, b, All{}))));
    }
}

inline void pack(const PackTask& task, Range range) {
  const int panels = panels_of(task.columns);
  for (int panel = 0; panel < panels; ++panel) {
    const std::size_t p = static_cast<std::size_t>(panel);
    for (int row = range.row_begin; row < range.row_end; row += 2) {
      const float* first = at(task.in, row, panel * kPanel);
      const std::size_t r = static_cast<std::size_t>(row);
      pack_rows(first, row + 1 < range.row_end ? first + kPanel : nullptr, task.columns - panel * kPanel,
                task.by_columns.data ? task.by_columns.data + p * task.by_columns.stride + r * kPairPanel : nullptr,
                task.by_rows.data ? task.by_rows.data + p * task.by_rows.stride + r / 2 * kPanel : nullptr);
    }
  }
}

// pairs[k / 2][i] = M(k0 + k, i), M(k0 + k + 1, i) of a panel of M, k in [0, depth).
inline void pair_block(const Weights& m, int panel, int k0, int depth, u32* pairs) {
  const float* in =
      m.panels.data + static_cast<std::size_t>(panel) * m.panels.stride + static_cast<std::size_t>(k0) * kPanel;
  for (int k = 0; k < depth; k += 2, in += 2 * kPanel, pairs += kPanel)
    for (int v = 0; v < kPanel; v += kLanes) {
      const F second = k + 1 < depth ? load(in + kPanel + v) : F(0.0f);
      store_pairs(pairs + v, join(rounded(load(in + v)), rounded(second)));
    }
}

// As pair_block, of M.T: pairs[k / 2][i] = M(row0 + i, k0 + k), M(row0 + i, k0 + k + 1); k0 a multiple of kPanel. Rows
// past M's last are zero.
inline void transpose_pair_block(const Weights& m, int row0, int k0, int depth, u32* pairs) {
  const int rows = smaller(kPanel, m.rows - row0);
  alignas(64) float padded[kPanel * kPanel];
  for (int k = 0; k < depth; k += kPanel) {
    const float* in = m.panels.data + static_cast<std::size_t>((k0 + k) / kPanel) * m.panels.stride +
                      static_cast<std::size_t>(row0) * kPanel;
    u32* out = pairs + static_cast<std::size_t>(k) * kPairPanel;
    if (rows < kPanel) {
      for (int i = 0; i < kPanel * kPanel; i += kLanes) store(padded + i, i < rows * kPanel ? load(in + i) : F(0.0f));
      in = padded;
    } else {
      for (int i = 0; i < kPanel * kPanel; i += 16) __builtin_prefetch(in + m.panels.stride + i);  // far from this one
    }
    for (int i = 0; i < kPanel; i += kLanes)
      for (int j = 0; j < kPanel; j += 4) {
        FloatVector x[4];
        load_four_columns(in + i * kPanel + j, x);
        store_pairs(out + j * kPairPanel + i, join(rounded(F(x[0])), rounded(F(x[1]))));
        store_pairs(out + (j + 2) * kPairPanel + i, join(rounded(F(x[2])), rounded(F(x[3]))));
      }
  }
  if (depth % 2 != 0) {  // the second of the last pair is no element of M
    u32* last = pairs + static_cast<std::size_t>(depth / 2) * kPanel;
    for (int i = 0; i < kPanel; i += kLanes) store_pairs(last + i, load_pairs(last + i) & U(0xFFFFu));
  }
}

// ---- products ----
template <int Rows, int Vectors>
GESDA_FN void load_sums(const float* sums, bool first, FloatVector (&acc)[Rows][Vectors]) {
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) acc[r][v] = first ? FloatVector{} : load(sums + r * kPanel + v * kLanes).v;
}
template <int Rows, int Vectors>
GESDA_FN void store_sums(const FloatVector (&acc)[Rows][Vectors], float* sums) {
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store(sums + r * kPanel + v * kLanes, F(acc[r][v]));
}
// acc += the outer product of Rows pairs, `Step` words apart, with a row of a panel.
template <int Step, int Rows, int Vectors>
GESDA_FN void add_pairs(const u32* a, const u32* b, FloatVector (&acc)[Rows][Vectors]) {
  WordVector x[Vectors];
#pragma GCC unroll 4
  for (int v = 0; v < Vectors; ++v) x[v] = load_pairs(b + v * kLanes).v;
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
    const U factor(a[r * Step]);
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) acc[r][v] = dot_pairs(factor, U(x[v]), F(acc[r][v])).v;
  }
}

// As multiply_tile; a: pairs by columns, b: a block of pairs, depth: elements, not pairs.
template <int Rows, int Vectors>
__attribute__((noinline)) void multiply_pair_tile(const u32* a, std::size_t a_stride, const u32* b, int depth,
                                                  float* sums, bool first) {
  FloatVector acc[Rows][Vectors];
  load_sums(sums, first, acc);
  for (int k = 0; k < depth; k += kPanel, a += a_stride) {
    const int pairs = (smaller(kPanel, depth - k) + 1) / 2;
    const u32* row = a;
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) __builtin_prefetch(a + a_stride + r * kPairPanel);
#pragma GCC unroll 2
    for (int i = 0; i < pairs; ++i, ++row, b += kPanel) add_pairs<kPairPanel>(row, b, acc);
  }
  store_sums(acc, sums);
}

// As multiply_transposed_tile; all operands by rows, depth: pairs.
template <int Rows, int Vectors>
__attribute__((noinline)) void multiply_transposed_pair_tile(const u32* a1, const u32* b1, const u32* a2, const u32* b2,
                                                             int depth, float* sums, bool first) {
  FloatVector acc[Rows][Vectors];
  load_sums(sums, first, acc);
  const u32* a = a1;
  const u32* b = b1;
  for (int product = a2 == nullptr ? 1 : 0; product < 2; ++product, a = a2, b = b2)
    for (int k = 0; k < depth; ++k, a += kPanel, b += kPanel) add_pairs<1>(a, b, acc);
  store_sums(acc, sums);
}

// work.sums = in[row0 .. row0 + rows) * weights(:, panel), all `inputs` terms.
inline void multiply_row_pairs(Pairs in, int row0, int rows, int inputs, const Weights& weights, int panel, int columns,
                               Workspace& work) {
  const int vectors = vectors_of(columns - panel * kPanel);
  const int tiles = (rows + kTileRows - 1) / kTileRows;
  const int blocks = (inputs + kPairDepth - 1) / kPairDepth;  // of about equal depth
  const int most = ((inputs + blocks - 1) / blocks + kPanel - 1) / kPanel * kPanel;
  for (int k0 = 0; k0 < inputs; k0 += most) {
    const int depth = smaller(most, inputs - k0);
    if (weights.transposed)
      transpose_pair_block(weights, panel * kPanel, k0, depth, work.pairs);
    else
      pair_block(weights, panel, k0, depth, work.pairs);
    const u32* a =
        in.data + static_cast<std::size_t>(k0 / kPanel) * in.stride + static_cast<std::size_t>(row0) * kPairPanel;
    for (int t = 0; t < tiles; ++t) {
      const int r0 = rows * t / tiles, r1 = rows * (t + 1) / tiles;
      with_count<kTileRows>(r1 - r0, [&](auto tile_rows) {
        with_count<kVectors>(vectors, [&](auto tile_vectors) {
          multiply_pair_tile<decltype(tile_rows)::value, decltype(tile_vectors)::value>(
              a + static_cast<std::size_t>(r0) * kPairPanel, in.stride, work.pairs, depth, work.sums + r0 * kPanel,
              k0 == 0);
        });
      });
    }
  }
}

// sums[rows_of_w][kPanel] = A1[:, row panel].T B1[:, panel] + A2.T B2 over all rows of the minibatch.
inline void multiply_gradient_pairs(const UpdateTask& task, int row_panel, int rows_of_w, int panel, float* sums) {
  const UpdatePairs& pairs = task.pairs;
  const int vectors = vectors_of(task.outputs - panel * kPanel);
  const int tiles = (rows_of_w + kTileRows - 1) / kTileRows;
  const bool twice = pairs.a2.data != nullptr;
  const auto start = [](const Pairs& m, int p) { return m.data + static_cast<std::size_t>(p) * m.stride; };
  const u32* a1 = start(pairs.a1, row_panel);
  const u32* b1 = start(pairs.b1, panel);
  const u32* a2 = twice ? start(pairs.a2, row_panel) : nullptr;
  const u32* b2 = twice ? start(pairs.b2, panel) : nullptr;
  const int depth = (task.rows + 1) / 2;
  const int deepest = twice ? kUpdatePairs / 2 : kUpdatePairs;
  const int blocks = (depth + deepest - 1) / deepest;
  for (int block = 0; block < blocks; ++block) {
    const int k0 = static_cast<int>(static_cast<long>(depth) * block / blocks);
    const int k1 = static_cast<int>(static_cast<long>(depth) * (block + 1) / blocks);
    const std::size_t skip = static_cast<std::size_t>(k0) * kPanel;
    for (int t = 0; t < tiles; ++t) {
      const int r0 = rows_of_w * t / tiles, r1 = rows_of_w * (t + 1) / tiles;
      with_count<kTileRows>(r1 - r0, [&](auto tile_rows) {
        with_count<kVectors>(vectors, [&](auto tile_vectors) {
          multiply_transposed_pair_tile<decltype(tile_rows)::value, decltype(tile_vectors)::value>(
              a1 + skip + r0, b1 + skip, twice ? a2 + skip + r0 : nullptr, twice ? b2 + skip : nullptr, k1 - k0,
              sums + r0 * kPanel, block == 0);
        });
      });
    }
  }
}

}  // namespace GESDA_VARIANT
}  // namespace gesda
