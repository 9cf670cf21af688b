// Epochs of random networks against plain nested loops in double precision (reference.hpp), and what must not change
// their bits: threads, variants, how samples are stored, a pause.
#include <stdexcept>

#include "cpp/tests/problem.hpp"

namespace {

using namespace gesda;
using namespace gesda_test;

void check_arrays(const Problem& problem, const Network& network, const Reference& reference, double tolerance) {
  for (const auto& [name, values] : problem.state(network)) {
    const Table& truth = reference.arrays.at(name);
    for (std::size_t i = 0; i < values.size(); ++i)
      CHECK_CLOSE(values[i], truth.values[i], tolerance * (1.0 + std::fabs(truth.values[i])));
  }
}

// A run may magnify what is rounding (a rate too high for linear units, say) until no comparison means anything: then
// the same run from parameters that single precision can hardly tell apart ends elsewhere.
constexpr double kJitter = 1e-7;

bool magnifies_rounding(const Reference& run, const Reference& shaken, double tolerance) {
  for (const auto& [name, table] : run.arrays)
    for (std::size_t i = 0; i < table.values.size(); ++i) {
      const double value = table.values[i], distance = std::fabs(shaken.arrays.at(name).values[i] - value);
      if (!(distance < 0.1 * tolerance * (1.0 + std::fabs(value)))) return true;
    }
  return false;
}

// Calls step(ids, rows) for each minibatch of an epoch.
template <class Plan, class Step>
void for_each_minibatch(const Plan& plan, const Step& step) {
  for (std::size_t at = 0; at < plan.n_visits; at += size(plan.batch_size))
    step(plan.order + at, static_cast<int>(std::min(size(plan.batch_size), plan.n_visits - at)));
}

}  // namespace

TEST(network_pretraining_is_that_of_plain_nested_loops) {
  std::mt19937_64 rng = gesda_test::rng();
  int n_compared = 0;
  for (int trial = 0; trial < 30; ++trial) {
    const int n_layers = draw_int(rng, 1, 4);
    Problem problem(rng, n_layers, 40, draw_int(rng, 2, 60), draw_int(rng, 1, 25));
    Reference reference = problem.reference(), shaken = problem.reference(kJitter);
    std::vector<std::unique_ptr<Network>> networks;
    for (const std::string& variant : available_variants())
      networks.push_back(problem.network(variant, draw_int(rng, 1, 3)));
    for (int epoch = 0; epoch < 2; ++epoch) {
      PretrainPlan& plan = problem.pretrain;
      plan.epoch = static_cast<std::uint32_t>(rng());
      plan.noisy_handoff = draw_bool(rng);
      for (int k = 0; k < n_layers; ++k) plan.training[size(k)] = draw_int(rng, 0, 3) != 0;
      plan.training[size(draw_int(rng, 0, n_layers - 1))] = true;
      std::vector<double> losses(size(n_layers), 0.0);
      const Table data = problem.table();
      for_each_minibatch(plan, [&](const u32* ids, int rows) {
        const std::vector<double> step = reference.pretrain_step(data, plan, ids, rows);
        for (std::size_t k = 0; k < losses.size(); ++k) losses[k] += step[k] / static_cast<double>(plan.n_visits);
        shaken.pretrain_step(data, plan, ids, rows);
      });
      if (reference.is_doubtful || magnifies_rounding(reference, shaken, 5e-5)) break;
      ++n_compared;
      for (const auto& network : networks) {
        const EpochStats stats = network->pretrain_epoch(problem.samples(), plan, kNeverStop);
        CHECK(stats.completed);
        CHECK(network->pretrain_steps() == reference.pretrain_steps);
        for (std::size_t k = 0; k < losses.size(); ++k) {
          CHECK(plan.training[k] != std::isnan(stats.loss[k]));
          if (plan.training[k]) CHECK_CLOSE(stats.loss[k], losses[k], 2e-5 * (1.0 + losses[k]));
        }
        check_arrays(problem, *network, reference, 5e-5);
      }
    }
  }
  CHECK(n_compared >= 15);
}

