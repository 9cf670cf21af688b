#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <csignal>
#include <filesystem>
#include <memory>
#include <numeric>
#include <thread>

#include "gesda/pool.hpp"
#include "harness.hpp"

#if defined(__has_feature)
#define GESDA_HAS_FEATURE(name) __has_feature(name)
#else
#define GESDA_HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || GESDA_HAS_FEATURE(address_sanitizer)
constexpr bool kAddressSanitizer = true;
#else
constexpr bool kAddressSanitizer = false;
#endif
#if defined(__SANITIZE_THREAD__) || GESDA_HAS_FEATURE(thread_sanitizer)
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif

// A leak checker, where one is in use, asks this. It cannot see what only the stacks of the parent's threads refer to,
// so children do without; the test program itself is checked, with its workers asleep.
static bool g_is_child = false;
extern "C" __attribute__((visibility("default"))) int __lsan_is_turned_off();
extern "C" int __lsan_is_turned_off() { return g_is_child; }

namespace {

using gesda::Team;
using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr int kNever = INT_MAX;  // first_uninterruptible: all phases can be interrupted

void busy_for(microseconds time) {
  for (const auto end = Clock::now() + time; Clock::now() < end;) {
  }
}

double cpu_seconds() {
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(use.ru_utime) + seconds(use.ru_stime);
}

double cpu_seconds_during(milliseconds pause) {
  const double before = cpu_seconds();
  std::this_thread::sleep_for(pause);
  return cpu_seconds() - before;
}

// Counts what runs. `counts` is deliberately not atomic: a thread sanitizer sees any missing barrier.
struct Job {
  std::vector<int> tasks;
  std::vector<std::vector<int>> counts;    // [phase][task]
  std::vector<std::atomic<int>> finished;  // per phase
  std::vector<microseconds> durations;     // task t takes durations[t % size]
  std::atomic<bool> stop{false};
  int stop_phase = -1, stop_task = -1;  // the task that sets stop
  int n_workers = 0;
  std::atomic<int> n_late{0};  // tasks that began with stop set
  std::atomic<int> n_wrong{0};

  explicit Job(std::vector<int> tasks_per_phase) : tasks(std::move(tasks_per_phase)), finished(tasks.size()) {
    for (const int n : tasks) counts.emplace_back(static_cast<std::size_t>(std::max(n, 0)), 0);
  }

  static void run_task(void* ctx, int phase, int task, int worker) {
    auto& job = *static_cast<Job*>(ctx);
    if (job.stop) ++job.n_late;
    const auto p = static_cast<std::size_t>(phase);
    for (std::size_t earlier = 0; earlier < p; ++earlier) {
      if (job.finished[earlier].load(std::memory_order_relaxed) != static_cast<int>(job.counts[earlier].size())) {
        ++job.n_wrong;
      }
      if (!job.counts[earlier].empty() && job.counts[earlier].back() != 1) ++job.n_wrong;  // and visible
    }
    if (worker < 0 || worker >= job.n_workers) ++job.n_wrong;
    if (!job.durations.empty()) busy_for(job.durations[static_cast<std::size_t>(task) % job.durations.size()]);
    ++job.counts[p][static_cast<std::size_t>(task)];
    if (phase == job.stop_phase && task == job.stop_task) job.stop = true;
    job.finished[p].fetch_add(1, std::memory_order_relaxed);
  }

  bool run(Team& team, int first_uninterruptible = kNever) {
    n_workers = team.size();
    return team.run(tasks.data(), static_cast<int>(tasks.size()), run_task, this, &stop, first_uninterruptible);
  }

  bool all_ran_once() const {
    for (const auto& phase : counts) {
      if (std::any_of(phase.begin(), phase.end(), [](int n) { return n != 1; })) return false;
    }
    return n_wrong == 0;
  }

  int n_ran(std::size_t phase) const { return std::accumulate(counts[phase].begin(), counts[phase].end(), 0); }
};

// qemu's emulation of single programs loses its own state in a child of a process with several threads.
#define SKIP_IF_EMULATED() \
  if (gesda_test::is_emulated()) SKIP("the emulator cannot fork a process that has several threads")

int draw(std::mt19937_64& rng, int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); }

Job random_job(std::mt19937_64& rng, int most_tasks) {
  std::vector<int> tasks(static_cast<std::size_t>(draw(rng, 0, 6)));
  for (int& n : tasks) n = draw(rng, 0, 3) == 0 ? draw(rng, 0, 1) : draw(rng, 0, most_tasks);
  return Job(std::move(tasks));
}

