// The whole core: epochs of random networks against plain nested loops in double precision (reference.hpp); the same
// bits for any number of threads; stopping; use from several threads at once.
#include <chrono>
#include <limits>
#include <memory>
#include <stdexcept>
#include <thread>

#include "cpp/tests/reference.hpp"
#include "harness.hpp"

namespace {

using namespace gesda;
using namespace gesda_test;
using std::chrono::milliseconds;

const Poll kNeverStop = [](double) { return false; };

template <class T, std::size_t N>
T draw_of(std::mt19937_64& rng, const T (&all)[N]) {
  return all[size(draw_int(rng, 0, static_cast<int>(N) - 1))];
}

OptimizerSpec draw_optimizer(std::mt19937_64& rng) {  // a large epsilon, so that adam does not magnify what is rounding
  return {draw_of(rng, kOptimizers), 0.8f, draw_bool(rng), 0.9f, 0.99f, 0.05f};
}

NetworkSpec draw_spec(std::mt19937_64& rng, int n_layers, int most_units) {
  constexpr Noise kNoises[] = {kNone, kMasking, kGaussian, kSaltAndPepper, kSwap};
  NetworkSpec spec{{}, draw_optimizer(rng), true, {}, rng()};
  bool in_unit_range = true;
  int n_visible = draw_int(rng, 1, most_units);
  for (int k = 0; k < n_layers; ++k) {
    LayerSpec l{};
    l.n_visible = n_visible;
    l.n_hidden = n_visible = draw_int(rng, 1, most_units);
    l.activation = draw_of(rng, kActivations);
    l.loss = in_unit_range && draw_bool(rng) ? kCrossEntropy : kSquaredError;
    l.output = l.loss == kCrossEntropy ? kSigmoid : draw_of(rng, kActivations);
    l.tied = draw_bool(rng);
    l.noise = draw_of(rng, kNoises);
    l.noise_level = 0.3;
    l.noise_low = 0.0f, l.noise_high = 1.0f;
    l.emphasis_corrupted = l.emphasis_clean = 1.0f;
    if (l.noise != kNone && l.noise != kGaussian && draw_bool(rng))
      l.emphasis_corrupted = 1.5f, l.emphasis_clean = 0.5f;
    if (l.activation == kSigmoid && draw_bool(rng)) l.sparsity = 0.1f;
    l.sparsity_target = 0.3f;
    if (draw_int(rng, 0, 2) == 0) l.contractive = 0.01f;
    if (draw_bool(rng)) l.l2 = 0.01f;
    in_unit_range = l.activation == kSigmoid;
    spec.layers.push_back(l);
  }
  spec.head = {draw_bool(rng) ? kSoftmax : kLinearHead,
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
  Reference reference() const {
    Reference made(spec);
    for (const auto& [name, values] : start) made.arrays[name].values.assign(values.begin(), values.end());
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

bool same_numbers(const std::vector<double>& a, const std::vector<double>& b) {  // NaN is NaN
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

void check_arrays(const Problem& problem, const Network& network, const Reference& reference, double tolerance) {
  for (const auto& [name, values] : problem.state(network)) {
    const Table& truth = reference.arrays.at(name);
    for (std::size_t i = 0; i < values.size(); ++i)
      CHECK_CLOSE(values[i], truth.values[i], tolerance * (1.0 + std::fabs(truth.values[i])));
  }
}

// Calls step(ids, rows) for each minibatch of an epoch.
template <class Plan, class Step>
void for_each_minibatch(const Plan& plan, const Step& step) {
  for (std::size_t at = 0; at < plan.n_visits; at += size(plan.batch_size))
    step(plan.order + at, static_cast<int>(std::min(size(plan.batch_size), plan.n_visits - at)));
}

std::vector<std::string> variants() { return available_variants(); }

}  // namespace

TEST(network_pretraining_is_that_of_plain_nested_loops) {
  std::mt19937_64 rng = gesda_test::rng();
  int n_compared = 0;
  for (int trial = 0; trial < 30; ++trial) {
    const int n_layers = draw_int(rng, 1, 4);
    Problem problem(rng, n_layers, 40, draw_int(rng, 2, 60), draw_int(rng, 1, 25));
    Reference reference = problem.reference();
    std::vector<std::unique_ptr<Network>> networks;
    for (const std::string& variant : variants()) networks.push_back(problem.network(variant, draw_int(rng, 1, 3)));
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
      });
      if (reference.is_doubtful) break;
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
  const std::string variant = variants()[0];
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
  CHECK(problem.state(*from_data) == problem.state(*from_codes));
}

TEST(network_finetuning_is_that_of_plain_nested_loops) {
  std::mt19937_64 rng = gesda_test::rng();
  int n_compared = 0;
  for (int trial = 0; trial < 30; ++trial) {
    const Problem problem(rng, draw_int(rng, 1, 4), 40, draw_int(rng, 2, 60), draw_int(rng, 1, 25));
    Reference reference = problem.reference();
    const Table data = problem.table();
    double loss = 0.0;
    for_each_minibatch(problem.finetune, [&](const u32* ids, int rows) {
      loss += reference.finetune_step(data, problem.targets(), problem.finetune, ids, rows) / data.rows;
    });
    const Table outputs = reference.predict(data);
    if (reference.is_doubtful) continue;
    ++n_compared;
    for (const std::string& variant : variants()) {
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
  for (const std::string& variant : variants()) {
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
    for (const std::string& variant : variants()) {
      const auto alone = problem.network(variant, 1);
      const std::vector<double> losses = problem.train(*alone);
      const auto state = problem.state(*alone);
      for (const int n_threads : {2, 3, 8}) {
        const auto network = problem.network(variant, n_threads);
        CHECK(same_numbers(problem.train(*network), losses));
        CHECK(problem.state(*network) == state);
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
    CHECK(problem.state(*network) == first);
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
  const auto a = problem.network(variants()[0], 2), b = problem.network(variants()[0], 2);
  problem.train(*a);
  b->pretrain_epoch(sparse, problem.pretrain, kNeverStop);
  b->finetune_epoch(sparse, problem.targets(), problem.finetune, kNeverStop);
  CHECK(problem.state(*a) == problem.state(*b));
}

TEST(network_goes_on_from_its_arrays_with_the_same_bits) {
  std::mt19937_64 rng = gesda_test::rng();
  const Problem problem(rng, 2, 50, 40, 9);
  const auto whole = problem.network(variants()[0], 2);
  problem.train(*whole);
  const auto copy = problem.network(variants()[0], 1);
  for (const auto& [name, values] : problem.state(*whole)) copy->set_array(name, values.data());
  copy->pretrain_steps() = whole->pretrain_steps();
  copy->finetune_steps() = whole->finetune_steps();
  problem.train(*whole);
  problem.train(*copy);
  CHECK(problem.state(*whole) == problem.state(*copy));
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
  CHECK(problem.network("", 1)->variant() == variants()[0]);
}

// ---- stopping ----
namespace {

// A problem whose epoch lasts for minutes: its few samples are visited over and over.
struct LongProblem : Problem {
  LongProblem(std::mt19937_64& rng, int n_layers) : Problem(rng, n_layers, 30, 40, 10) {
    order.resize(4000000);
    for (std::size_t i = 40; i < order.size(); ++i) order[i] = order[i - 40];
    visit(order.size());
    spec.head.kind = kSoftmax;  // bounded: does not diverge in many steps
    for (LayerSpec& layer : spec.layers) layer.activation = layer.output = kSigmoid;
  }
  void visit(std::size_t n) {
    pretrain.order = finetune.order = order.data();
    pretrain.n_visits = finetune.n_visits = n;
  }
};

}  // namespace

TEST(network_pretraining_stops_with_all_layers_at_the_same_minibatch) {
  std::mt19937_64 rng = gesda_test::rng();
  for (const int n_threads : {1, 3}) {
    LongProblem problem(rng, 3);
    const auto network = problem.network("", n_threads);
    const std::thread::id caller = std::this_thread::get_id();
    double last = 0.0;
    const EpochStats stats = network->pretrain_epoch(problem.samples(), problem.pretrain, [&](double fraction) {
      CHECK(std::this_thread::get_id() == caller);
      CHECK(fraction >= last && fraction < 1.0);
      last = fraction;
      return true;
    });
    CHECK(!stats.completed);
    const std::vector<std::int64_t> steps = network->pretrain_steps();
    CHECK(steps[0] >= steps[1] && steps[1] >= steps[2] && steps[0] - steps[2] <= 2);
    if (steps[0] != steps[2]) continue;  // a stall of the machine made one tick long enough to be left at once
    problem.visit(10 * static_cast<std::size_t>(steps[0]));
    const auto planned = problem.network("", 2);
    const EpochStats same = planned->pretrain_epoch(problem.samples(), problem.pretrain, kNeverStop);
    CHECK(same.completed && same_numbers(stats.loss, same.loss));
    CHECK(problem.state(*network) == problem.state(*planned));
  }
}

TEST(network_leaves_a_long_tick_before_its_updates) {
  std::mt19937_64 rng = gesda_test::rng();
  for (const int n_threads : {1, 3}) {
    LongProblem problem(rng, 2);
    const auto network = problem.network("", n_threads);
    int n_asked = 0;
    const EpochStats stats = network->pretrain_epoch(problem.samples(), problem.pretrain, [&n_asked](double) {
      if (n_asked++ > 0) return true;
      std::this_thread::sleep_for(milliseconds(120));  // so the tick that follows counts as a long one
      return false;
    });
    CHECK(!stats.completed && n_asked == 2);
    const std::vector<std::int64_t> steps = network->pretrain_steps();
    CHECK(steps[1] == std::max<std::int64_t>(0, steps[0] - 1));  // the upper layer was one step behind, and is
    problem.visit(10 * static_cast<std::size_t>(steps[0]));
    const auto planned = problem.network("", 1);
    if (steps[0] > 0) planned->pretrain_epoch(problem.samples(), problem.pretrain, kNeverStop);
    const auto state = problem.state(*network), expected = problem.state(*planned);
    for (const char* name : {"layers.0.W", "layers.0.b", "layers.0.c"}) CHECK(state.at(name) == expected.at(name));
  }
}

TEST(network_finetuning_stops_between_minibatches) {
  std::mt19937_64 rng = gesda_test::rng();
  LongProblem problem(rng, 2);
  const auto network = problem.network("", 2);
  const auto start = std::chrono::steady_clock::now();
  const EpochStats stats =
      network->finetune_epoch(problem.samples(), problem.targets(), problem.finetune, [](double) { return true; });
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(5));
  CHECK(!stats.completed);
  problem.visit(10 * static_cast<std::size_t>(network->finetune_steps()));
  const auto planned = problem.network("", 1);
  if (network->finetune_steps() > 0)
    planned->finetune_epoch(problem.samples(), problem.targets(), problem.finetune, kNeverStop);
  CHECK(problem.state(*network) == problem.state(*planned));
}

// ---- several threads of the caller ----
TEST(network_predicts_for_several_threads_at_once) {
  std::mt19937_64 rng = gesda_test::rng();
  const Problem problem(rng, 2, 40, 300, 20);
  const auto network = problem.network("", 2);
  const std::size_t n_codes = 300 * size(problem.spec.layers[1].n_hidden),
                    n_outputs = 300 * size(problem.spec.head.n_outputs);
  std::vector<float> codes(n_codes), outputs(n_outputs);
  network->encode(problem.samples(), 0, 2, codes.data());
  network->predict(problem.samples(), outputs.data());
  std::vector<std::thread> callers;
  callers.reserve(4);
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int i = 0; i < 10; ++i) {
        std::vector<float> my_codes(n_codes), my_outputs(n_outputs);
        network->encode(problem.samples(), 0, 2, my_codes.data());
        network->predict(problem.samples(), my_outputs.data());
        CHECK(same_bits(my_codes, codes) && same_bits(my_outputs, outputs));
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

TEST(network_trains_beside_others) {
  std::mt19937_64 rng = gesda_test::rng();
  std::vector<std::unique_ptr<Problem>> problems;
  std::vector<std::thread> trainers;
  trainers.reserve(4);
  std::vector<std::map<std::string, std::vector<float>>> states(4);
  for (int i = 0; i < 4; ++i) problems.push_back(std::make_unique<Problem>(rng, i % 3 + 1, 40, 60, 13));
  for (std::size_t i = 0; i < 4; ++i) {
    trainers.emplace_back([&problems, &states, i] {
      const auto network = problems[i]->network("", static_cast<int>(i) + 1);
      for (int epoch = 0; epoch < 3; ++epoch) problems[i]->train(*network);
      states[i] = problems[i]->state(*network);
    });
  }
  for (std::thread& trainer : trainers) trainer.join();
  for (std::size_t i = 0; i < 4; ++i) {
    const auto alone = problems[i]->network("", 1);
    for (int epoch = 0; epoch < 3; ++epoch) problems[i]->train(*alone);
    CHECK(problems[i]->state(*alone) == states[i]);
  }
}

TEST(network_measures_the_peak) { CHECK(fma_peak(2, 0.01, "") > 1e6); }