TEST(network_upper_layers_pretrain_on_encodings_handed_in) {
  std::mt19937_64 rng = gesda_test::rng();
  Problem problem(rng, 3, 30, 40, 7);
  for (LayerSpec& layer : problem.spec.layers) layer.activation = kSigmoid;
  problem.pretrain.training = {false, true, true};
  problem.pretrain.noisy_handoff = false;
  const std::string variant = available_variants()[0];
  const auto from_data = problem.network(variant, 2), from_codes = problem.network(variant, 2);
  std::vector<float> codes(size(problem.data.rows) * size(problem.spec.layers[0].n_hidden));
  from_codes->encode(problem.samples(), 0, 1, codes.data());
  const EpochStats a = from_data->pretrain_epoch(problem.samples(), problem.pretrain, kNeverStop);
  PretrainPlan plan = problem.pretrain;
  plan.first_layer = 1;
  const std::size_t width = size(problem.spec.layers[0].n_hidden);
  const EpochStats b =
      from_codes->pretrain_epoch({size(problem.data.rows), codes.data(), width, nullptr, nullptr}, plan, kNeverStop);
  CHECK(same_numbers(a.loss, b.loss));
  CHECK(same_states(problem.state(*from_data), problem.state(*from_codes)));
}

TEST(network_finetuning_is_that_of_plain_nested_loops) {
  std::mt19937_64 rng = gesda_test::rng();
  int n_compared = 0;
  for (int trial = 0; trial < 30; ++trial) {
    const Problem problem(rng, draw_int(rng, 1, 4), 40, draw_int(rng, 2, 60), draw_int(rng, 1, 25));
    Reference reference = problem.reference(), shaken = problem.reference(kJitter);
    const Table data = problem.table();
    double loss = 0.0;
    for_each_minibatch(problem.finetune, [&](const u32* ids, int rows) {
      loss += reference.finetune_step(data, problem.targets(), problem.finetune, ids, rows) / data.rows;
      shaken.finetune_step(data, problem.targets(), problem.finetune, ids, rows);
    });
    const Table outputs = reference.predict(data);
    if (reference.is_doubtful || magnifies_rounding(reference, shaken, 5e-5)) continue;
    ++n_compared;
    for (const std::string& variant : available_variants()) {
      const auto network = problem.network(variant, draw_int(rng, 1, 3));
      const EpochStats stats =
          network->finetune_epoch(problem.samples(), problem.targets(), problem.finetune, kNeverStop);
      CHECK(stats.completed && network->finetune_steps() == reference.finetune_steps);
      CHECK_CLOSE(stats.loss[0], loss, 2e-5 * (1.0 + loss));
      check_arrays(problem, *network, reference, 5e-5);
      std::vector<float> predicted(outputs.values.size());
      network->predict(problem.samples(), predicted.data());
      for (std::size_t i = 0; i < predicted.size(); ++i) CHECK_CLOSE(predicted[i], outputs.values[i], 1e-4);
    }
  }
  CHECK(n_compared >= 10);
}

TEST(network_encodes_and_decodes_any_stretch_of_layers) {
  std::mt19937_64 rng = gesda_test::rng();
  const Problem problem(rng, 3, 40, 300, 20);  // more rows than one chunk
  Reference reference = problem.reference();
  for (const std::string& variant : available_variants()) {
    const auto network = problem.network(variant, 2);
    const Table first = reference.encode(problem.table(), 0), second = reference.encode(first, 1);
    const Table back = reference.decode(reference.decode(second, 1), 0);
    std::vector<float> codes(second.values.size()), restored(back.values.size());
    network->encode(problem.samples(), 0, 2, codes.data());
    for (std::size_t i = 0; i < codes.size(); ++i) CHECK_CLOSE(codes[i], second.values[i], 1e-5);
    network->decode({size(second.rows), codes.data(), size(second.columns), nullptr, nullptr}, 2, restored.data());
    for (std::size_t i = 0; i < restored.size(); ++i) CHECK_CLOSE(restored[i], back.values[i], 2e-5);
    network->encode({0, nullptr, size(problem.data.columns), nullptr, nullptr}, 0, 2, nullptr);  // no rows, no harm
  }
}

TEST(network_gives_the_same_bits_for_any_number_of_threads) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < 4; ++trial) {
    const Problem problem(rng, draw_int(rng, 1, 4), 100, 120, draw_int(rng, 20, 70));
    for (const std::string& variant : available_variants()) {
      const auto alone = problem.network(variant, 1);
      const std::vector<double> losses = problem.train(*alone);
      const auto state = problem.state(*alone);
      for (const int n_threads : {2, 3, 8}) {
        const auto network = problem.network(variant, n_threads);
        CHECK(same_numbers(problem.train(*network), losses));
        CHECK(same_states(problem.state(*network), state));
      }
    }
  }
}