// Runs `body` in a forked child and returns its exit status (0 if body() is true), or -1 if it dies or takes too long.
template <typename Body>
int in_child(Body body, bool leave_by_exit = false) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) return -1;
  if (child == 0) {
    g_is_child = true;
    const int status = body() ? 0 : 1;
    if (leave_by_exit)
      std::exit(status);  // NOLINT(concurrency-mt-unsafe): the child's other threads, if any, are part of the test
    _exit(status);
  }
  for (const auto end = Clock::now() + std::chrono::seconds(20); Clock::now() < end;) {
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    std::this_thread::sleep_for(milliseconds(1));
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return -1;
}

// Two tasks of a phase wait for each other, so two threads have to be there.
bool two_tasks_meet(Team& team) {
  struct Meeting {
    std::atomic<int> n_present{0};
    std::atomic<bool> in_vain{false};
  } meeting;
  const auto wait_for_other = [](void* ctx, int, int, int) {
    auto& m = *static_cast<Meeting*>(ctx);
    ++m.n_present;
    for (const auto end = Clock::now() + std::chrono::seconds(5); m.n_present < 2;) {
      if (Clock::now() > end) m.in_vain = true;
      if (m.in_vain) return;
      std::this_thread::yield();
    }
  };
  const int tasks[] = {2};
  team.run(tasks, 1, wait_for_other, &meeting, nullptr, 0);
  return !meeting.in_vain;
}

bool a_team_works(int n_threads) {
  Team team(n_threads);
  if (team.size() > 1 && !two_tasks_meet(team)) return false;
  for (int i = 0; i < 100; ++i) {
    Job job({4, 1, 0, 9, 2});
    if (!job.run(team) || !job.all_ran_once()) return false;
  }
  return true;
}

}  // namespace

TEST(pool_runs_every_task_once_and_phases_in_order) {
  auto rng = gesda_test::rng();
  for (int i = 0; i < 100; ++i) {
    const int n_threads = draw(rng, 1, 8);
    Team team(n_threads);
    CHECK(team.size() == n_threads);
    for (int j = 0; j < 100; ++j) {
      Job job = random_job(rng, 20);
      if (draw(rng, 0, 9) == 0) {  // now and then tasks that last, a few of them longer than a waiting thread spins
        for (int k = draw(rng, 1, 5); k > 0; --k) {
          job.durations.emplace_back(draw(rng, 0, 9) == 0 ? draw(rng, 50, 200) : draw(rng, 0, 5));
        }
      }
      CHECK(job.run(team));
      CHECK(job.all_ran_once());
    }
  }
}

TEST(pool_threads_really_work_side_by_side) {
  Team team(2);
  CHECK(two_tasks_meet(team));
}

TEST(pool_takes_less_than_one_thread_for_one) {
  Team team(-3);
  CHECK(team.size() == 1);
  Job job({3, 2});
  CHECK(job.run(team) && job.all_ran_once());
}

TEST(pool_runs_nothing_of_empty_phases) {
  for (const int n_threads : {1, 2, 3}) {
    Team team(n_threads);
    for (const std::vector<int>& tasks : {std::vector<int>{}, {0}, {0, 0, 0}, {0, 3, 0}, {-1, 2}}) {
      Job job(tasks);
      CHECK(job.run(team) && job.all_ran_once());
    }
  }
}

TEST(pool_does_not_begin_once_stopped) {
  for (const int n_threads : {1, 2, 4}) {
    Team team(n_threads);
    Job job({3, 5});
    job.stop = true;
    CHECK(!job.run(team, 1));
    CHECK(job.n_ran(0) == 0 && job.n_ran(1) == 0);
    Job all({3, 5});
    all.stop = true;
    CHECK(all.run(team, 0));  // nothing in it can be interrupted
    CHECK(all.all_ran_once());
  }
}

TEST(pool_answers_stop_between_tasks_and_leaves_later_phases_out) {
  auto rng = gesda_test::rng();
  for (int i = 0; i < 2000; ++i) {
    Team team(draw(rng, 1, 4));
    Job job({draw(rng, 1, 50), draw(rng, 1, 50), draw(rng, 1, 10), draw(rng, 1, 10)});
    job.stop_phase = draw(rng, 0, 1);
    job.stop_task = draw(rng, 0, job.tasks[static_cast<std::size_t>(job.stop_phase)] - 1);
    CHECK(!job.run(team, 2));
    const auto p = static_cast<std::size_t>(job.stop_phase);
    CHECK(job.n_late < team.size());  // another thread may have looked just before, but for one task only
    if (team.size() == 1) CHECK(job.n_ran(p) == job.stop_task + 1);
    if (p == 1) CHECK(job.n_ran(0) == job.tasks[0]);
    for (std::size_t later = p + 1; later < 4; ++later) CHECK(job.n_ran(later) == 0);
    CHECK(job.n_wrong == 0);
  }
}

