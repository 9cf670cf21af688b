// How the core is used: stopping an epoch, and callers with threads of their own.
#include <chrono>
#include <thread>

#include "cpp/tests/problem.hpp"

using namespace gesda;
using namespace gesda_test;
using std::chrono::milliseconds;

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
    CHECK(same_states(problem.state(*network), problem.state(*planned)));
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
    for (const char* name : {"layers.0.W", "layers.0.b", "layers.0.c"})
      CHECK(same_bits(state.at(name), expected.at(name)));
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
  CHECK(same_states(problem.state(*network), problem.state(*planned)));
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
  problems.reserve(4);
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
    CHECK(same_states(problems[i]->state(*alone), states[i]));
  }
}

TEST(network_measures_the_peak) { CHECK(fma_peak(2, 0.01, "") > 1e6); }