TEST(network_fused_variants_train_alike) {
  std::mt19937_64 rng = gesda_test::rng();
  const Problem problem(rng, 3, 100, 100, 30);
  std::map<std::string, std::vector<float>> first;
  for (const Kernels* kernels : runnable_kernels()) {
    if (!is_fused(*kernels)) continue;
    const auto network = problem.network(kernels->name, 2);
    problem.train(*network);
    if (first.empty()) first = problem.state(*network);
    CHECK(same_states(problem.state(*network), first));
  }
}

TEST(network_sparse_samples_give_the_bits_of_dense_ones) {
  std::mt19937_64 rng = gesda_test::rng();
  Problem problem(rng, 2, 60, 50, 9);
  std::vector<float> values;
  std::vector<std::int32_t> indices;
  std::vector<std::int64_t> pointers = {0};
  for (int r = 0; r < problem.data.rows; ++r) {
    for (int c = 0; c < problem.data.columns; ++c) {
      if (draw_bool(rng)) problem.data(r, c) = 0.0f;
      if (problem.data(r, c) == 0.0f) continue;
      values.push_back(problem.data(r, c));
      indices.push_back(c);
    }
    pointers.push_back(static_cast<std::int64_t>(values.size()));
  }
  indices.push_back(0);  // never empty: null would mean dense
  const Samples sparse{size(problem.data.rows), values.data(), 0, pointers.data(), indices.data()};
  const auto a = problem.network(available_variants()[0], 2), b = problem.network(available_variants()[0], 2);
  problem.train(*a);
  b->pretrain_epoch(sparse, problem.pretrain, kNeverStop);
  b->finetune_epoch(sparse, problem.targets(), problem.finetune, kNeverStop);
  CHECK(same_states(problem.state(*a), problem.state(*b)));
}

TEST(network_goes_on_from_its_arrays_with_the_same_bits) {
  std::mt19937_64 rng = gesda_test::rng();
  const Problem problem(rng, 2, 50, 40, 9);
  const auto whole = problem.network(available_variants()[0], 2);
  problem.train(*whole);
  const auto copy = problem.network(available_variants()[0], 1);
  for (const auto& [name, values] : problem.state(*whole)) copy->set_array(name, values.data());
  copy->pretrain_steps() = whole->pretrain_steps();
  copy->finetune_steps() = whole->finetune_steps();
  problem.train(*whole);
  problem.train(*copy);
  CHECK(same_states(problem.state(*whole), problem.state(*copy)));
}

TEST(network_losses_tell_of_weights_that_are_no_numbers) {
  std::mt19937_64 rng = gesda_test::rng();
  for (const Activation output : kActivations) {
    for (const Activation activation : kActivations) {
      Problem problem(rng, 1, 40, 30, 10);
      LayerSpec& layer = problem.spec.layers[0];
      layer.loss = kSquaredError;
      layer.activation = activation;
      layer.output = output;
      layer.sparsity = 0.0f;  // sigmoid's alone
      for (const std::string& variant : available_variants()) {
        const auto network = problem.network(variant, 1);
        std::vector<float> w = problem.start.at("layers.0.W");
        w[0] = std::nanf("");
        network->set_array("layers.0.W", w.data());
        CHECK(std::isnan(network->pretrain_epoch(problem.samples(), problem.pretrain, kNeverStop).loss[0]));
      }
    }
  }
}

TEST(network_refuses_unknown_names) {
  std::mt19937_64 rng = gesda_test::rng();
  const Problem problem(rng, 1, 5, 5, 2);
  const auto throws = [](auto call) {
    try {
      call();
    } catch (const std::out_of_range&) {
      return 1;
    } catch (const std::invalid_argument&) {
      return 2;
    }
    return 0;
  };
  float value = 0.0f;
  CHECK(throws([&] { problem.network("", 1)->get_array("layers.1.W", &value); }) == 1);
  CHECK(throws([&] { problem.network("", 1)->set_array("W", &value); }) == 1);
  CHECK(throws([&] { problem.network("sse9", 1); }) == 2);
  CHECK(problem.network("", 1)->variant() == available_variants()[0]);
}