TEST(pool_finishes_what_cannot_be_interrupted) {
  auto rng = gesda_test::rng();
  for (int i = 0; i < 2000; ++i) {
    Team team(draw(rng, 1, 4));
    Job job({draw(rng, 1, 20), draw(rng, 1, 20), draw(rng, 1, 20)});
    job.stop_phase = draw(rng, 1, 2);
    job.stop_task = draw(rng, 0, job.tasks[static_cast<std::size_t>(job.stop_phase)] - 1);
    CHECK(job.run(team, 1));
    CHECK(job.all_ran_once());
  }
}

TEST(pool_says_false_only_if_something_was_left_out) {
  for (const int n_threads : {1, 3}) {
    Team team(n_threads);
    Job job({2, 1, 0});
    job.stop_phase = 1;  // the very last task
    job.stop_task = 0;
    CHECK(job.run(team));
    CHECK(job.all_ran_once());
  }
}

TEST(pool_answers_stop_from_another_thread_soon) {
  Team team(2);
  Job job({200000});
  job.durations = {microseconds(100)};  // ten seconds of work
  std::thread stopper([&job] {
    std::this_thread::sleep_for(milliseconds(20));
    job.stop = true;
  });
  const auto start = Clock::now();
  CHECK(!job.run(team));
  CHECK(Clock::now() - start < std::chrono::seconds(2));
  stopper.join();
}

TEST(pool_serves_several_teams_at_once) {
  const auto seed = gesda_test::rng()();
  std::vector<std::thread> users;
  users.reserve(4);
  for (unsigned user = 0; user < 4; ++user) {
    users.emplace_back([seed, user] {
      std::mt19937_64 rng(seed + user);
      for (int i = 0; i < 100; ++i) {
        Team team(draw(rng, 1, 4));
        CHECK(team.size() >= 1 && team.size() <= 4);
        for (int j = 0; j < 10; ++j) {
          Job job = random_job(rng, 10);
          CHECK(job.run(team));
          CHECK(job.all_ran_once());
        }
      }
    });
  }
  for (std::thread& user : users) user.join();
}

TEST(pool_gives_a_team_what_is_idle) {
  SKIP_IF_EMULATED();
  const int status = in_child([] {  // a child, for a pool of its own
    const int most = std::max(4, gesda::usable_threads());
    {
      Team first(4);
      Team second(3);
      if (first.size() != 4 || second.size() != 1 + std::min(2, most - 4)) return false;
      Job a({7, 5}), b({5, 7});
      if (!a.run(first) || !b.run(second) || !a.all_ran_once() || !b.all_ran_once()) return false;
    }
    return Team(4).size() == 4;  // they are back at once
  });
  CHECK(status == 0);
}

#ifdef __linux__
TEST(pool_makes_no_more_threads_than_were_asked_for) {
  SKIP_IF_EMULATED();
  const auto n_threads_now = [] {
    int n = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) n += entry.exists() ? 1 : 0;
    return n;
  };
  const int status = in_child([&] {
    const int before = n_threads_now();
    const int most = std::max(3, gesda::usable_threads()) - 1;
    for (int i = 0; i < 20; ++i) {
      Team a(3), b(2), c(3);
      if (n_threads_now() > before + most) return false;
    }
    return n_threads_now() > before;
  });
  CHECK(status == 0);
}
#endif

TEST(pool_sleeps_between_runs_and_between_teams) {
  {
    Team team(4);
    Job job({8, 8});
    CHECK(job.run(team));
    std::this_thread::sleep_for(milliseconds(5));
    CHECK(cpu_seconds_during(milliseconds(300)) < 0.03);  // the team lives, but does not run
    Job again({8, 8});
    CHECK(again.run(team) && again.all_ran_once());
  }
  std::this_thread::sleep_for(milliseconds(5));
  CHECK(cpu_seconds_during(milliseconds(300)) < 0.03);
}

