// Encoding, decoding and prediction: a chunk of rows at a time through the layers.
#include <algorithm>

#include "cpp/src/state.hpp"

namespace gesda {

namespace {

// Rows at a time: so many that the products are efficient, fewer where the widest matrix would have more values.
constexpr std::size_t kMostRows = 256, kFewestRows = 64, kMostValues = std::size_t{1} << 18;

// Runs stages, each a product that writes what the next one reads, over all rows in chunks.
class Pipeline {
 public:
  Pipeline(Network::State& state, const Samples& samples, int n_inputs)
      : state_(state), samples_(samples), chunk_(std::min(chunk_rows(state.spec), samples.n_rows)) {
    add_matrix(n_inputs);
    gather_ = {data_rows(samples), nullptr, 0, n_inputs, matrices_[0]->panels(), nullptr};
  }

  void add_encode(const Weights& weights, const float* bias, Activation activation, int inputs, int outputs) {
    const Panels in = matrices_.back()->panels();
    packed_.push_back(state_.packed(most_rows(), inputs, true, false));
    packs_.emplace_back(new PackTask(pack_task(in, inputs, packed_.back())));
    add_matrix(outputs);
    encodes_.emplace_back(
        new EncodeTask{in, inputs, outputs, weights, bias, activation, matrices_.back()->panels(), {}, {}, 1.0f});
    encodes_.back()->pairs = packed_.back().by_columns();
    width_ = outputs;
  }
  void set_head(Head kind) {
    head_ = {kind, matrices_.back()->panels(), width_, nullptr, nullptr, nullptr, nullptr, nullptr};
    has_head_ = true;
  }

  void run(float* out) {
    JobRunner runner(*state_.kernels, state_.n_threads, 1, nullptr);
    const std::size_t width = static_cast<std::size_t>(width_);
    scatter_ = {matrices_.back()->panels(), width_, out, width};
    std::vector<JobList> phases;
    int built = 0;
    for (std::size_t begin = 0; begin < samples_.n_rows; begin += chunk_) {
      const int rows = static_cast<int>(std::min(chunk_, samples_.n_rows - begin));
      if (rows != built) phases = build(rows);
      built = rows;
      gather_.first_row = begin;
      scatter_.out = out + begin * width;
      runner.run(phases, 0, 0.0);
    }
  }

 private:
  static std::size_t chunk_rows(const NetworkSpec& spec) {
    int widest = 1;
    for (const LayerSpec& layer : spec.layers) widest = std::max({widest, layer.n_visible, layer.n_hidden});
    return std::clamp(kMostValues / static_cast<std::size_t>(widest), kFewestRows, kMostRows);
  }
  void add_matrix(int columns) {
    matrices_.emplace_back(new Matrix(minibatch_matrix(most_rows(), columns, state_.width())));
  }
  int most_rows() const { return static_cast<int>(chunk_); }
  std::vector<JobList> build(int rows) {
    const Kernels& kernels = *state_.kernels;
    std::vector<JobList> phases(2 * encodes_.size() + 3);
    std::size_t phase = 0;
    phases[phase++].gather(kernels, gather_, rows, 0);
    for (std::size_t i = 0; i < encodes_.size(); ++i) {
      packs_[i]->rows = rows;
      phases[phase++].pack(kernels, *packs_[i], 0);
      phases[phase++].encode(kernels, *encodes_[i], rows, 0);
    }
    if (has_head_) phases[phase].head(kernels, head_, rows, 0);
    phases[++phase].scatter(kernels, scatter_, rows, 0);
    return phases;
  }

  Network::State& state_;
  const Samples& samples_;
  const std::size_t chunk_;
  int width_ = 0;
  bool has_head_ = false;
  std::vector<std::unique_ptr<Matrix>> matrices_;
  std::vector<PackedMatrix> packed_;  // bf16: what each product reads
  std::vector<std::unique_ptr<PackTask>> packs_;
  std::vector<std::unique_ptr<EncodeTask>> encodes_;
  GatherTask gather_{};
  HeadTask head_{};
  ScatterTask scatter_{};
};

void add_layer(Pipeline& pipeline, const Network::State& state, std::size_t k) {
  const LayerSpec& layer = state.spec.layers[k];
  pipeline.add_encode(state.encoder(k), state.layers[k].b.vector(), layer.activation, layer.n_visible, layer.n_hidden);
}

}  // namespace

void Network::encode(const Samples& samples, int first_layer, int n_layers, float* out) {
  State& state = *state_;
  Pipeline pipeline(state, samples, state.spec.layers[static_cast<std::size_t>(first_layer)].n_visible);
  for (int k = first_layer; k < n_layers; ++k) add_layer(pipeline, state, static_cast<std::size_t>(k));
  pipeline.run(out);
}

void Network::decode(const Samples& codes, int n_layers, float* out) {
  State& state = *state_;
  Pipeline pipeline(state, codes, state.spec.layers[static_cast<std::size_t>(n_layers) - 1].n_hidden);
  for (std::size_t k = static_cast<std::size_t>(n_layers); k-- > 0;) {
    const LayerSpec& layer = state.spec.layers[k];
    pipeline.add_encode(state.decoder(k), state.layers[k].c.vector(), layer.output, layer.n_hidden, layer.n_visible);
  }
  pipeline.run(out);
}

void Network::predict(const Samples& samples, float* out) {
  State& state = *state_;
  Pipeline pipeline(state, samples, state.spec.layers[0].n_visible);
  for (std::size_t k = 0; k < state.layers.size(); ++k) add_layer(pipeline, state, k);
  pipeline.add_encode({state.head_w.values.panels(), state.spec.layers.back().n_hidden, false}, state.head_b.vector(),
                      kLinear, state.spec.layers.back().n_hidden, state.spec.head.n_outputs);
  pipeline.set_head(state.spec.head.kind);
  pipeline.run(out);
}

}  // namespace gesda
