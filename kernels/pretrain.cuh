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
// Operations of a layer: 2 B n m for each of encode (twice if it hands up), decode and backprop, 4 B n m for the
// update.
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

// ---- elements ----
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

// e = (sum + penalties) * s'(h)
GESDA_DEVICE float error_of(const Layer& layer, float sum, float h, int column) {
  if (layer.sparsity != 0.0f) sum += layer.slope[column];
  if (layer.contractive != 0.0f) sum = mad(layer.contraction[column], second_derivative(layer.activation, h), sum);
  return sum * derivative(layer.activation, h);
}

// The rule of a layer's step.
GESDA_DEVICE UpdateRule rule_of(const Epoch& epoch, const Layer& layer, int step) {
  UpdateRule rule = epoch.rule;
  rule.rate = layer.rates[step];
  if (rule.kind == kAdam) rule.inverse_variance = layer.inverse_variances[step];
  return rule;
}

// ---- tiles ----
// A tile of a product of the minibatch with the layer's weights, and what follows from it.
template <Arithmetic kArithmetic>
GESDA_DEVICE void minibatch_tile(const Epoch& epoch, const Part& part, int tick, int rows, int block) {
  const Layer& layer = epoch.layers[part.layer];
  const bool decodes = part.work == kDecode, encodes = part.work == kEncodeNoisy || part.work == kEncodeClean;
  const int columns = decodes ? layer.n : layer.m, stride = decodes ? layer.n_stride : layer.m_stride;
  const Tile tile = tile_of(block, columns);
  if (tile.row0 >= rows) return;
  float* const x = clean_input(epoch, layer, tick);  // d once it is decoded
  const float* const in = decodes ? layer.h : part.work == kEncodeNoisy ? layer.noisy[tick & 1] : x;
  const bool by_v = !encodes && layer.v.values != nullptr;  // V is (m, n), W is (n, m)
  const TileSums sums = product_with_weights<kArithmetic>(
      tile, {in, decodes ? layer.m_stride : layer.n_stride, rows},
      {by_v ? layer.v.values : layer.w.values, by_v ? layer.n_stride : layer.m_stride, columns}, decodes != by_v,
      decodes ? layer.m : layer.n);
  float loss = 0.0f;
  if (encodes) {
    float* const above =
        layer.handoff == kNobody ? nullptr : clean_input(epoch, epoch.layers[part.layer + 1], tick + 1);
    float* const out = part.work == kEncodeNoisy ? layer.h : above;
    float* const copy = part.work == kEncodeNoisy && layer.handoff == kNoisyHandoff ? above : nullptr;
    for_each_sum(sums, tile.row0, tile.column0, [&](int row, int column, float sum) {
      if (row >= rows || column >= round_up(columns, 4)) return;
      const float value = column < columns ? activate(layer.activation, sum + layer.b.values[column]) : 0.0f;
      out[offset(row, stride, column)] = value;
      if (copy != nullptr) copy[offset(row, stride, column)] = value;
    });
  } else if (decodes) {
    for_each_sum(sums, tile.row0, tile.column0, [&](int row, int column, float sum) {
      float d;
      if (row < rows && column < columns)
        loss += decode_element(layer, sum, row, column, x, layer.corrupted[tick & 1], d);
    });
    const double total = sum_of_block(loss);
    if (thread_index() == 0) layer.losses[block] += total;
  } else {
    for_each_sum(sums, tile.row0, tile.column0, [&](int row, int column, float sum) {
      if (row >= rows || column >= round_up(columns, 4)) return;
      const long long at = offset(row, stride, column);
      layer.e[at] = column < columns ? error_of(layer, sum, layer.h[at], column) : 0.0f;
    });
  }
}

