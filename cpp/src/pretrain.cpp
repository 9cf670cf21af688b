// An epoch of pretraining: the wavefront of CrossPre.
//
// Layer at offset o (counted from the plan's first layer) does its step s at tick s + o, so within a tick no layer
// waits for another, and the result is exactly that of plain nested loops: a layer encodes minibatch s for the next one
// with its weights at the start of step s, before it updates them. Each tick has these phases, for all layers together
// so that narrow layers fill the team, or for one layer after another from the top where each fills it alone, which
// needs the memory of one layer's minibatch and gives the same bits:
//
//   gather    the rows (first layer) and corrupt them                  x, x~
//   corrupt   the first layer's rows with swap noise, which needs all of them gathered
//   encode    h = s(x~ W + b); the next layer's input s(x W + b)
//   decode    d = dLoss/da over x; statistics for the penalties
//   backprop  e = (d W) * s'(h)
//   update    W, b, c (V)
//
// In bf16 the matrices that a phase reads in products are packed in a phase before it: x and x~, h, d, e.
#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "cpp/src/state.hpp"

namespace gesda {

namespace {

// Jobs a thread of a phase that fills the team: what is lost at its end, half a job for each thread, is little then.
constexpr int kJobsPerThread = 48;

enum Phase {
  kGather,
  kCorrupt,
  kPackInput,
  kEncode,
  kPackEncoding,
  kDecode,
  kPackDelta,
  kBackprop,
  kPackError,
  kUpdate,
  kPhases
};

// What a step needs only while it runs: of one layer, or of layers `first` to `last` that take turns.
struct Scratch {
  Matrix noisy, h, e;
  PackedMatrix packed_clean, packed_noisy, packed_h, packed_d, packed_e;  // empty in fp32

  Scratch(const Network::State& state, const PretrainPlan& plan, int rows, std::size_t first, std::size_t last) {
    int n_clean = 0, n_visible = 0, n_hidden = 0;
    for (std::size_t k = first; k <= last; ++k) {
      const LayerSpec& layer = state.spec.layers[k];
      n_clean = std::max(n_clean, layer.n_visible);
      if (!plan.training[k]) continue;
      n_visible = std::max(n_visible, layer.n_visible);
      n_hidden = std::max(n_hidden, layer.n_hidden);
    }
    noisy = minibatch_matrix(rows, n_visible, state.width());
    h = minibatch_matrix(rows, n_hidden, state.width());
    e = minibatch_matrix(rows, n_hidden, state.width());
    packed_clean = state.packed(rows, n_clean, true, false);
    packed_noisy = state.packed(rows, n_visible, true, true);
    packed_h = state.packed(rows, n_hidden, true, true);
    packed_d = state.packed(rows, n_visible, true, true);
    packed_e = state.packed(rows, n_hidden, false, true);
  }
};

// One layer's part. `n_clean`: buffers of its clean input; two, in turn, where the layer under it fills one while this
// one works on the other.
class LayerRun {
 public:
  LayerRun(Network::State& state, std::size_t layer, const Samples& samples, const PretrainPlan& plan, int most_rows,
           int n_clean, Scratch& scratch);

  // Where the layer under it puts the clean input of step `step`.
  Panels input(std::size_t step) const { return clean_[step % clean_.size()].panels(); }
  void feed(LayerRun* next, bool noisy) {
    next_ = next;
    noisy_handoff_ = noisy && trains_;
    if (noisy_handoff_) return;
    pack_clean_ = pack_task({}, spec_.n_visible, scratch_.packed_clean);
    handoff_.pairs = scratch_.packed_clean.by_columns();
  }
  // Prepares the records for a step and appends its jobs to the phases.
  void append_step(std::size_t step, const u32* ids, int rows, std::vector<JobList>& phases);
  // After the step: its loss.
  void finish_step();
  // Of a row; NaN where no step was finished.
  double mean_loss() const {
    return trained_rows_ == 0 ? std::numeric_limits<double>::quiet_NaN() : loss_ / static_cast<double>(trained_rows_);
  }

 private:
  void set_pairs();
  void append_training(std::size_t step, int rows, std::vector<JobList>& phases);
  void append_update(int rows, std::vector<JobList>& phases);

  Network::State& state_;
  const LayerSpec& spec_;
  const std::size_t layer_;
  const int id_;
  const bool first_, trains_;
  const float rate_;
  LayerRun* next_ = nullptr;
  bool noisy_handoff_ = false;

  std::vector<Matrix> clean_;
  Scratch& scratch_;
  BitStorage corrupted_;
  Buffer slope_, contraction_, decay_;
  std::vector<double> loss_slots_;
  std::size_t used_slots_ = 0, trained_rows_ = 0;
  double loss_ = 0.0;

