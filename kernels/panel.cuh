// Pretraining with small minibatches: a tick of CrossPre in two launches for all layers.
//
// A small minibatch is traffic, not arithmetic, so each element of W is moved as little as can be. A block owns a
// panel:
//
//   column panel, kPanel columns of W (and the same rows of V), between tick t and tick t + 1
//       e = (d W) * s'(h), W, V and b updated: the end of step t
//       h = s(x~ W + b), and the layer above's next x = s(x W + b): the start of step t + 1, W still on chip
//   row panel, kPanel visible units, in tick t
//       d = dLoss/da over x for a = h W.T + c, c updated
//
//            kPanel
//          +---+---+---+---+     The depth goes in chunks of 128 rows of W; warp w has 16 of them, so that what it
//   chunk  |   |   |   |   |     updates it multiplies again at once, and the eight warps' sums are added at the end.
//   of 128 +---+---+---+---+
//          |   |   |   |   |     The next tick's minibatch of the first layer and all layers' noise are made by spare
//          +---+---+---+---+     blocks: x of tick t + 2 beside the column panels, x~ of tick t + 1 beside the rows'.
//
// x therefore has three buffers (d of tick t, x of t + 1, x of t + 2), x~ two. A block's shared memory:
//
//   errors, values   e and h of the panel's columns, (rows, kPanel)
//   weights          two chunks of W or V
//   stage            128 columns of two or four of the minibatch's matrices; then all warps' sums
//   resident         the whole panel of W, (n, kPanel), where there is room: read once for the errors and the update,
//   and
//                    in persistent.cuh once for many ticks
//
// Chunks come by asynchronous copies while the one before is worked on. Between the update of a chunk of W and its use
// for the next minibatch, that one's rows come: over those of this minibatch, or beside them where shared memory has
// room.
//
// What a tick moves and computes for a tied layer, minibatches of B rows, panels of P columns:
//
//   row panels      read 4 n m bytes of W once, h once a panel (4 B m n / P); 2 B n m operations
//   column panels   read 4 n m bytes of W once if the panel is resident, else twice (errors, then update and encoding),
//                   write them once; d and x~ (twice with the next one), and x if the layer above wants it, once a
//                   panel; 8 to 10 B n m operations
#pragma once

#include "pretrain.cuh"

