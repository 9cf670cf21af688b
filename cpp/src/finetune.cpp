// An epoch of fine-tuning: the whole stack under a softmax or linear head.
//
// A step's phases: the rows, dropout applied, and the masks of all other dropout; one phase forward for each layer and
// one for the head's product; the head's loss; one phase backward for each layer; then all updates at once, because
// they read only what is finished. In bf16 what a product reads is packed in a phase before it.
#include <algorithm>
#include <memory>

#include "cpp/src/state.hpp"

namespace gesda {

namespace {

class FinetuneRun {
 public:
  FinetuneRun(Network::State& state, const Samples& samples, const Targets& targets, const FinetunePlan& plan,
              int most_rows, int n_threads);

  void prepare_step(const u32* ids, int rows);
  const std::vector<JobList>& phases() const { return phases_; }
  int first_update_phase() const { return static_cast<int>(phases_.size()) - 1; }
  double finish_step();

 private:
  double dropout(std::size_t position) const {
    return state_.spec.head.dropout.empty() ? 0.0 : state_.spec.head.dropout[position];
  }
  void set_pairs(int most_rows);
  void build(int rows);

  Network::State& state_;
  const float rate_;
  const std::size_t n_layers_;
  const int n_threads_;
  int rows_ = 0;

  std::vector<Matrix> values_;  // the input, then each layer's encoding, after dropout
  std::vector<Matrix> deltas_;  // of each layer's logits
  Matrix logits_;
  std::vector<PackedMatrix> packed_values_, packed_deltas_;  // the head's too; empty in fp32
  std::vector<BitStorage> dropped_;                          // of each layer's encoding
  std::vector<double> losses_;

