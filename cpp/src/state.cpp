#include "cpp/src/state.hpp"

#include <cmath>
#include <stdexcept>
#include <utility>

namespace gesda {

namespace {

Parameter parameter(int rows, int columns, int width) { return {Matrix(rows, columns, width), {}, {}}; }

}  // namespace

Network::State::State(NetworkSpec network, const Kernels& table, int threads, Precision of_products)
    : spec(std::move(network)),
      kernels(&table),
      n_threads(threads),
      precision(of_products),
      pretrain_steps(spec.layers.size(), 0) {
  for (const LayerSpec& layer : spec.layers) {
    layers.push_back({parameter(layer.n_visible, layer.n_hidden, width()), parameter(1, layer.n_hidden, width()),
                      parameter(1, layer.n_visible, width()),
                      layer.tied ? Parameter{} : parameter(layer.n_hidden, layer.n_visible, width())});
  }
  for (std::size_t k = 0; k < layers.size(); ++k) {
    const std::string prefix = "layers." + std::to_string(k) + ".";
    name_arrays(prefix + "W", layers[k].w, true, spec.has_head);
    name_arrays(prefix + "b", layers[k].b, true, spec.has_head);
    name_arrays(prefix + "c", layers[k].c, true, false);
    if (!spec.layers[k].tied) name_arrays(prefix + "V", layers[k].v, true, false);
  }
  if (spec.has_head) {
    head_w = parameter(spec.layers.back().n_hidden, spec.head.n_outputs, width());
    head_b = parameter(1, spec.head.n_outputs, width());
    name_arrays("head.W", head_w, false, true);
    name_arrays("head.b", head_b, false, true);
  }
}

void Network::State::name_arrays(const std::string& name, Parameter& p, bool pretrains, bool finetunes) {
  arrays[name] = {&p.values, &p.values};
  const Optimizer kinds[] = {spec.optimizer.kind, spec.head.optimizer.kind};
  const bool used[] = {pretrains, finetunes};
  const char* const phases[] = {"pretrain.", "finetune."};
  Matrix* const slots[] = {p.pretrain_slots, p.finetune_slots};
  for (int phase = 0; phase < 2; ++phase)
    for (int slot = 0; used[phase] && slot < slot_count(kinds[phase]); ++slot)
      arrays[phases[phase] + name + "." + slot_name(kinds[phase], slot)] = {&slots[phase][slot], &p.values};
}

Weights Network::State::encoder(std::size_t layer) const {
  return {layers[layer].w.values.panels(), spec.layers[layer].n_visible, false};
}
Weights Network::State::decoder(std::size_t layer) const {
  const LayerSpec& l = spec.layers[layer];
  return l.tied ? Weights{layers[layer].w.values.panels(), l.n_visible, true}
                : Weights{layers[layer].v.values.panels(), l.n_hidden, false};
}
Weights Network::State::decoder_transposed(std::size_t layer) const {
  Weights weights = decoder(layer);
  weights.transposed = !weights.transposed;
  return weights;
}

int slot_count(Optimizer kind) { return kind == kSgd ? 0 : kind == kMomentum ? 1 : 2; }

const char* slot_name(Optimizer kind, int slot) {
  if (kind == kMomentum) return "velocity";
  return slot == 0 ? "mean" : "variance";
}

void prepare_slots(Matrix (&slots)[2], const Matrix& values, Optimizer kind, int width) {
  for (int i = 0; i < slot_count(kind); ++i)
    if (slots[i].empty()) slots[i] = Matrix(values.rows(), values.columns(), width);
}

UpdateRule update_rule(const OptimizerSpec& optimizer, float rate, std::int64_t step) {
  UpdateRule rule{
      optimizer.kind,    rate, optimizer.momentum, optimizer.nesterov ? 1.0f : 0.0f, optimizer.beta1, optimizer.beta2,
      optimizer.epsilon, 1.0f};
  if (optimizer.kind == kAdam) {
    const double t = static_cast<double>(step);
    const auto correction = [t](float beta) { return 1.0 - std::pow(static_cast<double>(beta), t); };
    rule.rate = static_cast<float>(static_cast<double>(rate) / correction(optimizer.beta1));
    rule.inverse_variance = static_cast<float>(1.0 / correction(optimizer.beta2));
  }
  return rule;
}

DataRows data_rows(const Samples& samples) {
  return {samples.values, samples.row_stride, samples.row_pointers, samples.column_indices};
}

namespace {

CorruptTask keyed_task(const NetworkSpec& spec, std::uint32_t epoch, int columns) {
  CorruptTask task{};
  task.scale = 1.0f;
  task.key0 = static_cast<u32>(spec.seed);
  task.key1 = static_cast<u32>(spec.seed >> 32);
  task.epoch = epoch;
  task.columns = columns;
  return task;
}

}  // namespace

CorruptTask corrupt_task(const NetworkSpec& spec, std::size_t layer, std::uint32_t epoch) {
  const LayerSpec& l = spec.layers[layer];
  CorruptTask task = keyed_task(spec, epoch, l.n_visible);
  task.kind = l.noise;
  task.threshold = noise_threshold(l.noise, l.noise_level);
  task.level = static_cast<float>(l.noise_level);
  task.low = l.noise_low;
  task.high = l.noise_high;
  task.stream = stream_word(kCorruption, static_cast<int>(layer));
  task.partner_stream = stream_word(kPartner, static_cast<int>(layer));
  return task;
}

CorruptTask dropout_task(const NetworkSpec& spec, double rate, int layer, int columns, std::uint32_t epoch) {
  CorruptTask task = keyed_task(spec, epoch, columns);
  task.kind = kMasking;
  task.threshold = noise_threshold(kMasking, rate);
  task.scale = static_cast<float>(1.0 / (1.0 - rate));
  task.stream = stream_word(kDropout, layer);
  return task;
}

PackTask pack_task(Panels in, int columns, const PackedMatrix& out) {
  return {in, 0, columns, out.by_columns(), out.by_rows()};
}

UpdateTask weight_update(const Parameter& parameter, const Matrix (&slots)[2]) {
  UpdateTask task{};
  task.inputs = parameter.values.rows();
  task.outputs = parameter.values.columns();
  task.weights = parameter.values.panels();
  task.state0 = slots[0].panels();
  task.state1 = slots[1].panels();
  return task;
}

BiasTask bias_update(const Parameter& parameter, const Matrix (&slots)[2]) {
  BiasTask task{};
  task.columns = parameter.values.columns();
  task.bias = parameter.vector();
  task.state0 = slots[0].panels().data;
  task.state1 = slots[1].panels().data;
  return task;
}

}  // namespace gesda