  GatherTask gather_{};
  CorruptTask corrupt_{};
  PackTask pack_clean_{}, pack_noisy_{}, pack_h_{}, pack_d_{}, pack_e_{};
  EncodeTask encode_{}, handoff_{};
  DecodeTask decode_{};
  StatisticsTask statistics_{};
  BackpropTask backprop_{};
  UpdateRule rule_{};
  UpdateTask update_w_{}, update_v_{};
  BiasTask update_b_{}, update_c_{};
};

LayerRun::LayerRun(Network::State& state, std::size_t layer, const Samples& samples, const PretrainPlan& plan,
                   int most_rows, int n_clean, Scratch& scratch)
    : state_(state),
      spec_(state.spec.layers[layer]),
      layer_(layer),
      id_(static_cast<int>(layer) - plan.first_layer),
      first_(id_ == 0),
      trains_(plan.training[layer]),
      rate_(plan.learning_rates[layer]),
      scratch_(scratch) {
  const int width = state.width();
  for (int i = 0; i < n_clean; ++i) clean_.push_back(minibatch_matrix(most_rows, spec_.n_visible, width));
  gather_ = {data_rows(samples), nullptr, 0, spec_.n_visible, clean_[0].panels(), nullptr};
  const LayerParameters& p = state.layers[layer];
  handoff_ = {{},  spec_.n_visible, spec_.n_hidden, state.encoder(layer), p.b.vector(), spec_.activation, {}, {}, {},
              1.0f};
  if (!trains_) return;

  const Panels noisy = scratch.noisy.panels(), h = scratch.h.panels(), e = scratch.e.panels();
  const bool emphasis = spec_.emphasis_corrupted != 1.0f || spec_.emphasis_clean != 1.0f;
  if (emphasis) corrupted_ = BitStorage(most_rows, spec_.n_visible);
  corrupt_ = corrupt_task(state.spec, layer, plan.epoch);
  corrupt_.out = noisy;
  corrupt_.corrupted = corrupted_.view();
  if (first_ && corrupt_.kind != kSwap) gather_.corrupt = &corrupt_;
  encode_ = handoff_;
  encode_.in = noisy;
  encode_.out = h;
  loss_slots_.assign(most_blocks(*state.kernels, most_rows, panel_count(spec_.n_visible, width)), 0.0);
  decode_ = {h,
             spec_.n_hidden,
             spec_.n_visible,
             state.decoder(layer),
             p.c.vector(),
             spec_.output,
             spec_.loss,
             {},
             corrupted_.view(),
             spec_.emphasis_corrupted,
             spec_.emphasis_clean,
             loss_slots_.data(),
             most_rows};
  backprop_ = {{},   spec_.n_visible, spec_.n_hidden, state.decoder_transposed(layer), spec_.activation, h, e, {},
               1.0f, nullptr,         nullptr};
  if (spec_.sparsity != 0.0f || spec_.contractive != 0.0f) {
    const std::size_t size =
        static_cast<std::size_t>(panel_count(spec_.n_hidden, width)) * static_cast<std::size_t>(width);
    slope_ = Buffer(size);
    contraction_ = Buffer(size);
    decay_ = Buffer(size);
    statistics_ = {h,
                   0,
                   spec_.n_hidden,
                   p.w.values.panels(),
                   spec_.n_visible,
                   spec_.activation,
                   spec_.sparsity,
                   spec_.sparsity_target,
                   spec_.contractive,
                   slope_.data(),
                   contraction_.data(),
                   decay_.data()};
    if (spec_.sparsity != 0.0f) backprop_.slope = slope_.data();
    if (spec_.contractive != 0.0f) backprop_.contraction = contraction_.data();
  }

  LayerParameters& mine = state.layers[layer];
  const Optimizer kind = state.spec.optimizer.kind;
  for (Parameter* parameter : {&mine.w, &mine.b, &mine.c, &mine.v})
    if (!parameter->values.empty()) prepare_slots(parameter->pretrain_slots, parameter->values, kind, width);
  update_w_ = weight_update(mine.w, mine.w.pretrain_slots);
  update_b_ = bias_update(mine.b, mine.b.pretrain_slots);
  update_c_ = bias_update(mine.c, mine.c.pretrain_slots);
  update_w_.a1 = noisy;
  update_w_.b1 = e;
  update_w_.l2 = spec_.l2;
  if (spec_.contractive != 0.0f) update_w_.decay = decay_.data();
  update_b_.deltas = e;
  if (spec_.tied) {
    update_w_.b2 = h;
  } else {
    update_v_ = weight_update(mine.v, mine.v.pretrain_slots);
    update_v_.a1 = h;
    update_v_.l2 = spec_.l2;
  }
  if (state.is_bf16()) set_pairs();
}

// bf16: copies of what products read, by columns for the first three products, by rows for the gradients.
void LayerRun::set_pairs() {
  const int n = spec_.n_visible, m = spec_.n_hidden;
  pack_noisy_ = pack_task(scratch_.noisy.panels(), n, scratch_.packed_noisy);
  pack_h_ = pack_task(scratch_.h.panels(), m, scratch_.packed_h);
  pack_d_ = pack_task({}, n, scratch_.packed_d);
  pack_e_ = pack_task(scratch_.e.panels(), m, scratch_.packed_e);
  encode_.pairs = scratch_.packed_noisy.by_columns();
  decode_.pairs = scratch_.packed_h.by_columns();
  backprop_.pairs = scratch_.packed_d.by_columns();
  update_w_.pairs = {scratch_.packed_noisy.by_rows(), scratch_.packed_e.by_rows(), {}, {}};
  if (spec_.tied) {
    update_w_.pairs.a2 = scratch_.packed_d.by_rows();
    update_w_.pairs.b2 = scratch_.packed_h.by_rows();
  } else {
    update_v_.pairs = {scratch_.packed_h.by_rows(), scratch_.packed_d.by_rows(), {}, {}};
  }
}

void LayerRun::append_step(std::size_t step, const u32* ids, int rows, std::vector<JobList>& phases) {
  const Kernels& kernels = *state_.kernels;
  const Panels x = input(step);
  corrupt_.ids = ids;
  corrupt_.rows = rows;
  corrupt_.in = x;
  if (first_) {
    gather_.ids = ids;
    phases[kGather].gather(kernels, gather_, rows, id_);
  }
  if (trains_ && gather_.corrupt == nullptr) phases[first_ ? kCorrupt : kGather].corrupt(kernels, corrupt_, id_);
  if (next_ != nullptr && !noisy_handoff_) {
    handoff_.in = x;
    handoff_.out = next_->input(step);
    pack_clean_.in = handoff_.in;
    pack_clean_.rows = rows;
    phases[kPackInput].pack(kernels, pack_clean_, id_);
    phases[kEncode].encode(kernels, handoff_, rows, id_);
  }
  if (trains_) append_training(step, rows, phases);
}

void LayerRun::append_training(std::size_t step, int rows, std::vector<JobList>& phases) {
  const Kernels& kernels = *state_.kernels;
  const Panels x = input(step);
  for (PackTask* task : {&pack_noisy_, &pack_h_, &pack_d_, &pack_e_}) task->rows = rows;
  pack_d_.in = x;  // d by then
  phases[kPackInput].pack(kernels, pack_noisy_, id_);
  phases[kPackEncoding].pack(kernels, pack_h_, id_);
  phases[kPackDelta].pack(kernels, pack_d_, id_);
  phases[kPackError].pack(kernels, pack_e_, id_);

  encode_.copy = noisy_handoff_ && next_ != nullptr ? next_->input(step) : Panels{};
  phases[kEncode].encode(kernels, encode_, rows, id_);

  decode_.clean = x;
  const int panels = panel_count(spec_.n_visible, state_.width());
  decode_.rows_per_block = rows_per_job(kernels, rows, panels);
  used_slots_ = static_cast<std::size_t>(panels) * static_cast<std::size_t>(ceil_div(rows, decode_.rows_per_block));
  phases[kDecode].decode(kernels, decode_, rows, id_);
  if (!slope_.empty()) {
    statistics_.rows = rows;
    phases[kDecode].statistics(kernels, statistics_, id_);
  }
  backprop_.in = x;  // d by now
  phases[kBackprop].backprop(kernels, backprop_, rows, id_);
  append_update(rows, phases);
}

void LayerRun::append_update(int rows, std::vector<JobList>& phases) {
  const Kernels& kernels = *state_.kernels;
  const Panels d = backprop_.in;
  rule_ = update_rule(state_.spec.optimizer, rate_, state_.pretrain_steps[layer_] + 1);
  for (UpdateTask* task : {&update_w_, &update_v_}) {
    task->rows = rows;
    task->rule = &rule_;
    task->inverse_rows = 1.0f / static_cast<float>(rows);
  }
  for (BiasTask* task : {&update_b_, &update_c_}) {
    task->rows = rows;
    task->rule = &rule_;
    task->inverse_rows = 1.0f / static_cast<float>(rows);
  }
  update_c_.deltas = d;
  if (spec_.tied) {
    update_w_.a2 = d;
  } else {
    update_v_.b1 = d;
    phases[kUpdate].update(kernels, update_v_, id_);
  }
  phases[kUpdate].update(kernels, update_w_, id_);
  phases[kUpdate].update_bias(kernels, update_b_, id_);
  phases[kUpdate].update_bias(kernels, update_c_, id_);
}

void LayerRun::finish_step() {
  if (!trains_) return;
  trained_rows_ += static_cast<std::size_t>(corrupt_.rows);
  for (std::size_t i = 0; i < used_slots_; ++i) loss_ += loss_slots_[i];
  ++state_.pretrain_steps[layer_];
}

// Whether each of these layers, with minibatches of `rows`, is work enough for the team.
bool each_fills_the_team(const Network::State& state, std::size_t first, std::size_t last, int rows) {
  const auto jobs = [&](int columns) {
    const int panels = panel_count(columns, state.width());
    return panels * ceil_div(rows, rows_per_job(*state.kernels, rows, panels));
  };
  const int wanted = state.n_threads == 1 ? 1 : kJobsPerThread * state.n_threads;
  for (std::size_t k = first; k <= last; ++k)
    if (std::min(jobs(state.spec.layers[k].n_visible), jobs(state.spec.layers[k].n_hidden)) < wanted) return false;
  return true;
}

}  // namespace

EpochStats Network::pretrain_epoch(const Samples& samples, const PretrainPlan& plan, const Poll& poll) {
  State& state = *state_;
  const std::size_t first = static_cast<std::size_t>(plan.first_layer);
  std::size_t last = first;  // the highest layer that trains
  for (std::size_t k = first; k < plan.training.size(); ++k)
    if (plan.training[k]) last = k;
  const std::size_t n_layers = last - first + 1;
  const std::size_t batch = static_cast<std::size_t>(plan.batch_size);
  std::size_t n_steps = (plan.n_visits + batch - 1) / batch;
  const int most_rows = static_cast<int>(std::min(batch, plan.n_visits));

  const bool together = !each_fills_the_team(state, first, last, most_rows);
  std::vector<std::unique_ptr<Scratch>> scratch;
  for (std::size_t k = first; k <= (together ? last : first); ++k)
    scratch.emplace_back(new Scratch(state, plan, most_rows, k, together ? k : last));
  std::vector<std::unique_ptr<LayerRun>> runs;
  for (std::size_t k = first; k <= last; ++k)
    runs.emplace_back(new LayerRun(state, k, samples, plan, most_rows, together && k > first ? 2 : 1,
                                   *scratch[together ? k - first : 0]));
  for (std::size_t o = 0; o + 1 < n_layers; ++o) runs[o]->feed(runs[o + 1].get(), plan.noisy_handoff);

  JobRunner runner(*state.kernels, state.n_threads, n_layers, &poll);
  std::vector<JobList> phases(kPhases);
  bool completed = true;
  for (std::size_t tick = 0; tick + 1 < n_steps + n_layers; ++tick) {
    const double fraction = static_cast<double>(tick) / static_cast<double>(n_steps + n_layers - 1);
    if (completed && tick < n_steps && runner.asked_to_stop(fraction)) {
      n_steps = tick;  // no new minibatch; those on their way finish, so all layers have seen the same ones
      completed = false;
      if (tick == 0) break;
    }
    // The layers with a minibatch in this tick are at offsets `lowest` to `end - 1`.
    const std::size_t lowest = tick < n_steps ? 0 : tick - n_steps + 1;
    bool stopped = false;
    for (std::size_t end = std::min(tick + 1, n_layers), begin; end > lowest && !stopped; end = begin) {
      begin = together ? lowest : end - 1;
      for (JobList& phase : phases) phase.clear();
      for (std::size_t o = begin; o < end; ++o) {
        const std::size_t visit = (tick - o) * batch;
        const int rows = static_cast<int>(std::min(batch, plan.n_visits - visit));
        runs[o]->append_step(tick - o, plan.order + visit, rows, phases);
      }
      for (JobList& phase : phases) phase.deal(runner.size());
      stopped = !runner.run(phases, kUpdate, fraction);
      for (std::size_t o = begin; o < end && !stopped; ++o) runs[o]->finish_step();
    }
    if (stopped) {
      completed = false;
      break;
    }
  }

  EpochStats stats{std::vector<double>(state.layers.size(), std::numeric_limits<double>::quiet_NaN()),
                   std::vector<double>(state.layers.size(), 0.0), completed};
  const std::vector<double> seconds = runner.seconds();
  for (std::size_t o = 0; o < n_layers; ++o) {
    stats.seconds[first + o] = seconds[o];
    stats.loss[first + o] = runs[o]->mean_loss();
  }
  return stats;
}

}  // namespace gesda