// A tile of a weight matrix: W gets x~.T e and, tied, d.T h in the same sums; V gets h.T d.
template <Arithmetic kArithmetic>
GESDA_DEVICE void weights_tile(const Layer& layer, bool of_v, const UpdateRule& rule, int rows, int block,
                               const float* noisy, const float* d) {
  const Tile tile = tile_of(block, of_v ? layer.n : layer.m);
  TileSums sums{};
  GESDA_KEEP_LOOP
  for (int product = 0; product < (layer.v.values == nullptr ? 2 : 1); ++product) {
    const bool first = product == 0;  // pointers are chosen, not operands: these would go through memory
    const Operand wide{first && !of_v ? noisy : d, layer.n_stride, layer.n};
    const Operand narrow{first && !of_v ? layer.e : layer.h, layer.m_stride, layer.m};
    const Operand a{of_v ? narrow.values : wide.values, of_v ? narrow.stride : wide.stride,
                    of_v ? narrow.extent : wide.extent};
    const Operand b{of_v ? wide.values : narrow.values, of_v ? wide.stride : narrow.stride,
                    of_v ? wide.extent : narrow.extent};
    add_product<kArithmetic, false, false>(a, b, tile.row0, tile.column0, rows, sums);
  }
  update_tile(sums, tile, rule, of_v ? layer.v : layer.w, of_v ? layer.m : layer.n, of_v ? layer.n : layer.m,
              of_v ? layer.n_stride : layer.m_stride, 1.0f / static_cast<float>(rows), layer.l2,
              !of_v && layer.contractive != 0.0f ? layer.decay : nullptr);
}

// ---- a block's part ----
// Work for the next tick: kGather, kCorrupt.
GESDA_DEVICE void prepare(const Epoch& epoch, const Part& part, int block, int tick) {
  const Layer& layer = epoch.layers[part.layer];
  const int next = (tick + 1) & 1;
  const Step step = step_of(epoch, part.layer, tick + 1);
  float* const x = clean_input(epoch, layer, tick + 1);
  if (part.work == kGather)
    gather_rows(epoch.source, step.ids, offset(step.number, epoch.batch, 0), step.rows, layer.n, layer.n_stride, block,
                part.blocks, x);
  else
    corrupt_rows(epoch.noise, layer, step.ids, step.rows, block, part.blocks, x, layer.noisy[next],
                 layer.corrupted[next]);
}

// Block number `block` of a part.
template <Arithmetic kArithmetic>
GESDA_DEVICE void work_on(const Epoch& epoch, const Part& part, int block, int tick) {
  if (part.work == kGather || part.work == kCorrupt) return prepare(epoch, part, block, tick);
  const Layer& layer = epoch.layers[part.layer];
  const Step step = step_of(epoch, part.layer, tick);
  if (step.rows == 0) return;
  if (part.work == kStatistics) {
    const int column = block * kThreads + thread_index();
    return column < layer.m ? find_statistics(layer, step.rows, column) : void();
  }
  if (part.work < kUpdateW) return minibatch_tile<kArithmetic>(epoch, part, tick, step.rows, block);
  const float* const d = clean_input(epoch, layer, tick);
  const UpdateRule rule = rule_of(epoch, layer, step.number);
  if (part.work == kUpdateW || part.work == kUpdateV)
    return weights_tile<kArithmetic>(layer, part.work == kUpdateV, rule, step.rows, block, layer.noisy[tick & 1], d);
  const bool hidden = part.work == kUpdateB;
  update_bias(hidden ? layer.b : layer.c, rule, hidden ? layer.e : d, step.rows, hidden ? layer.m : layer.n,
              hidden ? layer.m_stride : layer.n_stride, block);
}

// Parts `first_part` to `last_part` of tick `*epoch->tick + tick_offset`.
template <Arithmetic kArithmetic>
GESDA_DEVICE void pretrain_parts(const Epoch* epoch, int first_part, int last_part, int tick_offset) {
  const Part part = part_of(epoch->parts, first_part, last_part, block_index());
  work_on<kArithmetic>(*epoch, part, block_index() - part.first_block, *epoch->tick + tick_offset);
}

}  // namespace gesda