  GatherTask gather_{};
  CorruptTask input_dropout_{};
  std::vector<CorruptTask> dropout_;
  std::vector<EncodeTask> forward_;
  std::vector<PackTask> pack_values_, pack_deltas_;
  HeadTask head_{};
  std::vector<BackpropTask> backward_;
  UpdateRule rule_{};
  std::vector<UpdateTask> update_weights_;
  std::vector<BiasTask> update_biases_;
  std::vector<JobList> phases_;
};

FinetuneRun::FinetuneRun(Network::State& state, const Samples& samples, const Targets& targets,
                         const FinetunePlan& plan, int most_rows, int n_threads)
    : state_(state), rate_(plan.learning_rate), n_layers_(state.layers.size()), n_threads_(n_threads) {
  const int width = state.width();
  const NetworkSpec& spec = state.spec;
  const int n_inputs = spec.layers[0].n_visible;
  values_.push_back(minibatch_matrix(most_rows, n_inputs, width));
  gather_ = {data_rows(samples), nullptr, 0, n_inputs, values_[0].panels(), nullptr};
  input_dropout_ = dropout_task(spec, dropout(0), 0, n_inputs, plan.epoch);
  input_dropout_.in = input_dropout_.out = values_[0].panels();
  if (dropout(0) > 0.0) gather_.corrupt = &input_dropout_;

  const auto add_parameter = [&](Parameter& w, Parameter& b, std::size_t input, const Matrix& delta) {
    for (Parameter* p : {&w, &b}) prepare_slots(p->finetune_slots, p->values, spec.head.optimizer.kind, width);
    UpdateTask weights = weight_update(w, w.finetune_slots);
    weights.a1 = values_[input].panels();
    weights.b1 = delta.panels();
    weights.l2 = spec.head.l2;
    update_weights_.push_back(weights);
    BiasTask biases = bias_update(b, b.finetune_slots);
    biases.deltas = delta.panels();
    update_biases_.push_back(biases);
  };
  for (std::size_t k = 0; k < n_layers_; ++k) {
    const LayerSpec& layer = spec.layers[k];
    values_.push_back(minibatch_matrix(most_rows, layer.n_hidden, width));
    deltas_.push_back(minibatch_matrix(most_rows, layer.n_hidden, width));
    const double rate = dropout(k + 1);
    dropped_.push_back(rate > 0.0 ? BitStorage(most_rows, layer.n_hidden) : BitStorage());
    dropout_.push_back(dropout_task(spec, rate, static_cast<int>(k) + 1, layer.n_hidden, plan.epoch));
    dropout_[k].corrupted = dropped_[k].view();
    const float scale = dropout_[k].scale;
    forward_.push_back({values_[k].panels(),
                        layer.n_visible,
                        layer.n_hidden,
                        state.encoder(k),
                        state.layers[k].b.vector(),
                        layer.activation,
                        values_[k + 1].panels(),
                        {},
                        dropped_[k].view(),
                        scale});
    add_parameter(state.layers[k].w, state.layers[k].b, k, deltas_[k]);
  }
  const int n_top = spec.layers.back().n_hidden, n_outputs = spec.head.n_outputs;
  logits_ = minibatch_matrix(most_rows, n_outputs, width);
  const Weights head_weights{state.head_w.values.panels(), n_top, false};
  forward_.push_back({values_[n_layers_].panels(),
                      n_top,
                      n_outputs,
                      head_weights,
                      state.head_b.vector(),
                      kLinear,
                      logits_.panels(),
                      {},
                      {},
                      1.0f});
  add_parameter(state.head_w, state.head_b, n_layers_, logits_);
  losses_.assign(static_cast<std::size_t>(most_rows), 0.0);
  head_ = {spec.head.kind,  logits_.panels(), n_outputs,       nullptr,
           targets.classes, targets.values,   targets.weights, losses_.data()};

  for (std::size_t k = 0; k < n_layers_; ++k) {
    const bool top = k + 1 == n_layers_;
    const int above = top ? n_outputs : spec.layers[k + 1].n_hidden;
    Weights weights = top ? head_weights : state.encoder(k + 1);
    weights.transposed = true;
    backward_.push_back({top ? logits_.panels() : deltas_[k + 1].panels(), above, spec.layers[k].n_hidden, weights,
                         spec.layers[k].activation, values_[k + 1].panels(), deltas_[k].panels(), dropped_[k].view(),
                         dropout_[k].scale, nullptr, nullptr});
  }
  if (state.is_bf16()) set_pairs(most_rows);
}

// bf16: copies of what products read, by columns for the way up and down, by rows for the gradients.
void FinetuneRun::set_pairs(int most_rows) {
  for (std::size_t k = 0; k <= n_layers_; ++k) {
    const Matrix& delta = k == n_layers_ ? logits_ : deltas_[k];
    packed_values_.push_back(state_.packed(most_rows, values_[k].columns(), true, true));
    packed_deltas_.push_back(state_.packed(most_rows, delta.columns(), k > 0, true));
    pack_values_.push_back(pack_task(values_[k].panels(), values_[k].columns(), packed_values_[k]));
    pack_deltas_.push_back(pack_task(delta.panels(), delta.columns(), packed_deltas_[k]));
    forward_[k].pairs = packed_values_[k].by_columns();
    if (k > 0) backward_[k - 1].pairs = packed_deltas_[k].by_columns();
    update_weights_[k].pairs = {packed_values_[k].by_rows(), packed_deltas_[k].by_rows(), {}, {}};
  }
}

void FinetuneRun::build(int rows) {
  const Kernels& kernels = *state_.kernels;
  rows_ = rows;
  phases_.clear();
  const auto next_phase = [this]() -> JobList& {
    phases_.emplace_back();
    return phases_.back();
  };
  const auto pack = [&](std::vector<PackTask>& tasks, std::size_t k) {
    if (tasks.empty()) return;
    tasks[k].rows = rows;
    next_phase().pack(kernels, tasks[k], 0);
  };
  JobList& start = next_phase();
  input_dropout_.rows = rows;
  start.gather(kernels, gather_, rows, 0);
  for (std::size_t k = 0; k < n_layers_; ++k) {
    if (dropout_[k].corrupted.words == nullptr) continue;
    dropout_[k].rows = rows;
    start.corrupt(kernels, dropout_[k], 0);
  }
  for (std::size_t k = 0; k <= n_layers_; ++k) {
    pack(pack_values_, k);
    next_phase().encode(kernels, forward_[k], rows, 0);
  }
  next_phase().head(kernels, head_, rows, 0);
  for (std::size_t k = n_layers_; k-- > 0;) {
    pack(pack_deltas_, k + 1);
    next_phase().backprop(kernels, backward_[k], rows, 0);
  }
  pack(pack_deltas_, 0);
  JobList& updates = next_phase();
  for (UpdateTask& task : update_weights_) {
    task.rows = rows;
    task.inverse_rows = 1.0f / static_cast<float>(rows);
    task.rule = &rule_;
    updates.update(kernels, task, 0);
  }
  for (BiasTask& task : update_biases_) {
    task.rows = rows;
    task.inverse_rows = 1.0f / static_cast<float>(rows);
    task.rule = &rule_;
    updates.update_bias(kernels, task, 0);
  }
  for (JobList& phase : phases_) phase.deal(n_threads_);
}

void FinetuneRun::prepare_step(const u32* ids, int rows) {
  if (rows != rows_) build(rows);
  gather_.ids = input_dropout_.ids = head_.ids = ids;
  for (CorruptTask& task : dropout_) task.ids = ids;
  rule_ = update_rule(state_.spec.head.optimizer, rate_, state_.finetune_steps + 1);
}

double FinetuneRun::finish_step() {
  ++state_.finetune_steps;
  double loss = 0.0;
  for (int row = 0; row < rows_; ++row) loss += losses_[static_cast<std::size_t>(row)];
  return loss;
}

}  // namespace

EpochStats Network::finetune_epoch(const Samples& samples, const Targets& targets, const FinetunePlan& plan,
                                   const Poll& poll) {
  const std::size_t batch = static_cast<std::size_t>(plan.batch_size);
  JobRunner runner(*state_->kernels, state_->n_threads, 1, &poll);
  FinetuneRun run(*state_, samples, targets, plan, static_cast<int>(std::min(batch, plan.n_visits)), runner.size());
  double loss = 0.0;
  std::size_t visited = 0;
  bool completed = true;
  while (completed && visited < plan.n_visits) {
    const double fraction = static_cast<double>(visited) / static_cast<double>(plan.n_visits);
    const std::size_t rows = std::min(batch, plan.n_visits - visited);
    run.prepare_step(plan.order + visited, static_cast<int>(rows));
    completed = !runner.asked_to_stop(fraction) && runner.run(run.phases(), run.first_update_phase(), fraction);
    if (!completed) break;
    loss += run.finish_step();
    visited += rows;
  }
  return {{visited > 0 ? loss / static_cast<double>(visited) : 0.0}, runner.seconds(), completed};
}

}  // namespace gesda
