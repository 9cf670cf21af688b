// What the steps of pretraining, fine-tuning and inference have in common: tiles' places, sums, updates.
#pragma once

#include "product.cuh"
#include "rows.cuh"

namespace gesda {

// The place of a block's tile in a matrix of so many columns.
struct Tile {
  int row0, column0;
};
GESDA_DEVICE Tile tile_of(int block, int columns) {
  const int across = (columns + kTileColumns - 1) / kTileColumns;
  return {block / across * kTileRows, block % across * kTileColumns};
}

// The product of a minibatch (rows, depth) and a weight matrix (depth, columns) or, transposed, (columns, depth).
template <Arithmetic kArithmetic>
GESDA_DEVICE TileSums product_with_weights(const Tile& tile, const Operand& rows, const Operand& weights,
                                           bool transposed, int depth) {
  TileSums sums{};
  if (transposed)
    add_product<kArithmetic, true, true>(rows, weights, tile.row0, tile.column0, depth, sums);
  else
    add_product<kArithmetic, true, false>(rows, weights, tile.row0, tile.column0, depth, sums);
  return sums;
}

// The part of a phase that its block number `block` belongs to.
GESDA_DEVICE Part part_of(const Part* parts, int first_part, int last_part, int block) {
  int i = first_part;
  while (i < last_part && block >= parts[i + 1].first_block) ++i;
  return parts[i];
}

// The sum of all threads' values, in a fixed order, for thread 0.
GESDA_DEVICE double sum_of_block(float value) {
  float* const partial = static_cast<float*>(shared_memory());
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  sync_block();  // the product's slices are no longer read
  if (thread_index() % 32 == 0) partial[thread_index() / 32] = value;
  sync_block();
  double sum = 0.0;
  for (int warp = 0; warp < kThreads / 32; ++warp) sum += static_cast<double>(partial[warp]);
  return sum;
}

// ---- updates ----
// Writes the parameter's element number `at`, which was `value`, after a step; returns it.
GESDA_DEVICE float update_value(const UpdateRule& rule, const Parameter& parameter, long long at, float value,
                                float gradient) {
  float s0 = rule.kind != kSgd ? parameter.state0[at] : 0.0f, s1 = rule.kind == kAdam ? parameter.state1[at] : 0.0f;
  const float result = updated(rule, value, gradient, s0, s1);
  parameter.values[at] = result;
  if (rule.kind != kSgd) parameter.state0[at] = s0;
  if (rule.kind == kAdam) parameter.state1[at] = s1;
  return result;
}
GESDA_DEVICE void update_element(const UpdateRule& rule, const Parameter& parameter, long long at, float gradient) {
  update_value(rule, parameter, at, parameter.values[at], gradient);
}

// A tile of a weight matrix, whose gradient's sums are complete.
GESDA_DEVICE void update_tile(const TileSums& sums, const Tile& tile, const UpdateRule& rule, const Parameter& weights,
                              int rows, int columns, int stride, float inverse_batch, float l2, const float* decay) {
  for_each_sum(sums, tile.row0, tile.column0, [&](int row, int column, float sum) {
    if (row >= rows || column >= columns) return;
    const long long at = offset(row, stride, column);
    const float shrink = decay != nullptr ? l2 + decay[column] : l2;
    update_element(rule, weights, at, mad(shrink, weights.values[at], sum * inverse_batch));
  });
}

GESDA_DEVICE void update_bias(const Parameter& bias, const UpdateRule& rule, const float* deltas, int rows, int columns,
                              int stride, int block) {
  const int column = block * kThreads + thread_index();
  if (column >= columns) return;
  float sum = 0.0f;
  for (int row = 0; row < rows; ++row) sum += deltas[offset(row, stride, column)];
  update_element(rule, bias, column, sum * (1.0f / static_cast<float>(rows)));
}

}  // namespace gesda
