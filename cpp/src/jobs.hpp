// The work of a tick as lists of small jobs, one list a phase, and the team that runs them.
//
// A job is a kernel, its task record and the rows and panels it computes. Jobs are cut by shape alone, never by the
// number of threads, so that threads change no bit; within a phase no job reads what another writes.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <vector>

#include "cpp/src/kernel_table.hpp"
#include "cpp/src/matrix.hpp"
#include "gesda/network.hpp"
#include "gesda/pool.hpp"

namespace gesda {

struct Job {
  void (*run)(const Kernels& kernels, const void* task, Range range, float* workspace);
  const void* task;
  Range range;
  int layer;  // whose time it is
};

class JobList {
 public:
  void clear() { jobs_.clear(); }
  const std::vector<Job>& jobs() const { return jobs_; }
  // Reorders the jobs, now complete, for a team that deals them out in stretches: each thread then has a like part of
  // every task, so that it meets the same panels of a layer in all phases, whatever the other layers do in them.
  void deal(int n_threads);

  // The records have to outlive the list. `rows` is the minibatch's real size.
  void gather(const Kernels& kernels, const GatherTask& task, int rows, int layer);
  void corrupt(const Kernels& kernels, const CorruptTask& task, int layer);
  // Nothing where neither copy is wanted, as in fp32.
  void pack(const Kernels& kernels, const PackTask& task, int layer);
  void encode(const Kernels& kernels, const EncodeTask& task, int rows, int layer);
  void decode(const Kernels& kernels, const DecodeTask& task, int rows, int layer);
  void backprop(const Kernels& kernels, const BackpropTask& task, int rows, int layer);
  void statistics(const Kernels& kernels, const StatisticsTask& task, int layer);
  void update(const Kernels& kernels, const UpdateTask& task, int layer);
  void update_bias(const Kernels& kernels, const BiasTask& task, int layer);
  void head(const Kernels& kernels, const HeadTask& task, int rows, int layer);
  void scatter(const Kernels& kernels, const ScatterTask& task, int rows, int layer);

 private:
  std::vector<Job> jobs_;
  std::vector<Job> dealt_;  // kept for its memory
};

// Rows of a job of a product with `panels` panels: few enough rows that a phase has work for several threads, and
// never more than the kernels take.
int rows_per_job(const Kernels& kernels, int rows, int panels);
// Most jobs that a product of up to `rows` rows is cut into.
std::size_t most_blocks(const Kernels& kernels, int rows, int panels);
inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Runs phases of jobs on a leased team, asks `poll` now and then, and keeps the time that each layer took.
class JobRunner {
 public:
  JobRunner(const Kernels& kernels, int n_threads, std::size_t n_layers, const Poll* poll);

  // Runs the phases in order. False if the poll asked to stop inside a phase before `first_uninterruptible`: those
  // after it have not run then.
  bool run(const std::vector<JobList>& phases, int first_uninterruptible, double fraction);
  int size() const { return team_.size(); }
  // Between runs: whether to stop. Asks the poll if it is time; after a yes it is not asked again, so that the caller
  // can finish what is on its way.
  bool asked_to_stop(double fraction);
  // Wall-clock seconds since the construction, shared out by the layers' work.
  std::vector<double> seconds() const;

 private:
  using Clock = std::chrono::steady_clock;
  static void run_task(void* runner, int phase, int task, int worker);
  void poll_now();

  const Kernels& kernels_;
  Team team_;
  const Poll* poll_;
  std::size_t n_layers_;
  std::size_t time_stride_;
  std::vector<Buffer> workspaces_;
  std::vector<double> layer_time_;  // (workers, time_stride_)
  const std::vector<JobList>* phases_ = nullptr;
  std::atomic<bool> stop_{false};
  double fraction_ = 0.0;
  bool timed_ = false;
  Clock::time_point start_, last_poll_;
};

}  // namespace gesda
