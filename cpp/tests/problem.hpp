// Random networks with data, initial parameters and plans, for the tests of the whole core.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cpp/tests/reference.hpp"
#include "gesda/network.hpp"
#include "harness.hpp"

namespace gesda_test {

using gesda::EpochStats;
using gesda::FinetunePlan;
using gesda::LayerSpec;
using gesda::Network;
using gesda::NetworkSpec;
using gesda::OptimizerSpec;
using gesda::Poll;
using gesda::PretrainPlan;
using gesda::Samples;
using gesda::Targets;

inline const Poll kNeverStop = [](double) { return false; };

// Its epsilon is large, so that adam does not magnify what is rounding.
inline OptimizerSpec draw_optimizer(std::mt19937_64& rng) {
  return {draw_of(rng, kOptimizers), 0.8f, draw_bool(rng), 0.9f, 0.99f, 0.05f};
}

inline NetworkSpec draw_spec(std::mt19937_64& rng, int n_layers, int most_units) {
  constexpr gesda::Noise kNoises[] = {gesda::kNone, gesda::kMasking, gesda::kGaussian, gesda::kSaltAndPepper,
                                      gesda::kSwap};
  NetworkSpec spec{{}, draw_optimizer(rng), true, {}, rng()};
  bool in_unit_range = true;
  int n_visible = draw_int(rng, 1, most_units);
  for (int k = 0; k < n_layers; ++k) {
    LayerSpec l{};
    l.n_visible = n_visible;
    l.n_hidden = n_visible = draw_int(rng, 1, most_units);
    l.activation = draw_of(rng, kActivations);
    l.loss = in_unit_range && draw_bool(rng) ? gesda::kCrossEntropy : gesda::kSquaredError;
    l.output = l.loss == gesda::kCrossEntropy ? gesda::kSigmoid : draw_of(rng, kActivations);
    l.tied = draw_bool(rng);
    l.noise = draw_of(rng, kNoises);
    l.noise_level = 0.3;
    l.noise_low = 0.0f, l.noise_high = 1.0f;
    l.emphasis_corrupted = l.emphasis_clean = 1.0f;
    if (l.noise != gesda::kNone && l.noise != gesda::kGaussian && draw_bool(rng))
      l.emphasis_corrupted = 1.5f, l.emphasis_clean = 0.5f;
    if (l.activation == gesda::kSigmoid && draw_bool(rng)) l.sparsity = 0.1f;
    l.sparsity_target = 0.3f;
    if (draw_int(rng, 0, 2) == 0) l.contractive = 0.01f;
    if (draw_bool(rng)) l.l2 = 0.01f;
    in_unit_range = l.activation == gesda::kSigmoid;
    spec.layers.push_back(l);
  }
  spec.head = {draw_bool(rng) ? gesda::kSoftmax : gesda::kLinearHead,
               draw_int(rng, 1, 20),
               draw_optimizer(rng),
               draw_bool(rng) ? 0.01f : 0.0f,
               {}};
  if (draw_bool(rng))
    for (int k = 0; k <= n_layers; ++k) spec.head.dropout.push_back(draw_int(rng, 0, 1) * 0.3);
  return spec;
}

// Samples with targets, and the plans of an epoch over them.
struct Problem {
  NetworkSpec spec;
  Rows data, target_values, weights;
  std::vector<std::int32_t> classes;
  std::vector<u32> order;
  std::map<std::string, std::vector<float>> start;  // initial parameters
  PretrainPlan pretrain;
  FinetunePlan finetune;
  bool weighs;

  Problem(std::mt19937_64& rng, int n_layers, int most_units, int n_samples, int batch_size)
      : spec(draw_spec(rng, n_layers, most_units)),
        data(rng, n_samples, spec.layers[0].n_visible, 0.0f, 1.0f),
        target_values(rng, n_samples, spec.head.n_outputs, -1.0f, 1.0f),
        weights(rng, 1, n_samples, 0.0f, 2.0f),
        classes(size(n_samples)),
        order(size(n_samples)),
        weighs(draw_bool(rng)) {
    for (std::int32_t& c : classes) c = draw_int(rng, 0, spec.head.n_outputs - 1);
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), rng);
    for (const auto& [name, table] : Reference(spec).arrays) {
      if (name[0] != 'l' && name[0] != 'h') continue;  // the optimisers' state starts at zero
      const float reach = 1.0f / std::sqrt(static_cast<float>(std::max(table.rows, table.columns)));
      start[name] = Rows(rng, table.rows, table.columns, -reach, reach).values;
    }
    pretrain = {1,
                order.data(),
                order.size(),
                batch_size,
                std::vector<bool>(size(n_layers), true),
                std::vector<float>(size(n_layers), 0.05f),
                0,
                false};
    finetune = {2, order.data(), order.size(), batch_size, 0.05f};
  }
  Problem(const Problem&) = delete;  // the plans point into it
  Problem& operator=(const Problem&) = delete;

  Samples samples() const { return {size(data.rows), data.values.data(), size(data.columns), nullptr, nullptr}; }
  Targets targets() const {
    return {classes.data(), target_values.values.data(), weighs ? weights.values.data() : nullptr};
  }
  std::unique_ptr<Network> network(const std::string& variant, int n_threads) const {
    auto made = std::make_unique<Network>(spec, variant, n_threads);
    for (const auto& [name, values] : start) made->set_array(name, values.data());
    return made;
  }
  // With a jitter: from parameters that are off by such a share of themselves, now up, now down.
  Reference reference(double jitter = 0.0) const {
    Reference made(spec);
    for (const auto& [name, values] : start) {
      std::vector<double>& begin = made.arrays[name].values;
      begin.assign(values.begin(), values.end());
      for (std::size_t i = 0; i < begin.size(); ++i) begin[i] *= 1.0 + (i * 7 % 3 == 0 ? jitter : -jitter);
    }
    return made;
  }
  Table table() const {
    Table out(data.rows, data.columns);
    out.values.assign(data.values.begin(), data.values.end());
    return out;
  }
  std::map<std::string, std::vector<float>> state(const Network& network) const {
    std::map<std::string, std::vector<float>> out;
    for (const auto& [name, table] : Reference(spec).arrays) {
      out[name].resize(table.values.size());
      network.get_array(name, out[name].data());
    }
    return out;
  }
  // A little of everything; the losses of both phases.
  std::vector<double> train(Network& network) const {
    std::vector<double> losses = network.pretrain_epoch(samples(), pretrain, kNeverStop).loss;
    losses.push_back(network.finetune_epoch(samples(), targets(), finetune, kNeverStop).loss[0]);
    return losses;
  }
};

// Bit by bit: what has diverged to NaN compares too.
inline bool same_states(const std::map<std::string, std::vector<float>>& a,
                        const std::map<std::string, std::vector<float>>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& one, const auto& other) {
    return one.first == other.first && same_bits(one.second, other.second);
  });
}

inline bool same_numbers(const std::vector<double>& a, const std::vector<double>& b) {  // NaN is NaN
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

}  // namespace gesda_test
