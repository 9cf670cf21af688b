// GeSdA's core: a stack of denoising autoencoders that pretrains, fine-tunes and predicts on the CPU.
//
// No Python, no BLAS. Matrices cross this interface row-major, in float32; inside they stand in panels. The
// definitions behind every field are those of gesda/spec.py and ARCHITECTURE.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/math.hpp"

namespace gesda {

// Of the operands of matrix products, as in gesda/spec.py; weights, sums and all else are float32.
enum Precision : int { kFp32 = 0, kBf16 = 1 };

struct LayerSpec {
  int n_visible, n_hidden;
  Activation activation;
  Activation output;
  Loss loss;
  bool tied;
  Noise noise;
  double noise_level;
  float noise_low, noise_high;
  float emphasis_corrupted, emphasis_clean;
  float sparsity, sparsity_target, contractive, l2;
};

struct OptimizerSpec {
  Optimizer kind;
  float momentum;
  bool nesterov;
  float beta1, beta2, epsilon;
};

struct HeadSpec {
  Head kind;
  int n_outputs;
  OptimizerSpec optimizer;
  float l2;
  std::vector<double> dropout;  // of the input and of each layer's encoding; empty: none
};

struct NetworkSpec {
  std::vector<LayerSpec> layers;
  OptimizerSpec optimizer;
  bool has_head;
  HeadSpec head;
  std::uint64_t seed;
};

// The user's samples: dense row-major, or CSR when column_indices is not null.
struct Samples {
  std::size_t n_rows;
  const float* values;
  std::size_t row_stride;
  const std::int64_t* row_pointers;
  const std::int32_t* column_indices;
};

struct PretrainPlan {
  std::uint32_t epoch;
  const std::uint32_t* order;  // sample ids, below Samples::n_rows
  std::size_t n_visits;
  int batch_size;
  std::vector<bool> training;         // per layer
  std::vector<float> learning_rates;  // per layer
  int first_layer;
  bool noisy_handoff;
};

struct FinetunePlan {
  std::uint32_t epoch;
  const std::uint32_t* order;
  std::size_t n_visits;
  int batch_size;
  float learning_rate;
};

struct Targets {
  const std::int32_t* classes;  // softmax: by sample id, in [0, n_outputs)
  const float* values;          // linear: by sample id, row-major (n_rows, n_outputs)
  const float* weights;         // by sample id; null: all 1
};

struct EpochStats {
  std::vector<double> loss;     // per layer (one entry for fine-tuning); NaN where nothing trained
  std::vector<double> seconds;  // per layer: its share of the wall-clock time
  bool completed;
};

// Called on the calling thread every 50 ms or so with the fraction of the epoch done; true asks to stop. It must not
// throw. A stop lets the minibatches on their way through the layers finish, so that all layers have seen the same
// ones; but a tick that takes over 100 ms is left at once, before its updates, with the upper layers a step or two
// behind.
using Poll = std::function<bool(double)>;

class Network {
 public:
  struct State;  // of the core alone

  // variant: a name out of available_variants(precision), or empty for the fastest; n_threads >= 1.
  Network(NetworkSpec spec, const std::string& variant, int n_threads, Precision precision = kFp32);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  const NetworkSpec& spec() const;
  const char* variant() const;

  // The arrays of NetworkSpec.state_shapes() in gesda/spec.py, by name, row-major. Throw std::out_of_range for an
  // unknown name. The step counters are read and set apart.
  void set_array(const std::string& name, const float* values);
  void get_array(const std::string& name, float* values) const;
  bool all_finite(const std::string& name) const;
  std::vector<std::int64_t>& pretrain_steps();
  std::int64_t& finetune_steps();

  EpochStats pretrain_epoch(const Samples& samples, const PretrainPlan& plan, const Poll& poll);
  EpochStats finetune_epoch(const Samples& samples, const Targets& targets, const FinetunePlan& plan, const Poll& poll);

  // out: (n_rows, width of layer n_layers - 1), row-major.
  void encode(const Samples& samples, int first_layer, int n_layers, float* out);
  // codes: (n_rows, width of layer n_layers - 1); out: (n_rows, n_visible of layer 0).
  void decode(const Samples& codes, int n_layers, float* out);
  // out: (n_rows, n_outputs), probabilities or values.
  void predict(const Samples& samples, float* out);

 private:
  std::unique_ptr<State> state_;
};

// Fastest first. In bf16 all of them compute, but only avx512bf16 is fast: the others are for tests.
std::vector<std::string> available_variants(Precision precision = kFp32);
bool has_bf16();  // whether avx512bf16 was built and this machine runs it
// Best rate of fused multiply-adds over `seconds` on n_threads threads at once, FLOP/s.
double fma_peak(int n_threads, double seconds, const std::string& variant);

}  // namespace gesda
