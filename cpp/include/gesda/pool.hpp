// The threads of the C++ core: one set of workers for the whole process, lent to one epoch at a time.
//
// An epoch makes a Team, calls run() once a tick and drops the Team. The workers sleep whenever there is nothing to do;
// they are never joined, so a process may exit at any moment, and a forked child starts with a set of its own.
#pragma once

#include <atomic>
#include <memory>
#include <string>

namespace gesda {

namespace detail {
class Pool;
struct Lease;

// CPUs that the cgroup (v1 or v2) of this process allows, at least 1; INT_MAX without a quota. The files are looked for
// under `root`, which is "" but in tests.
int cgroup_threads(const std::string& root);
}  // namespace detail

// A lease of some workers, plus the calling thread, for one epoch. One thread at a time may use a Team; several Teams
// may work at once, in several threads, and each gets what is idle when it is made. A Team that is held across a fork
// stays usable in the child, with the calling thread alone; fork() inside a task is for exec or _exit only.
class Team {
 public:
  // Wants n_threads >= 1 (less counts as 1): the caller and up to n_threads - 1 idle workers, fewer if other Teams hold
  // them or the system gives no more threads. All Teams together hold at most max(largest n_threads asked for,
  // usable_threads()) - 1 workers. Throws std::bad_alloc.
  explicit Team(int n_threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  // Threads, the caller included.
  int size() const;

  // One task. `worker` is in [0, size()), 0 is the caller. Must not throw: that ends the process.
  using TaskFn = void (*)(void* ctx, int phase, int task, int worker);

  // Runs tasks 0 .. tasks_per_phase[0] - 1 of phase 0, each exactly once and on any thread, then, when all of them have
  // returned, those of phase 1, and so on. What a task wrote is visible to all tasks of later phases and to the caller.
  //
  // `stop` (may be null) is looked at before each task of the phases < first_uninterruptible, and when such a phase
  // ends and a later one has tasks. Once it is seen to be true no task of these phases starts, nor any later phase, and
  // run() returns false when the running tasks have returned. So false says that something was left out, and that no
  // task of a phase >= first_uninterruptible has started; true says that everything ran.
  bool run(const int* tasks_per_phase, int n_phases, TaskFn fn, void* ctx, const std::atomic<bool>* stop,
           int first_uninterruptible);

 private:
  detail::Pool* pool_;
  std::shared_ptr<detail::Lease> lease_;  // null where the caller is alone
  int size_ = 1;
};

// Hardware threads that this process may use, at least 1: the affinity mask of the calling thread and the CPU quota of
// the cgroup (read once a process), whichever is less.
int usable_threads();

}  // namespace gesda
