#include "cpp/src/crew.hpp"

#include <chrono>

namespace gesda {

namespace {

using Clock = std::chrono::steady_clock;

// Waking a sleeper costs several microseconds of the waker and some ten of the sleeper, so a thread that runs out of
// work spins about as long as that before it sleeps. With more threads than CPUs spinning only keeps others from work.
constexpr auto kSpin = std::chrono::microseconds(40);
constexpr auto kSpinCrowded = std::chrono::microseconds(1);

inline void cpu_pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // "yield" does nothing on most cores
#endif
}

}  // namespace

namespace detail {

bool Crew::run(const int* tasks_per_phase, int n_phases, Team::TaskFn fn, void* ctx, const std::atomic<bool>* stop,
               int first_uninterruptible) {
  fn_ = fn;
  ctx_ = ctx;
  stop_ = stop;
  phase_ = -1;
  first_uninterruptible_ = first_uninterruptible;
  n_phases_ = n_phases;
  tasks_per_phase_ = tasks_per_phase;
  stopped_.store(false, std::memory_order_relaxed);
  const int task = open_next_phase(0);
  if (task >= 0) work(0, task);
  return !stopped_.load(std::memory_order_relaxed);
}

void Crew::work(int me, int task) {
  for (;;) {
    if (task < 0) task = wait_for_task(me);
    if (task < 0) return;
    std::int64_t finished = 0;
    for (; task >= 0; task = claim(me)) finished += execute(task, me);
    if (unfinished_.fetch_sub(finished, std::memory_order_acq_rel) == finished) {
      task = open_next_phase(me);
      if (task < 0 && me == 0) return;  // the caller itself ended the run: nobody need tell it
    }
  }
}

// Takes a task of the open phase; -1 if none is left. The ticket may have come to its value again in a later phase
// between the load and the exchange: no harm, since the job is read after the exchange.
int Crew::claim(int me) {
  std::uint64_t ticket = ticket_.load(std::memory_order_relaxed);
  while ((ticket & kLeft) != 0) {
    if (ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acquire, std::memory_order_relaxed))
      return choose_task(me);
  }
  return -1;
}

// For a thread that holds a claim. As many tasks remain as there are claims, and an empty stretch stays empty, so one
// pass over the stretches finds one.
int Crew::choose_task(int me) {
  for (std::size_t i = static_cast<std::size_t>(me);; i = i + 1 < stretches_.size() ? i + 1 : 0) {
    Stretch& stretch = stretches_[i];
    if (stretch.next.load(std::memory_order_relaxed) >= stretch.end) continue;
    const int task = stretch.next.fetch_add(1, std::memory_order_relaxed);
    if (task < stretch.end) return task;
  }
}

// Returns how many tasks of the phase are settled by it: more than one if it stops the run.
int Crew::execute(int task, int me) {
  if (phase_ < first_uninterruptible_ && stop_ != nullptr && stop_->load(std::memory_order_relaxed)) {
    stopped_.store(true, std::memory_order_relaxed);
    return 1 + static_cast<int>(ticket_.fetch_and(~kLeft, std::memory_order_relaxed) & kLeft);
  }
  fn_(ctx_, phase_, task, me);
  return 1;
}

// Called by the one thread that completed a phase. Returns a task of the next for the caller itself, or -1 at the end
// of the run. A phase of one task therefore concerns no other thread and is not even announced.
int Crew::open_next_phase(int me) {
  const int done = phase_;
  bool more = false;
  if (!stopped_.load(std::memory_order_relaxed)) {
    do {
      ++phase_;
    } while (phase_ < n_phases_ && tasks_per_phase_[phase_] <= 0);
    more = phase_ < n_phases_;
    if (more && done >= 0 && done < first_uninterruptible_ && stop_ != nullptr &&
        stop_->load(std::memory_order_relaxed)) {
      stopped_.store(true, std::memory_order_relaxed);
      more = false;
    }
  }
  if (!more) {
    if (me != 0) {
      ticket_.store(kOver, std::memory_order_seq_cst);  // from here on the job is the caller's
      wake(0, 1, 1);
    }
    return -1;
  }
  const int n_tasks = tasks_per_phase_[phase_];
  const int size = static_cast<int>(slots_.size());
  unfinished_.store(n_tasks, std::memory_order_relaxed);
  for (int i = 0, end = 0; i < size; ++i) {
    Stretch& stretch = stretches_[static_cast<std::size_t>(i)];
    stretch.next.store(end, std::memory_order_relaxed);
    stretch.end = end = static_cast<int>(static_cast<std::int64_t>(n_tasks) * (i + 1) / size);
  }
  const int n_others = n_tasks - 1;
  if (n_others > 0) {
    ticket_.store(static_cast<std::uint64_t>(n_others), std::memory_order_seq_cst);
    const int n_awake = size - 1 - n_asleep_.load(std::memory_order_seq_cst);
    wake(0, size, n_others - n_awake);
  }
  return choose_task(me);
}

int Crew::wait_for_task(int me) {
  for (;;) {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    if (!ready(ticket, me)) {
      const auto start = Clock::now();
      const auto limit = occupancy_.crowded() ? kSpinCrowded : kSpin;
      do {
        for (int i = 0; i < 16 && !ready(ticket, me); ++i) {
          cpu_pause();
          ticket = ticket_.load(std::memory_order_acquire);
        }
      } while (!ready(ticket, me) && Clock::now() - start < limit);
    }
    if (!ready(ticket, me)) {
      sleep(me);
      continue;
    }
    if ((ticket & kLeft) == 0) return -1;
    const int task = claim(me);
    if (task >= 0) return task;
  }
}

// No wake-up is lost: a sleeper writes n_asleep_ and then reads the ticket, a waker writes the ticket and then reads
// n_asleep_, all sequentially consistent, so one of the two sees the other.
void Crew::sleep(int me) {
  std::unique_lock<std::mutex> lock(mutex_);
  Slot& slot = slots_[static_cast<std::size_t>(me)];
  n_asleep_.store(n_asleep_.load(std::memory_order_relaxed) + 1, std::memory_order_seq_cst);
  if (ready(ticket_.load(std::memory_order_seq_cst), me)) {
    n_asleep_.store(n_asleep_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    return;
  }
  slot.asleep = true;
  slot.wake.wait(lock, [&slot] { return !slot.asleep; });
}

// Wakes up to n_wanted sleepers among the threads first .. last - 1. They count as awake at once, so that the next call
// does not wake them again while they are still on their way.
void Crew::wake(int first, int last, int n_wanted) {
  if (n_wanted <= 0 || n_asleep_.load(std::memory_order_seq_cst) == 0) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  int n_woken = 0;
  for (int i = first; i < last && n_woken < n_wanted; ++i) {
    Slot& slot = slots_[static_cast<std::size_t>(i)];
    if (!slot.asleep) continue;
    slot.asleep = false;
    slot.wake.notify_one();
    ++n_woken;
  }
  n_asleep_.store(n_asleep_.load(std::memory_order_relaxed) - n_woken, std::memory_order_relaxed);
}

void Crew::close() {
  const int size = static_cast<int>(slots_.size());
  ticket_.store(kClosed, std::memory_order_seq_cst);
  wake(1, size, size);
}

}  // namespace detail
}  // namespace gesda
