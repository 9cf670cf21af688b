// How a phase's jobs are dealt out to a team.
#include <algorithm>
#include <tuple>
#include <vector>

#include "cpp/src/dispatch.hpp"
#include "cpp/src/jobs.hpp"
#include "harness.hpp"

using namespace gesda;

namespace {

constexpr int kMostThreads = 7;

auto key(const Job& job) {
  return std::make_tuple(job.layer, job.range.row_begin, job.range.row_end, job.range.panel_begin, job.range.panel_end);
}

}  // namespace

TEST(each_thread_gets_a_like_part_of_every_task_in_order) {
  std::mt19937_64 rng = gesda_test::rng();
  const Kernels& kernels = *runnable_kernels().front();
  for (int n_threads = 1; n_threads <= kMostThreads; ++n_threads) {
    const std::size_t n_tasks = 1 + rng() % 4;
    std::vector<ScatterTask> tasks(n_tasks);
    std::vector<std::ptrdiff_t> n_jobs(n_tasks);
    JobList list;
    for (std::size_t t = 0; t < n_tasks; ++t) {
      const std::size_t before = list.jobs().size();
      list.scatter(kernels, tasks[t], 1 + static_cast<int>(rng() % 500), static_cast<int>(t));
      n_jobs[t] = static_cast<std::ptrdiff_t>(list.jobs().size() - before);
    }
    const std::vector<Job> built = list.jobs();
    list.deal(n_threads);

    // A thread's part of a task: `n * thread / n_threads` to `n * (thread + 1) / n_threads` of its n jobs.
    std::vector<Job> expected;
    for (std::ptrdiff_t thread = 0; thread < n_threads; ++thread) {
      auto first = built.begin();
      for (const std::ptrdiff_t n : n_jobs) {
        for (std::ptrdiff_t j = n * thread / n_threads; j < n * (thread + 1) / n_threads; ++j)
          expected.push_back(first[j]);
        first += n;
      }
    }
    CHECK(expected.size() == built.size());
    CHECK(std::equal(list.jobs().begin(), list.jobs().end(), expected.begin(), expected.end(),
                     [](const Job& a, const Job& b) { return a.task == b.task && key(a) == key(b); }));
  }
}

TEST(an_empty_list_is_dealt_and_a_list_can_be_built_again) {
  const Kernels& kernels = *runnable_kernels().front();
  JobList list;
  list.deal(2);
  CHECK(list.jobs().empty());
  const ScatterTask task{};
  list.scatter(kernels, task, 100, 0);
  const std::size_t n = list.jobs().size();
  list.deal(3);
  CHECK(list.jobs().size() == n);
  list.clear();
  list.scatter(kernels, task, 100, 0);
  CHECK(list.jobs().size() == n);
}