namespace gesda {

constexpr int kChunk = 128, kChunkStride = kChunk + 4, kWarps = kThreads / 32;

// Sizes for minibatches of up to 16 kTiles rows and panels of kPanel columns.
template <int kTiles, int kPanel>
struct PanelShape {
  static constexpr int kRows = 16 * kTiles, kColumns = kPanel / 8;
  // Of panels in shared memory: 8 or 24 more than a multiple of 32, so that no two rows of a fragment share a bank.
  static constexpr int kStride = kPanel / 8 % 2 == 1 ? kPanel : kPanel + 8;
  static constexpr int kWeights = kChunk * kStride > kPanel* kChunkStride ? kChunk * kStride : kPanel * kChunkStride;
  static constexpr int kMatrix = kRows * kChunkStride;  // a matrix's rows of a chunk
  static constexpr bool kOverlaps = kTiles <= 2;        // whether two minibatches have room
  static constexpr int kStage = (kOverlaps ? 4 : 2) * kMatrix;
  static constexpr int kSums = kWarps * kRows * kPanel;  // all warps' sums, in the same place
  static constexpr int kFloats = 2 * kRows * kStride + 2 * kWeights + (kStage > kSums ? kStage : kSums);
};

// The sums of a warp: kTiles x kColumns products of 16 x 8.
template <class Shape>
struct PanelSums {
  float of[Shape::kRows / 16][Shape::kColumns][4];
};

// Copies columns k0 to k0 + 127 of a minibatch's matrix; zeros outside of it.
template <class Shape>
GESDA_DEVICE void fetch_rows(float* to, const float* from, int stride, int k0, int depth, int rows) {
  for (int item = thread_index(); item < Shape::kRows * (kChunk / 4); item += kThreads) {
    const int row = item / (kChunk / 4), k = item % (kChunk / 4) * 4;
    const bool real = row < rows && k0 + k < depth;
    copy_async(to + row * kChunkStride + k, from + (real ? offset(row, stride, k0 + k) : 0), real);
  }
}
// Copies a block of a weight matrix: rows row0 to row0 + height, columns column0 to column0 + width, to rows of
// `to_stride`; zeros outside.
GESDA_DEVICE void fetch_weights(float* to, int to_stride, const float* from, int stride, int row0, int height, int rows,
                                int column0, int width, int columns) {
  for (int item = thread_index(); item < height * (width / 4); item += kThreads) {
    const int row = item / (width / 4), column = item % (width / 4) * 4;
    const bool real = row0 + row < rows && column0 + column < columns;
    copy_async(to + row * to_stride + column, from + (real ? offset(row0 + row, stride, column0 + column) : 0), real);
  }
}
// Until all copies have landed, all threads see them, and nobody works on what was there before.
GESDA_DEVICE void complete_copies() {
  wait_for_copies<0>();
  sync_block();
}

// An operand (k, j) in shared memory.
struct Staged {
  const float* values;
  int depth_stride, column_stride;
  GESDA_DEVICE float at(int k, int j) const { return values[k * depth_stride + j * column_stride]; }
};

// sums += rows (r, k) times b (k, j), for this warp's 16 of the chunk's 128 k.
template <Arithmetic kArithmetic, class Shape>
GESDA_DEVICE void add_chunk(const float* rows, const Staged& b, PanelSums<Shape>& sums) {
  const int first = thread_index() / 32 * 16;
  GESDA_UNROLL
  for (int k0 = first; k0 < first + 16; k0 += 8) {
    FragmentB<kArithmetic> y[Shape::kColumns];
    GESDA_UNROLL
    for (int c = 0; c < Shape::kColumns; ++c)
      y[c] = fragment_b<kArithmetic>([&](int k, int j) { return b.at(k0 + k, 8 * c + j); });
    GESDA_UNROLL
    for (int r = 0; r < Shape::kRows / 16; ++r) {
      const auto x = fragment_a<kArithmetic>([&](int i, int k) { return rows[(16 * r + i) * kChunkStride + k0 + k]; });
      GESDA_UNROLL
      for (int c = 0; c < Shape::kColumns; ++c) multiply(sums.of[r][c], x, y[c]);
    }
  }
}

// Adds the warps' sums in a fixed order: element (r, j) at total[r * kPanel + j].
template <class Shape>
GESDA_DEVICE void add_warps(const PanelSums<Shape>& sums, float* total) {
  constexpr int kPanel = 8 * Shape::kColumns, kSize = Shape::kRows * kPanel;
  const int warp = thread_index() / 32, lane = thread_index() % 32, g = lane / 4, t = lane % 4;
  sync_block();  // nobody works on the staged rows, which lie there
  GESDA_UNROLL
  for (int r = 0; r < Shape::kRows / 16; ++r) {
    GESDA_UNROLL
    for (int i = 0; i < 4 * Shape::kColumns; ++i)
      total[warp * kSize + (16 * r + g + i % 4 / 2 * 8) * kPanel + i / 4 * 8 + 2 * t + i % 2] =
          sums.of[r][i / 4][i % 4];
  }
  sync_block();
  for (int item = thread_index(); item < kSize; item += kThreads) {
    float sum = 0.0f;
    for (int w = 0; w < kWarps; ++w) sum += total[w * kSize + item];
    total[item] = sum;  // this thread alone reads and writes these elements
  }
  sync_block();
}

// ---- panels ----
// A block's panel, of W's columns or of the layer's visible units, and its shared memory.
template <class Shape>
struct Panel {
  const Layer& layer;
  int column0;
  float *errors, *values, *weights, *stage, *resident;
  bool is_here;  // all of W's panel, in `resident`