TEST(pool_surplus_threads_sleep_through_a_long_phase) {
  Team team(4);
  double used = 1;
  const int tasks[] = {3, 1};
  const auto task = [](void* ctx, int phase, int, int) {
    if (phase == 1) *static_cast<double*>(ctx) = cpu_seconds_during(milliseconds(300));
  };
  team.run(tasks, 2, task, &used, nullptr, 0);
  CHECK(used < 0.03);
}

TEST(pool_gets_on_with_more_threads_than_cpus) {
  const auto start = Clock::now();
  Team team(8);
  CHECK(team.size() == 8);
  for (int i = 0; i < 500; ++i) {
    Job job({16, 8, 3, 8, 1});
    CHECK(job.run(team) && job.all_ran_once());
  }
  CHECK(Clock::now() - start < std::chrono::seconds(20));
}

TEST(pool_works_in_a_forked_child) {
  SKIP_IF_EMULATED();
  CHECK(a_team_works(3));
  CHECK(in_child([] { return a_team_works(3); }) == 0);
  CHECK(in_child([] { return a_team_works(2) && in_child([] { return a_team_works(2); }) == 0; }) == 0);
  CHECK(a_team_works(3));  // the parent is none the worse
}

TEST(pool_child_leaves_in_order) {  // static objects are destroyed
  SKIP_IF_EMULATED();
  Team held(2);
  CHECK(in_child([] { return a_team_works(3); }, true) == 0);
}

TEST(pool_team_held_across_a_fork_works_in_both) {
  SKIP_IF_EMULATED();
  auto team = std::make_unique<Team>(3);
  const auto works = [&team] {
    Job job({5, 1, 7});
    return job.run(*team) && job.all_ran_once();
  };
  CHECK(works());
  const int status = in_child([&] {
    if (team->size() != 1 || !works()) return false;
    Team other(3);  // the child's own pool, made while the inherited Team is there
    if (other.size() != 3 || !works()) return false;
    team.reset();
    return a_team_works(3);
  });
  CHECK(status == 0);
  CHECK(team->size() == 3);
  CHECK(works());
}

TEST(pool_survives_forks_while_other_threads_run) {
  SKIP_IF_EMULATED();
  if (kThreadSanitizer) SKIP("the thread sanitizer cannot start threads in a child whose parent had several running");
  if (kAddressSanitizer) SKIP("a sanitizer's own allocator may stay locked in a forked child");
  std::atomic<bool> done{false};
  std::atomic<int> started{0};
  std::vector<std::thread> users;
  users.reserve(4);
  for (int user = 0; user < 2; ++user) {
    users.emplace_back([&done, &started] {
      Team team(3);
      const int tasks[] = {4, 1, 7};
      ++started;
      while (!done) team.run(tasks, 3, [](void*, int, int, int) {}, nullptr, &done, 3);
    });
  }
  while (started < 2) std::this_thread::yield();
  for (int i = 0; i < 30; ++i) CHECK(in_child([] { return a_team_works(2); }) == 0);
  done = true;
  for (std::thread& user : users) user.join();
}

TEST(pool_survives_forks_while_teams_come_and_go) {
  SKIP_IF_EMULATED();
  if (kThreadSanitizer || kAddressSanitizer) SKIP("a sanitizer's own allocator may stay locked in a forked child");
  std::atomic<bool> done{false};
  std::vector<std::thread> users;
  users.reserve(4);
  for (int user = 0; user < 2; ++user) {
    users.emplace_back([&done] {
      while (!done) CHECK(a_team_works(3));
    });
  }
  for (int i = 0; i < 30; ++i) CHECK(in_child([] { return a_team_works(2); }) == 0);
  done = true;
  for (std::thread& user : users) user.join();
}

TEST(pool_lets_the_process_exit_at_any_moment) {
  SKIP_IF_EMULATED();
  CHECK(in_child(
            [] {
              static Team team(3);  // destroyed after main
              Job job({5, 5});
              return job.run(team);
            },
            true) == 0);
  auto rng = gesda_test::rng();
  for (int i = 0; i < 5; ++i) {
    const microseconds pause(draw(rng, 0, 3000));
    CHECK(in_child(
              [pause] {
                std::thread([] {
                  for (;;) {
                    Team team(3);
                    const int tasks[] = {4, 4};
                    team.run(tasks, 2, [](void*, int, int, int) {}, nullptr, nullptr, 0);
                  }
                }).detach();
                std::this_thread::sleep_for(pause);
                return true;
              },
              true) == 0);
  }
}
