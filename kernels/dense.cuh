// Fine-tuning and inference: the layers one after another, each a launch of tiles.
//
//   start      the minibatch's rows and their dropout, the masks of all layers
//   forward    layer by layer: out = s(in W + b), dropped or scaled; then the head
//   head       probabilities or values; in training the loss, and delta = dLoss/dlogit over them
//   backward   layer by layer from the top: e = (e of the layer above times its W.T) * s'(h)
//   update     W and b of all layers
#pragma once

#include "steps.cuh"

namespace gesda {

struct Minibatch {
  int rows;
  const u32* ids;   // null: rows of the data in their order
  long long first;  // of them
};
GESDA_DEVICE Minibatch minibatch_of(const Pass& pass, int step) {
  const int begin = step * pass.batch, left = pass.n_visits - begin;
  return {left < pass.batch ? left : pass.batch, pass.order != nullptr ? pass.order + begin : nullptr, begin};
}

GESDA_DEVICE void gather_input(const Pass& pass, const Minibatch& batch, int block, int blocks) {
  const Dense& first = pass.layers[0];
  gather_rows(pass.source, batch.ids, batch.first, batch.rows, first.inputs, pass.input_stride, block, blocks,
              pass.input);
  if (pass.dropped == nullptr) return;
  for (int row = block; row < batch.rows; row += blocks) {
    unsigned char* const dropped = pass.dropped + offset(row, pass.input_stride, 0);
    draw_mask_row(pass.noise, pass.threshold, pass.stream, batch.ids[row], first.inputs, dropped);
    sync_block();
    float* const x = pass.input + offset(row, pass.input_stride, 0);
    for (int column = thread_index(); column < first.inputs; column += kThreads)
      x[column] = dropped[column] != 0 ? 0.0f : x[column] * pass.scale;
  }
}

GESDA_DEVICE void draw_mask(const Pass& pass, const Dense& layer, const Minibatch& batch, int block, int blocks) {
  for (int row = block; row < batch.rows; row += blocks)
    draw_mask_row(pass.noise, layer.threshold, layer.stream, batch.ids[row], layer.outputs,
                  layer.dropped + offset(row, layer.out_stride, 0));
}

// Where a layer's output of a step stands.
GESDA_DEVICE float* output_of(const Dense& layer, int step) { return layer.out + step * layer.out_step; }

template <Arithmetic kArithmetic>
GESDA_DEVICE void forward_tile(const Dense& layer, int rows, int block, float* out) {
  const Tile tile = tile_of(block, layer.outputs);
  if (tile.row0 >= rows) return;
  const TileSums sums = product_with_weights<kArithmetic>(tile, {layer.in, layer.in_stride, rows},
                                                          {layer.w.values, layer.w_stride, layer.outputs},
                                                          layer.transposed != 0, layer.inputs);
  for_each_sum(sums, tile.row0, tile.column0, [&](int row, int column, float sum) {
    if (row >= rows || column >= round_up(layer.outputs, 4)) return;
    const long long at = offset(row, layer.out_stride, column);
    float value = 0.0f;
    if (column < layer.outputs) {
      value = activate(layer.activation, sum + layer.b.values[column]);
      if (layer.dropped != nullptr) value = layer.dropped[at] != 0 ? 0.0f : value * layer.scale;
    }
    out[at] = value;
  });
}

// ---- the head: a warp for each row ----
GESDA_DEVICE float sum_of_warp(float value) {
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
GESDA_DEVICE float greatest_of_warp(float value) {
  for (int mask = 16; mask > 0; mask /= 2) {
    const float other = shuffle_xor(value, mask);
    value = other > value ? other : value;
  }
  return value;
}

// Softmax of a row of logits in place; returns -ln p[target], for no target ln of the sum.
GESDA_DEVICE float softmax_row(float* logits, int columns, int target) {
  const int lane = thread_index() % 32;
  float top = logits[0];
  for (int column = lane; column < columns; column += 32) top = logits[column] > top ? logits[column] : top;
  top = greatest_of_warp(top);
  const float at_target = target >= 0 ? logits[target] - top : 0.0f;
  sync_warp();  // all have read the target's logit and the first
  float total = 0.0f;
  for (int column = lane; column < columns; column += 32) {
    logits[column] = exponential(logits[column] - top);
    total += logits[column];
  }
  total = sum_of_warp(total);
  for (int column = lane; column < columns; column += 32) logits[column] /= total;
  return logarithm(total) - at_target;
}

GESDA_DEVICE void head_rows(const Pass& pass, const Dense& head, const Minibatch& batch, int block, float* out) {
  const int row = block * (kThreads / 32) + thread_index() / 32, lane = thread_index() % 32;
  if (row >= batch.rows) return;
  const bool training = pass.losses != nullptr;
  float* const logits = out + offset(row, head.out_stride, 0);
  const long long sample = training ? static_cast<long long>(batch.ids[row]) : 0;
  const float weight = training && pass.weights != nullptr ? pass.weights[sample] : 1.0f;
  float loss = 0.0f;
  if (pass.head == kSoftmax) {
    const int target = training ? pass.classes[sample] : -1;
    loss = softmax_row(logits, head.outputs, target);
    if (!training) return;
    for (int column = lane; column < head.outputs; column += 32)
      logits[column] = weight * (logits[column] - (column == target ? 1.0f : 0.0f));
  } else {
    if (!training) return;
    const float* const targets = pass.targets + sample * head.outputs;
    for (int column = lane; column < head.outputs; column += 32) {
      const float residual = logits[column] - targets[column];
      loss = mad(0.5f * residual, residual, loss);
      logits[column] = weight * residual;
    }
    loss = sum_of_warp(loss);
  }
  if (lane == 0) pass.losses[row] += static_cast<double>(weight) * static_cast<double>(loss);
}

// e of `layer`, from the deltas of the layer above.
template <Arithmetic kArithmetic>
GESDA_DEVICE void backward_tile(const Dense& layer, const Dense& above, const float* deltas, int rows, int block) {
  const Tile tile = tile_of(block, layer.outputs);
  if (tile.row0 >= rows) return;
  const TileSums sums = product_with_weights<kArithmetic>(
      tile, {deltas, above.out_stride, rows}, {above.w.values, above.w_stride, layer.outputs}, true, above.outputs);
  for_each_sum(sums, tile.row0, tile.column0, [&](int row, int column, float sum) {
    if (row >= rows || column >= round_up(layer.outputs, 4)) return;
    const long long at = offset(row, layer.out_stride, column);
    float e = 0.0f;
    if (column < layer.outputs) {
      const float h = layer.out[at] / layer.scale;  // before dropout scaled it
      e = layer.dropped != nullptr && layer.dropped[at] != 0 ? 0.0f
                                                             : sum * layer.scale * derivative(layer.activation, h);
    }
    layer.e[at] = e;
  });
}

template <Arithmetic kArithmetic>
GESDA_DEVICE void dense_work(const Pass& pass, const Part& part, int step) {
  const Dense& layer = pass.layers[part.layer];
  const int block = block_index() - part.first_block;
  const Minibatch batch = minibatch_of(pass, step);
  if (batch.rows <= 0) return;  // a graph's steps after the epoch's last one
  const bool is_top = part.layer + 1 == pass.n_layers;
  const float* const deltas = is_top ? layer.out : layer.e;
  const float inverse_batch = 1.0f / static_cast<float>(batch.rows);
  UpdateRule rule = pass.rule;
  if (pass.losses != nullptr) {
    rule.rate = pass.rates[step];
    rule.inverse_variance = pass.inverse_variances[step];
  }
  switch (static_cast<DenseWork>(part.work)) {
    case kGatherInput: return gather_input(pass, batch, block, part.blocks);
    case kDrawMask: return draw_mask(pass, layer, batch, block, part.blocks);
    case kForward: return forward_tile<kArithmetic>(layer, batch.rows, block, output_of(layer, step));
    case kHeadOutput: return head_rows(pass, layer, batch, block, output_of(layer, step));
    case kBackward: {
      const Dense& above = pass.layers[part.layer + 1];
      const float* const from = part.layer + 2 == pass.n_layers ? above.out : above.e;
      return backward_tile<kArithmetic>(layer, above, from, batch.rows, block);
    }
    case kUpdateDense: {
      const Tile tile = tile_of(block, layer.outputs);
      TileSums sums{};
      add_product<kArithmetic, false, false>({layer.in, layer.in_stride, layer.inputs},
                                             {deltas, layer.out_stride, layer.outputs}, tile.row0, tile.column0,
                                             batch.rows, sums);
      return update_tile(sums, tile, rule, layer.w, layer.inputs, layer.outputs, layer.w_stride, inverse_batch, pass.l2,
                         nullptr);
    }
    case kUpdateDenseBias:
      return update_bias(layer.b, rule, deltas, batch.rows, layer.outputs, layer.out_stride, block);
  }
}

// Parts `first_part` to `last_part` of step `*pass->tick + step_offset`.
template <Arithmetic kArithmetic>
GESDA_DEVICE void dense_parts(const Pass* pass, int first_part, int last_part, int step_offset) {
  dense_work<kArithmetic>(*pass, part_of(pass->parts, first_part, last_part, block_index()), *pass->tick + step_offset);
}

}  // namespace gesda
