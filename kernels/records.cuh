// What the kernels of an epoch are told: records in device memory, written by gesda/engine/cuda/ before it starts.
//
// Fields are pointers and 8-byte numbers first, then 4-byte ones, so that no compiler pads between them.
#pragma once

#include "math.hpp"

namespace gesda {

// How the data's values are stored.
enum Storage : int { kFloat32 = 0, kFloat16 = 1, kUint8 = 2 };

// Rows of samples: row-major with rows of `stride` values, or the float32 values of CSR rows.
struct Source {
  const void* values;
  const long long* row_starts;  // CSR only, else null
  const int* columns;           // CSR only
  long long stride;
  long long ring;  // 0: all samples are there; else the last so many visits, visit v at row v % ring
  Storage storage;
  int padding;
};

// The key and the epoch's part of the counter of all draws.
struct NoiseKey {
  u32 key0, key1, epoch, padding;
};

// Who a layer hands its encoding to, and of what.
enum Handoff : int { kNobody = 0, kCleanHandoff = 1, kNoisyHandoff = 2 };

// A parameter array with its optimiser's state; row-major, rows of `stride` floats, zero beyond the matrix.
struct Parameter {
  float* values;
  float* state0;  // null where the optimiser has none
  float* state1;
};

// A layer of n visible and m hidden units. Minibatch matrices are row-major: x, d and x~ with rows of n_stride floats,
// h and e of m_stride; both strides are multiples of 4, and columns beyond the matrix are zero.
struct Layer {
  Parameter w, v;               // (n, m); untied: (m, n), else null
  Parameter b, c;               // (m), (n)
  float* x[3];                  // clean input, in turn by tick: two or three of them; d takes its place
  float* noisy[2];              // corrupted input x~
  unsigned char* corrupted[2];  // emphasis: which components are; else null
  float* h;
  float* e;
  float* slope;                    // of the sparsity penalty, one a hidden unit; null without penalties
  float* contraction;              // 2 lambda S_j
  float* decay;                    // 2 lambda Q_j
  double* losses;                  // sum over the epoch, one a tile of the decoder
  const float* rates;              // of each step (adam: with its bias corrections)
  const float* inverse_variances;  // adam, of each step
  int n, m, n_stride, m_stride;
  Activation activation, output;
  Loss loss;
  Noise noise;
  Handoff handoff;
  u32 threshold, stream, partner_stream;
  float level, low, high;
  float emphasis_corrupted, emphasis_clean;
  float sparsity, sparsity_target, contractive, l2;
  int padding;
};

// Part of a phase: blocks [first_block, next part's) do this for a layer.
enum Work : int {
  kEncodeNoisy,  // h = s(x~ W + b)
  kEncodeClean,  // the next layer's x = s(x W + b)
  kGather,       // the first layer's x of the next tick
  kDecode,       // d = dLoss/da over x
  kStatistics,   // what the penalties need of h and W
  kCorrupt,      // x~ of the next tick
  kBackprop,     // e = (d W + penalties) * s'(h)
  kUpdateW,
  kUpdateV,
  kUpdateB,
  kUpdateC,
  kColumnPanel,  // the end of a step and the start of the next one
  kRowPanel,     // between them
  kGatherAhead,  // the first layer's x of the tick after the next
};
struct Part {
  int work;   // a Work, or a DenseWork
  int layer;  // offset from the epoch's first layer
  int first_block, blocks;
};

struct Epoch {
  Layer* layers;
  const Part* parts;
  Source source;
  const u32* order;  // sample id of each visit
  const int* tick;   // of the first tick of a launch; the launch adds its own offset
  NoiseKey noise;
  int n_layers, batch, n_visits, n_steps, n_inputs;
  int has_resident;  // whether a block has shared memory for a whole panel of W
  UpdateRule rule;   // but for the rate and the inverse variance, which change with the step
};

// ---- fine-tuning and inference ----
// A layer (or the head) that computes out = s(in W + b), dropout applied; row-major matrices, as above.
struct Dense {
  Parameter w, b;
  const float* in;
  float* out;
  float* e;                // of its logits; the head's stands in `out`
  unsigned char* dropped;  // by dropout of `out`; null: none
  long long out_step;      // values from a minibatch's rows in `out` to the next one's; 0: the same place
  int inputs, outputs, in_stride, out_stride, w_stride;
  int transposed;  // whether the matrix in `w` is (outputs, inputs)
  Activation activation;
  u32 threshold, stream;
  float scale;  // of what dropout keeps
};

enum DenseWork : int {
  kGatherInput,  // and its dropout
  kDrawMask,     // of a layer's output
  kForward,
  kHeadOutput,  // probabilities; in training loss and delta
  kBackward,    // e of a layer, from that of the one above
  kUpdateDense,
  kUpdateDenseBias,
};

struct Pass {
  Dense* layers;  // the last one is the head, if there is one
  const Part* parts;
  Source source;
  const u32* order;  // null: rows in their order
  const int* tick;   // number of a launch's first step
  float* input;
  unsigned char* dropped;  // of the input; null: no dropout
  const int* classes;      // by sample id; softmax in training
  const float* targets;    // by sample id, (samples, outputs); linear head in training
  const float* weights;    // by sample id; null: all 1
  double* losses;          // sum over the epoch, by row of the minibatch; null: no training
  const float* rates;
  const float* inverse_variances;
  NoiseKey noise;
  int n_layers, batch, n_visits, input_stride;
  Head head;
  u32 threshold, stream;  // of the input's dropout
  float scale, l2;
  UpdateRule rule;
  int padding;
};

}  // namespace gesda
