// Pretraining with large minibatches: a tick of CrossPre in four launches for all layers.
//
// In tick t, layer o does its own step t - o, so no layer waits for another (ARCHITECTURE.md, "CrossPre"). Each launch
// is a row of blocks that the host has dealt out in parts; a block looks up which part it belongs to:
//
//   encode    h = s(x~ W + b)           x of the layer above, next tick = s(x W + b)      first x of the next tick
//   decode    d = dLoss/da over x       statistics of h and W for the penalties           x~ of the next tick
//   backprop  e = (d W) * s'(h)
//   update    W, V                      b, c
//
// x and x~ have two buffers, by parity of the tick: while a tick works on one, the next tick's is being made. What one
// launch writes the next one reads; within a launch no block reads what another writes.
#pragma once

#include "steps.cuh"

namespace gesda {

// A layer's minibatch in a tick.
struct Step {
  int number, rows;  // rows 0: the layer has none in this tick
  const u32* ids;
};
GESDA_DEVICE Step step_of(const Epoch& epoch, int layer, int tick) {
  const int number = tick - layer;
  if (number < 0 || number >= epoch.n_steps) return {number, 0, nullptr};
  const int begin = number * epoch.batch, left = epoch.n_visits - begin;
  return {number, left < epoch.batch ? left : epoch.batch, epoch.order + begin};
}

// The layer's clean input in a tick, d after its decoding. A multiple of 6 keeps the remainder positive.
GESDA_DEVICE float* clean_input(const Epoch& epoch, const Layer& layer, int tick) {
  return layer.x[(tick + 6) % epoch.n_inputs];
}

// ---- encode ----
// out = s(in W + b), and a copy of it.
template <Arithmetic kArithmetic>
GESDA_DEVICE void encode_tile(const Layer& layer, const float* in, int rows, int block, float* out, float* copy) {
  const Tile tile = tile_of(block, layer.m);
  if (tile.row0 >= rows) return;
  TileSums sums{};
  add_product<kArithmetic, true, false>({in, layer.n_stride, rows}, {layer.w.values, layer.m_stride, layer.m},
                                        tile.row0, tile.column0, layer.n, sums);
  for_each_sum(sums, tile.row0, tile.column0, [&](int row, int column, float sum) {
    if (row >= rows || column >= round_up(layer.m, 4)) return;
    const float value = column < layer.m ? activate(layer.activation, sum + layer.b.values[column]) : 0.0f;
    out[offset(row, layer.m_stride, column)] = value;
    if (copy != nullptr) copy[offset(row, layer.m_stride, column)] = value;
  });
}

// ---- decode ----
// The value of an element's loss, and d = dLoss/da at the decoder's logit a.
GESDA_DEVICE float reconstruction_loss(const Layer& layer, float a, float x, float& d) {
  float value, factor;
  if (layer.loss == kSquaredError) {
    d = squared_error(layer.output, a, x, value);
    return value;
  }
  d = cross_entropy(a, x, value, factor);
  return value + logarithm(factor);
}

// d over x of an element whose product h W.T is `sum`; returns its loss.
GESDA_DEVICE float decode_element(const Layer& layer, float sum, int row, int column, float* x,
                                  const unsigned char* corrupted, float& d) {
  const long long at = offset(row, layer.n_stride, column);
  float value = reconstruction_loss(layer, sum + layer.c.values[column], x[at], d);
  if (corrupted != nullptr) {
    const float weight = corrupted[at] != 0 ? layer.emphasis_corrupted : layer.emphasis_clean;
    value *= weight;
    d *= weight;
  }
  x[at] = d;
  return value;
}

template <Arithmetic kArithmetic>
GESDA_DEVICE void decode_tile(const Layer& layer, int rows, int block, float* x, const unsigned char* corrupted) {
  const Tile tile = tile_of(block, layer.n);
  if (tile.row0 >= rows) return;
  TileSums sums{};
  const Operand h{layer.h, layer.m_stride, rows};
  if (layer.v.values == nullptr)
    add_product<kArithmetic, true, true>(h, {layer.w.values, layer.m_stride, layer.n}, tile.row0, tile.column0, layer.m,
                                         sums);
  else
    add_product<kArithmetic, true, false>(h, {layer.v.values, layer.n_stride, layer.n}, tile.row0, tile.column0,
                                          layer.m, sums);
  float loss = 0.0f;
  for_each_sum(sums, tile.row0, tile.column0, [&](int row, int column, float sum) {
    if (row >= rows || column >= layer.n) return;
    float d;
    loss += decode_element(layer, sum, row, column, x, corrupted, d);
  });
  const double total = sum_of_block(loss);
  if (thread_index() == 0) layer.losses[block] += total;
}

// What the penalties need of a hidden unit.
GESDA_DEVICE void find_statistics(const Layer& layer, int rows, int column) {
  float mean = 0.0f, slopes = 0.0f, squares = 0.0f;
  for (int row = 0; row < rows; ++row) {
    const float h = layer.h[offset(row, layer.m_stride, column)], s = derivative(layer.activation, h);
    mean += h;
    slopes = mad(s, s, slopes);
  }
  if (layer.contractive != 0.0f)
    for (int i = 0; i < layer.n; ++i) {
      const float w = layer.w.values[offset(i, layer.m_stride, column)];
      squares = mad(w, w, squares);
    }
  const float inverse = 1.0f / static_cast<float>(rows);
  layer.slope[column] = layer.sparsity * sparsity_slope(mean * inverse, layer.sparsity_target);
  layer.contraction[column] = 2.0f * layer.contractive * squares;
  layer.decay[column] = 2.0f * layer.contractive * slopes * inverse;
}

// ---- backprop ----
// e = (sum + penalties) * s'(h)
GESDA_DEVICE float error_of(const Layer& layer, float sum, float h, int column) {
  if (layer.sparsity != 0.0f) sum += layer.slope[column];
  if (layer.contractive != 0.0f) sum = mad(layer.contraction[column], second_derivative(layer.activation, h), sum);
  return sum * derivative(layer.activation, h);
}

template <Arithmetic kArithmetic>
GESDA_DEVICE void backprop_tile(const Layer& layer, int rows, int block, const float* d) {
  const Tile tile = tile_of(block, layer.m);
  if (tile.row0 >= rows) return;
  TileSums sums{};
  const Operand delta{d, layer.n_stride, rows};
  if (layer.v.values == nullptr)
    add_product<kArithmetic, true, false>(delta, {layer.w.values, layer.m_stride, layer.m}, tile.row0, tile.column0,
                                          layer.n, sums);
  else
    add_product<kArithmetic, true, true>(delta, {layer.v.values, layer.n_stride, layer.m}, tile.row0, tile.column0,
                                         layer.n, sums);
  for_each_sum(sums, tile.row0, tile.column0, [&](int row, int column, float sum) {
    if (row >= rows || column >= round_up(layer.m, 4)) return;
    const long long at = offset(row, layer.m_stride, column);
    layer.e[at] = column < layer.m ? error_of(layer, sum, layer.h[at], column) : 0.0f;
  });
}

// ---- update ----
// The rule of a layer's step.
GESDA_DEVICE UpdateRule rule_of(const Epoch& epoch, const Layer& layer, int step) {
  UpdateRule rule = epoch.rule;
  rule.rate = layer.rates[step];
  if (rule.kind == kAdam) rule.inverse_variance = layer.inverse_variances[step];
  return rule;
}
template <Arithmetic kArithmetic>
GESDA_DEVICE void update_w_tile(const Layer& layer, const UpdateRule& rule, int rows, int block, const float* noisy,
                                const float* d) {
  const Tile tile = tile_of(block, layer.m);
  TileSums sums{};
  add_product<kArithmetic, false, false>({noisy, layer.n_stride, layer.n}, {layer.e, layer.m_stride, layer.m},
                                         tile.row0, tile.column0, rows, sums);
  if (layer.v.values == nullptr)
    add_product<kArithmetic, false, false>({d, layer.n_stride, layer.n}, {layer.h, layer.m_stride, layer.m}, tile.row0,
                                           tile.column0, rows, sums);
  update_tile(sums, tile, rule, layer.w, layer.n, layer.m, layer.m_stride, 1.0f / static_cast<float>(rows), layer.l2,
              layer.contractive != 0.0f ? layer.decay : nullptr);
}
template <Arithmetic kArithmetic>
GESDA_DEVICE void update_v_tile(const Layer& layer, const UpdateRule& rule, int rows, int block, const float* d) {
  const Tile tile = tile_of(block, layer.n);
  TileSums sums{};
  add_product<kArithmetic, false, false>({layer.h, layer.m_stride, layer.m}, {d, layer.n_stride, layer.n}, tile.row0,
                                         tile.column0, rows, sums);
  update_tile(sums, tile, rule, layer.v, layer.m, layer.n, layer.n_stride, 1.0f / static_cast<float>(rows), layer.l2,
              nullptr);
}
// ---- a block's part ----
// Work for the next tick: kGather, kCorrupt.
GESDA_DEVICE void prepare(const Epoch& epoch, const Part& part, int tick) {
  const Layer& layer = epoch.layers[part.layer];
  const int block = block_index() - part.first_block, next = (tick + 1) & 1;
  const Step step = step_of(epoch, part.layer, tick + 1);
  float* const x = clean_input(epoch, layer, tick + 1);
  if (part.work == kGather)
    gather_rows(epoch.source, step.ids, 0, step.rows, layer.n, layer.n_stride, block, part.blocks, x);
  else
    corrupt_rows(epoch.noise, layer, step.ids, step.rows, block, part.blocks, x, layer.noisy[next],
                 layer.corrupted[next]);
}

template <Arithmetic kArithmetic>
GESDA_DEVICE void work_on(const Epoch& epoch, const Part& part, int tick) {
  if (part.work == kGather || part.work == kCorrupt) return prepare(epoch, part, tick);
  const Layer& layer = epoch.layers[part.layer];
  const int block = block_index() - part.first_block, parity = tick & 1;
  const Step step = step_of(epoch, part.layer, tick);
  if (step.rows == 0) return;
  const int rows = step.rows;
  float* const x = clean_input(epoch, layer, tick);
  float* const above = layer.handoff != kNobody ? clean_input(epoch, epoch.layers[part.layer + 1], tick + 1) : nullptr;
  switch (static_cast<Work>(part.work)) {
    case kEncodeNoisy:
      return encode_tile<kArithmetic>(layer, layer.noisy[parity], rows, block, layer.h,
                                      layer.handoff == kNoisyHandoff ? above : nullptr);
    case kEncodeClean: return encode_tile<kArithmetic>(layer, x, rows, block, above, nullptr);
    case kDecode: return decode_tile<kArithmetic>(layer, rows, block, x, layer.corrupted[parity]);
    case kStatistics: {
      const int column = block * kThreads + thread_index();
      return column < layer.m ? find_statistics(layer, rows, column) : void();
    }
    case kBackprop: return backprop_tile<kArithmetic>(layer, rows, block, x);
    default: break;
  }
  const UpdateRule rule = rule_of(epoch, layer, step.number);
  switch (static_cast<Work>(part.work)) {
    case kUpdateW: return update_w_tile<kArithmetic>(layer, rule, rows, block, layer.noisy[parity], x);
    case kUpdateV: return update_v_tile<kArithmetic>(layer, rule, rows, block, x);
    case kUpdateB: return update_bias(layer.b, rule, layer.e, rows, layer.m, layer.m_stride, block);
    case kUpdateC: return update_bias(layer.c, rule, x, rows, layer.n, layer.n_stride, block);
    default: break;
  }
}

// Parts `first_part` to `last_part` of tick `*epoch->tick + tick_offset`.
template <Arithmetic kArithmetic>
GESDA_DEVICE void pretrain_parts(const Epoch* epoch, int first_part, int last_part, int tick_offset) {
  work_on<kArithmetic>(*epoch, part_of_block(epoch->parts, first_part, last_part), *epoch->tick + tick_offset);
}

}  // namespace gesda