  GESDA_DEVICE Panel(const Layer& of, int number, bool has_resident, bool is_there)
      : layer(of),
        column0(number * 8 * Shape::kColumns),
        errors(static_cast<float*>(shared_memory())),
        is_here(is_there) {
    values = errors + Shape::kRows * Shape::kStride;
    weights = values + Shape::kRows * Shape::kStride;
    stage = weights + 2 * Shape::kWeights;
    resident = has_resident ? errors + Shape::kFloats : nullptr;
  }
  GESDA_DEVICE bool is_tied() const { return layer.v.values == nullptr; }
  GESDA_DEVICE float* matrix(int i) const { return stage + i * Shape::kMatrix; }
  GESDA_DEVICE float* weights_of(int k0) const { return weights + k0 / kChunk % 2 * Shape::kWeights; }
  // Where the chunk of W's panel at k0 is, or goes.
  GESDA_DEVICE float* chunk(int k0) const {
    return resident != nullptr ? resident + k0 * Shape::kStride : weights_of(k0);
  }
  GESDA_DEVICE void fetch_chunk(int k0, float* to) const {
    fetch_weights(to, Shape::kStride, layer.w.values, layer.m_stride, k0, kChunk, layer.n, column0, 8 * Shape::kColumns,
                  layer.m);
  }
  GESDA_DEVICE void need_chunk(int k0) const {
    if (!is_here) fetch_chunk(k0, chunk(k0));
  }
};

// Calls fetch(k0) and then work(k0) for the chunks of a depth; while one is worked on, the next is on its way.
template <class Fetch, class Work>
GESDA_DEVICE void for_each_chunk(int depth, const Fetch& fetch, const Work& work) {
  sync_block();  // nobody works on what was there before
  fetch(0);
  commit_copies();
  for (int k0 = 0; k0 < depth; k0 += kChunk) {
    complete_copies();
    if (k0 + kChunk < depth) {
      fetch(k0 + kChunk);
      commit_copies();
    }
    work(k0);
  }
}

// ---- column panels ----
// e and h of the panel's columns to shared memory, zero beyond the minibatch; b is updated.
template <Arithmetic kArithmetic, class Shape>
GESDA_DEVICE void find_errors(Panel<Shape>& p, const UpdateRule& rule, const float* d, int rows) {
  constexpr int kPanel = 8 * Shape::kColumns;
  const Layer& layer = p.layer;
  PanelSums<Shape> sums{};
  for_each_chunk(
      layer.n,
      [&](int k0) {
        fetch_rows<Shape>(p.matrix(k0 / kChunk % 2), d, layer.n_stride, k0, layer.n, rows);
        if (p.is_tied())
          p.need_chunk(k0);
        else
          fetch_weights(p.weights_of(k0), kChunkStride, layer.v.values, layer.n_stride, p.column0, kPanel, layer.m, k0,
                        kChunk, layer.n);
      },
      [&](int k0) {
        const Staged weights =
            p.is_tied() ? Staged{p.chunk(k0), Shape::kStride, 1} : Staged{p.weights_of(k0), 1, kChunkStride};
        add_chunk<kArithmetic>(p.matrix(k0 / kChunk % 2), weights, sums);
      });
  p.is_here = p.is_here || (p.is_tied() && p.resident != nullptr);
  add_warps(sums, p.stage);
  const int own = p.column0 + thread_index();  // a column for each of the first threads
  const bool has_column = thread_index() < kPanel && own < layer.m;
  if (has_column && layer.slope != nullptr) find_statistics(layer, rows, own);
  sync_block();
  for (int item = thread_index(); item < Shape::kRows * kPanel; item += kThreads) {
    const int row = item / kPanel, j = item % kPanel, column = p.column0 + j;
    const bool real = row < rows && column < layer.m;
    const float h = real ? layer.h[offset(row, layer.m_stride, column)] : 0.0f;
    p.values[row * Shape::kStride + j] = h;
    p.errors[row * Shape::kStride + j] = real ? error_of(layer, p.stage[item], h, column) : 0.0f;
  }
  sync_block();
  if (!has_column) return;
  float sum = 0.0f;
  for (int row = 0; row < rows; ++row) sum += p.errors[row * Shape::kStride + thread_index()];
  update_element(rule, layer.b, own, sum * (1.0f / static_cast<float>(rows)));
}

// sums(i, j) += staged(r, i) times panel(r, j), summed over the minibatch: this warp's 16 rows of the chunk.
template <Arithmetic kArithmetic, class Shape>
GESDA_DEVICE void add_gradient(const float* staged, const float* panel, float (&sums)[Shape::kColumns][4]) {
  const int first = thread_index() / 32 * 16;
  for (int r0 = 0; r0 < Shape::kRows; r0 += 8) {
    const auto x = fragment_a<kArithmetic>([&](int i, int r) { return staged[(r0 + r) * kChunkStride + first + i]; });
    GESDA_UNROLL
    for (int c = 0; c < Shape::kColumns; ++c)
      multiply(sums[c], x,
               fragment_b<kArithmetic>([&](int r, int j) { return panel[(r0 + r) * Shape::kStride + 8 * c + j]; }));
  }
}

// Updates W's chunk at k0, on chip and in device memory, and V's. Staged: x~ and, after it, d.
template <Arithmetic kArithmetic, class Shape>
GESDA_DEVICE void update_chunk(const Panel<Shape>& p, const UpdateRule& rule, int k0, int rows) {
  const Layer& layer = p.layer;
  const float inverse_rows = 1.0f / static_cast<float>(rows);
  const int lane = thread_index() % 32, first = thread_index() / 32 * 16 + lane / 4;
  float w_sums[Shape::kColumns][4] = {}, v_sums[Shape::kColumns][4] = {};
  add_gradient<kArithmetic, Shape>(p.matrix(0), p.errors, w_sums);
  if (p.is_tied())
    add_gradient<kArithmetic, Shape>(p.matrix(1), p.values, w_sums);
  else
    add_gradient<kArithmetic, Shape>(p.matrix(1), p.values, v_sums);
  float* const on_chip = p.chunk(k0);
  GESDA_UNROLL
  for (int i = 0; i < 4 * Shape::kColumns; ++i) {
    const int row = first + i % 4 / 2 * 8, j = i / 4 * 8 + 2 * (lane % 4) + i % 2, column = p.column0 + j;
    if (k0 + row >= layer.n || column >= layer.m) continue;
    float& w = on_chip[row * Shape::kStride + j];
    const float shrink = layer.contractive != 0.0f ? layer.l2 + layer.decay[column] : layer.l2;
    w = update_value(rule, layer.w, offset(k0 + row, layer.m_stride, column), w,
                     mad(shrink, w, w_sums[i / 4][i % 4] * inverse_rows));
    if (p.is_tied()) continue;
    const long long at = offset(column, layer.n_stride, k0 + row);
    update_element(rule, layer.v, at, mad(layer.l2, layer.v.values[at], v_sums[i / 4][i % 4] * inverse_rows));
  }
}

// Writes s(sum + b) of the panel's columns.
template <class Shape>
GESDA_DEVICE void write_encoding(const Panel<Shape>& p, const float* sums, int rows, float* out, float* copy) {
  constexpr int kPanel = 8 * Shape::kColumns;
  const Layer& layer = p.layer;
  for (int item = thread_index(); item < rows * kPanel; item += kThreads) {
    const int row = item / kPanel, column = p.column0 + item % kPanel;
    if (column >= layer.m) continue;
    const float value = activate(layer.activation, sums[item] + layer.b.values[column]);
    out[offset(row, layer.m_stride, column)] = value;
    if (copy != nullptr) copy[offset(row, layer.m_stride, column)] = value;
  }
}

// The end of a layer's step in tick `tick` and the start of its next one.
template <Arithmetic kArithmetic, class Shape>
GESDA_DEVICE void column_panel(const Epoch& epoch, int index, int number, int tick, bool is_here) {
  const Layer& layer = epoch.layers[index];
  Panel<Shape> p(layer, number, epoch.has_resident != 0, is_here);
  const Step now = step_of(epoch, index, tick), next = step_of(epoch, index, tick + 1);
  const bool trains = layer.h != nullptr, clean = layer.handoff == kCleanHandoff && next.rows > 0;
  const bool ends = trains && now.rows > 0, starts = trains && next.rows > 0;
  const float* const d = clean_input(epoch, layer, tick);
  float* const above = layer.handoff != kNobody ? clean_input(epoch, epoch.layers[index + 1], tick + 2) : nullptr;
  if (!ends && !starts && !clean) return;
  UpdateRule rule{};
  if (ends) {
    rule = rule_of(epoch, layer, now.number);
    find_errors<kArithmetic>(p, rule, d, now.rows);
  }
  PanelSums<Shape> noisy_sums{}, clean_sums{};
  constexpr int kNext = Shape::kOverlaps ? 2 : 0;  // where the next minibatch's rows go
  const auto fetch_now = [&](int k0) {
    if (k0 >= layer.n) return;
    p.need_chunk(k0);
    if (!ends) return;
    fetch_rows<Shape>(p.matrix(0), layer.noisy[tick & 1], layer.n_stride, k0, layer.n, now.rows);
    fetch_rows<Shape>(p.matrix(1), d, layer.n_stride, k0, layer.n, now.rows);
  };
  const auto fetch_next = [&](int k0) {
    if (starts) fetch_rows<Shape>(p.matrix(kNext), layer.noisy[(tick + 1) & 1], layer.n_stride, k0, layer.n, next.rows);
    if (clean)
      fetch_rows<Shape>(p.matrix(kNext + 1), clean_input(epoch, layer, tick + 1), layer.n_stride, k0, layer.n,
                        next.rows);
  };
  sync_block();
  fetch_now(0);
  for (int k0 = 0; k0 < layer.n; k0 += kChunk) {
    commit_copies();
    complete_copies();
    if (Shape::kOverlaps) fetch_next(k0);
    if (ends) update_chunk<kArithmetic>(p, rule, k0, now.rows);
    if (!Shape::kOverlaps) {
      sync_block();  // nobody reads the rows that the next ones overwrite
      fetch_next(k0);
    }
    commit_copies();
    complete_copies();
    if (Shape::kOverlaps) fetch_now(k0 + kChunk);
    const Staged w{p.chunk(k0), Shape::kStride, 1};
    if (starts) add_chunk<kArithmetic>(p.matrix(kNext), w, noisy_sums);
    if (clean) add_chunk<kArithmetic>(p.matrix(kNext + 1), w, clean_sums);
    if (!Shape::kOverlaps) {
      sync_block();  // likewise
      fetch_now(k0 + kChunk);
    }
  }
  if (starts) {
    add_warps(noisy_sums, p.stage);
    write_encoding(p, p.stage, next.rows, layer.h, layer.handoff == kNoisyHandoff ? above : nullptr);
  }
  if (clean) {
    add_warps(clean_sums, p.stage);
    write_encoding(p, p.stage, next.rows, above, nullptr);
  }
}

// ---- row panels ----
template <Arithmetic kArithmetic, class Shape>
GESDA_DEVICE void row_panel(const Epoch& epoch, int index, int number, int tick) {
  constexpr int kPanel = 8 * Shape::kColumns;
  const Layer& layer = epoch.layers[index];
  const Step step = step_of(epoch, index, tick);
  if (step.rows == 0) return;
  const Panel<Shape> p(layer, number, false, false);
  const int unit0 = p.column0;
  PanelSums<Shape> sums{};
  for_each_chunk(
      layer.m,
      [&](int k0) {
        fetch_rows<Shape>(p.matrix(k0 / kChunk % 2), layer.h, layer.m_stride, k0, layer.m, step.rows);
        if (p.is_tied())
          fetch_weights(p.weights_of(k0), kChunkStride, layer.w.values, layer.m_stride, unit0, kPanel, layer.n, k0,
                        kChunk, layer.m);
        else
          fetch_weights(p.weights_of(k0), Shape::kStride, layer.v.values, layer.n_stride, k0, kChunk, layer.m, unit0,
                        kPanel, layer.n);
      },
      [&](int k0) {
        const Staged weights =
            p.is_tied() ? Staged{p.weights_of(k0), 1, kChunkStride} : Staged{p.weights_of(k0), Shape::kStride, 1};
        add_chunk<kArithmetic>(p.matrix(k0 / kChunk % 2), weights, sums);
      });
  add_warps(sums, p.stage);
  float* const x = clean_input(epoch, layer, tick);
  float loss = 0.0f;
  for (int item = thread_index(); item < step.rows * kPanel; item += kThreads) {
    const int row = item / kPanel, unit = unit0 + item % kPanel;
    float d = 0.0f;
    if (unit < layer.n) loss += decode_element(layer, p.stage[item], row, unit, x, layer.corrupted[tick & 1], d);
    p.stage[item] = d;
  }
  sync_block();
  if (thread_index() < kPanel && unit0 + thread_index() < layer.n) {
    float sum = 0.0f;
    for (int row = 0; row < step.rows; ++row) sum += p.stage[row * kPanel + thread_index()];
    const UpdateRule rule = rule_of(epoch, layer, step.number);
    update_element(rule, layer.c, unit0 + thread_index(), sum * (1.0f / static_cast<float>(step.rows)));
  }
  const double total = sum_of_block(loss);
  if (thread_index() == 0) layer.losses[number] += total;
}

// ---- a block's part ----
// Block number `block` of a phase; `is_here`: its panel of W is on chip.
template <Arithmetic kArithmetic, class Shape>
GESDA_DEVICE void panel_work(const Epoch& epoch, const Part& part, int block, int tick, bool is_here) {
  const int number = block - part.first_block;
  switch (static_cast<Work>(part.work)) {
    case kColumnPanel: return column_panel<kArithmetic, Shape>(epoch, part.layer, number, tick, is_here);
    case kRowPanel: return row_panel<kArithmetic, Shape>(epoch, part.layer, number, tick);
    case kGatherAhead: return prepare(epoch, {kGather, part.layer, part.first_block, part.blocks}, number, tick + 1);
    default: return prepare(epoch, part, number, tick);
  }
}

// Parts `first_part` to `last_part` of tick `*epoch->tick + tick_offset`.
template <Arithmetic kArithmetic, class Shape>
GESDA_DEVICE void panel_parts(const Epoch* epoch, int first_part, int last_part, int tick_offset) {
  const Part part = part_of(epoch->parts, first_part, last_part, block_index());
  panel_work<kArithmetic, Shape>(*epoch, part, block_index(), *epoch->tick + tick_offset, false);
}

}  // namespace gesda
