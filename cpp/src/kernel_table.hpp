// What one SIMD variant offers: functions over plain task records.
//
// The variants are compiled with instructions that this machine may lack, so they share no inline code with the
// rest of the core: no standard containers in here, only pointers and numbers. All matrices are in panels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/math.hpp"

namespace gesda {

// A matrix of R rows and C columns as ceil(C / width) panels of R rows and `width` columns, zero padded:
// element (r, c) stands at data[(c / width) * stride + r * width + c % width]. `width` belongs to the variant.
struct Panels {
  float* data;
  std::size_t stride;  // floats from one panel to the next
};

// A bf16 copy of a matrix, as operand of products: words of two neighbouring elements, the first in the low half. A
// missing second one (of an odd number) and what pads the panels are zero.
//   by columns  elements (r, c) and (r, c + 1), c even, at data[(c / width) * stride + (r * width + c % width) / 2]
//   by rows     elements (r, c) and (r + 1, c), r even, at data[(c / width) * stride + r / 2 * width + c % width]
struct Pairs {
  u32* data;
  std::size_t stride;  // words from one panel to the next
};

// What a task computes: rows [row_begin, row_end), panels [panel_begin, panel_end).
struct Range {
  int row_begin, row_end, panel_begin, panel_end;
};

// Which bits of a matrix were drawn: bit c % 32 of words[(c / 32) * rows + r].
struct BitMatrix {
  u32* words;  // null: not kept
  int rows;
};

struct DataRows {  // the user's data, row-major or CSR
  const float* values;
  std::size_t row_stride;              // floats; dense only
  const std::int64_t* row_pointers;    // CSR only
  const std::int32_t* column_indices;  // CSR only, null for dense data
};

struct CorruptTask {
  Noise kind;
  u32 threshold;    // of the 16-bit draw
  float level;      // gaussian: standard deviation
  float low, high;  // salt-and-pepper
  float scale;      // what is kept is multiplied by it: dropout
  u32 key0, key1, epoch, stream, partner_stream;
  const u32* ids;
  int rows, columns;
  Panels in, out;  // out.data null: only the bits are wanted
  BitMatrix corrupted;
};

struct GatherTask {
  DataRows data;
  const u32* ids;         // sample id of each row of the minibatch; null: row r of the data
  std::size_t first_row;  // with null ids
  int columns;
  Panels out;
  const CorruptTask* corrupt;  // what follows, without another look at all rows: no swapping; null: nothing
};

struct PackTask {  // a matrix of floats to its bf16 copies
  Panels in;
  int rows, columns;
  Pairs by_columns, by_rows;  // data null: not wanted
};

// Operand that a product reads: panels of W as they are, or the panels of its transpose, made on the way.
struct Weights {
  Panels panels;
  int rows;         // of the matrix in `panels`
  bool transposed;  // the product uses panels.T
};

struct EncodeTask {
  Panels in;  // (rows, inputs)
  int inputs, outputs;
  Weights weights;    // (inputs, outputs)
  const float* bias;  // padded to whole panels
  Activation activation;
  Panels out, copy;   // copy.data null: none
  BitMatrix dropped;  // dropout of the output
  float dropout_scale;
  Pairs pairs = {};  // bf16: `in` by columns, which the product reads instead; data null: float32
};

struct DecodeTask {
  Panels in;            // h (rows, inputs)
  int inputs, outputs;  // hidden, visible
  Weights weights;      // (inputs, outputs)
  const float* bias;
  Activation output;
  Loss loss;
  Panels clean;         // x in, d out (rows, outputs)
  BitMatrix corrupted;  // words null: no emphasis
  float emphasis_corrupted, emphasis_clean;
  double* loss_slots;  // one a panel and row block: slot = row_block * panels + panel
  int rows_per_block;
  Pairs pairs = {};  // as in EncodeTask
};

struct BackpropTask {
  Panels in;  // d of what is above (rows, inputs)
  int inputs, outputs;
  Weights weights;  // (inputs, outputs)
  Activation activation;
  Panels values;  // h (rows, outputs), after dropout
  Panels out;     // e (rows, outputs); may be `values` itself
  BitMatrix dropped;
  float dropout_scale;
  const float* slope;        // sparsity: added to dLoss/dh, one a column; null: none
  const float* contraction;  // 2 lambda S_j, one a column; null: none
  Pairs pairs = {};          // as in EncodeTask
};

struct StatisticsTask {  // per hidden column: what sparsity and contraction need
  Panels values;         // h (rows, columns)
  int rows, columns;
  Panels weights;  // W (weight_rows, columns)
  int weight_rows;
  Activation activation;
  float sparsity, sparsity_target, contractive;
  float* slope;        // beta * dKL/dmean
  float* contraction;  // 2 lambda S_j
  float* decay;        // 2 lambda Q_j
};

struct UpdatePairs {  // bf16: the operands by rows, which the products read instead; a1.data null: float32
  Pairs a1, b1, a2, b2;
};

// W (inputs, outputs) -= optimiser(A1.T B1 + A2.T B2): the panels are those of W, the rows those of W.
struct UpdateTask {
  Panels a1, b1, a2, b2;  // a2.data null: one product
  int rows;               // of the minibatch
  int inputs, outputs;
  Panels weights, state0, state1;
  const UpdateRule* rule;
  float inverse_rows;  // 1 / rows
  float l2;
  const float* decay;  // contraction: 2 lambda Q_j, one a column of W; null: none
  UpdatePairs pairs = {};
};

struct BiasTask {  // bias -= optimiser(column sums of `deltas`)
  Panels deltas;
  int rows, columns;
  float *bias, *state0, *state1;
  const UpdateRule* rule;
  float inverse_rows;
};

struct HeadTask {  // rows of logits to outputs; in training also loss and delta
  Head kind;
  Panels logits;  // (rows, columns) in; probabilities or delta out
  int columns;
  const u32* ids;
  const std::int32_t* classes;  // by sample id
  const float* targets;         // by sample id, row-major (samples, columns)
  const float* weights;         // by sample id; null: all 1
  double* loss_slots;           // one a row; null: no training, probabilities or values out
};

struct ScatterTask {  // panels to row-major
  Panels in;
  int columns;
  float* out;
  std::size_t row_stride;
};

struct Kernels {
  const char* name;
  int panel_width;               // columns of a panel
  int row_block;                 // most rows that a task may have
  std::size_t workspace_floats;  // of each thread
  void (*gather)(const GatherTask&, Range);
  void (*corrupt)(const CorruptTask&, Range);
  void (*pack)(const PackTask&, Range);  // all panels of the rows; row_begin is even
  void (*encode)(const EncodeTask&, Range, float* workspace);
  void (*decode)(const DecodeTask&, Range, float* workspace);
  void (*backprop)(const BackpropTask&, Range, float* workspace);
  void (*statistics)(const StatisticsTask&, Range);
  void (*update)(const UpdateTask&, Range, float* workspace);
  void (*update_bias)(const BiasTask&, Range);
  void (*head)(const HeadTask&, Range, float* workspace);
  void (*scatter)(const ScatterTask&, Range);
  double (*fma_rate)(double seconds);  // FLOP/s of dependent-free fused multiply-adds on one thread
};

}  // namespace gesda
