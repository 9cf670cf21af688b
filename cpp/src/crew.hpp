// What the threads of one Team share: how they take the tasks of a phase, end it and open the next.
//
// The tasks of the current phase that nobody has claimed yet are counted down in `ticket_`, those not yet finished in
// `unfinished_`. A thread that finds no task left reports how many it has finished; the one whose report completes the
// phase opens the next. Hence nobody waits for a thread that has no task (it may sleep, or not even have arrived), and
// the job's fields are read only by threads that hold a claim and written only when no thread holds one.
//
// Which task a claim turns into is a second question: each thread has a stretch of the phase's tasks for its own and
// helps out in those of others when its own is empty. So in phases of like tasks, tick after tick, a thread meets data
// that its own cache still has.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "gesda/pool.hpp"

namespace gesda {
namespace detail {

// Two lines of 64 bytes: x86 fetches lines in pairs, and Apple's are 128 bytes.
constexpr std::size_t kLine = 128;

// How many threads work in the whole process, and how many CPUs there are for them.
struct Occupancy {
  std::atomic<int> busy{0};    // threads of all Teams
  std::atomic<int> usable{1};  // usable_threads() when the latest Team was made
  bool crowded() const { return busy.load(std::memory_order_relaxed) > usable.load(std::memory_order_relaxed); }
};

class Crew {
 public:
  Crew(const Occupancy& occupancy, int size)
      : occupancy_(occupancy), slots_(static_cast<std::size_t>(size)), stretches_(static_cast<std::size_t>(size)) {}

  bool run(const int* tasks_per_phase, int n_phases, Team::TaskFn fn, void* ctx, const std::atomic<bool>* stop,
           int first_uninterruptible);
  void work(int me, int task);  // until the run is over (caller), or the lease (others); task -1: none held yet
  void close();

 private:
  static constexpr std::uint64_t kLeft = 0xffffffff;         // tasks not claimed
  static constexpr std::uint64_t kOver = kLeft + 1;          // the caller can return from run()
  static constexpr std::uint64_t kClosed = 2 * (kLeft + 1);  // the workers can leave

  struct Slot {
    std::condition_variable wake;
    bool asleep = false;
  };
  struct alignas(kLine) Stretch {
    std::atomic<int> next{0};
    int end = 0;
  };

  static bool ready(std::uint64_t ticket, int me) { return (ticket & (kLeft | (me == 0 ? kOver : kClosed))) != 0; }
  int wait_for_task(int me);
  int claim(int me);
  int choose_task(int me);
  int execute(int task, int me);
  int open_next_phase(int me);
  void sleep(int me);
  void wake(int first, int last, int n_wanted);

  // What a thread needs to take and execute a task lies in one line with the ticket.
  alignas(kLine) std::atomic<std::uint64_t> ticket_{0};
  Team::TaskFn fn_ = nullptr;
  void* ctx_ = nullptr;
  const std::atomic<bool>* stop_ = nullptr;
  int phase_ = 0;
  int first_uninterruptible_ = 0;
  int n_phases_ = 0;
  const int* tasks_per_phase_ = nullptr;

  alignas(kLine) std::atomic<std::int64_t> unfinished_{0};
  std::atomic<bool> stopped_{false};

  alignas(kLine) std::atomic<int> n_asleep_{0};  // written with mutex_ held
  const Occupancy& occupancy_;
  std::mutex mutex_;
  std::vector<Slot> slots_;         // by thread
  std::vector<Stretch> stretches_;  // likewise
};

}  // namespace detail
}  // namespace gesda
