#include "gesda/pool.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace gesda {

namespace {

using Clock = std::chrono::steady_clock;

// Waking a sleeper costs several microseconds of the waker and some ten of the sleeper, so a thread that runs out of
// work spins about as long as that before it sleeps. With more threads than CPUs spinning only keeps others from work.
constexpr auto kSpin = std::chrono::microseconds(40);
constexpr auto kSpinCrowded = std::chrono::microseconds(1);

// Two lines of 64 bytes: x86 fetches lines in pairs, and Apple's are 128 bytes.
constexpr std::size_t kLine = 128;

inline void cpu_pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // "yield" does nothing on most cores
#endif
}

}  // namespace

namespace detail {

struct Worker {
  std::condition_variable wake;  // with Pool::mutex
  std::shared_ptr<Crew> next;    // where to go next; guarded by Pool::mutex
  int next_index = 0;
  std::shared_ptr<Crew> current;  // the worker's own; here and not on its stack so that a forked child still reaches it
};

class Pool {
 public:
  static Pool& instance();
  std::shared_ptr<Crew> lease(int n_threads);
  void give_back(const std::shared_ptr<Crew>& crew);
  bool crowded() const { return busy.load(std::memory_order_relaxed) > usable.load(std::memory_order_relaxed); }

  std::atomic<int> busy{0};    // threads of all Teams
  std::atomic<int> usable{1};  // usable_threads() when the latest Team was made
  Pool* inherited = nullptr;   // a forked child's: the parent's pool. Kept reachable, never touched.

 private:
  bool spawn();
  void live(Worker* self) noexcept;

  std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<Worker*> idle_;
  int largest_ = 1;
};

// What the threads of one Team share.
//
// The tasks of the current phase that nobody has taken yet are counted down in `ticket_`, those not yet finished in
// `unfinished_`. A thread that finds no task left reports how many it has finished; the one whose report completes the
// phase opens the next. Hence nobody waits for a thread that has no task (it may sleep, or not even have arrived), and
// the job's fields are read only by threads that hold a task and written only when no thread holds one.
class Crew {
 public:
  Crew(Pool* pool, int size) : pool_(pool), slots_(static_cast<std::size_t>(size)) { workers.reserve(slots_.size()); }

  bool run(const int* tasks_per_phase, int n_phases, Team::TaskFn fn, void* ctx, const std::atomic<bool>* stop,
           int first_uninterruptible);
  void work(int me, int task);  // until the run is over (caller), or the lease (others); task -1: none held yet
  void close();

  std::vector<Worker*> workers;

 private:
  static constexpr std::uint64_t kLeft = 0xffffffff;         // tasks not taken
  static constexpr std::uint64_t kOver = kLeft + 1;          // the caller can return from run()
  static constexpr std::uint64_t kClosed = 2 * (kLeft + 1);  // the workers can leave

  struct Slot {
    std::condition_variable wake;
    bool asleep = false;
  };

  static bool ready(std::uint64_t ticket, int me) { return (ticket & (kLeft | (me == 0 ? kOver : kClosed))) != 0; }
  int wait_for_task(int me);
  int claim();
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
  int n_tasks_ = 0;
  int first_uninterruptible_ = 0;
  int n_phases_ = 0;
  const int* tasks_per_phase_ = nullptr;

  alignas(kLine) std::atomic<std::int64_t> unfinished_{0};
  std::atomic<bool> stopped_{false};

  alignas(kLine) std::atomic<int> n_asleep_{0};  // written with mutex_ held
  Pool* const pool_;
  std::mutex mutex_;
  std::vector<Slot> slots_;
};

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
    for (; task >= 0; task = claim()) finished += execute(task, me);
    if (unfinished_.fetch_sub(finished, std::memory_order_acq_rel) == finished) {
      task = open_next_phase(me);
      if (task < 0 && me == 0) return;  // the caller itself ended the run: nobody need tell it
    }
  }
}

// Takes a task of the open phase; -1 if none is left. The ticket may have come to its value again in a later phase
// between the load and the exchange: no harm, since the job is read after the exchange.
int Crew::claim() {
  std::uint64_t ticket = ticket_.load(std::memory_order_relaxed);
  while ((ticket & kLeft) != 0) {
    if (ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acquire, std::memory_order_relaxed)) {
      return n_tasks_ - static_cast<int>(ticket & kLeft);
    }
  }
  return -1;
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

// Called by the one thread that completed a phase. Returns task 0 of the next, which is the caller's own, or -1 at the
// end of the run. A phase of one task therefore concerns no other thread and is not even announced.
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
  n_tasks_ = tasks_per_phase_[phase_];
  unfinished_.store(n_tasks_, std::memory_order_relaxed);
  const int n_others = n_tasks_ - 1;
  if (n_others > 0) {
    const int size = static_cast<int>(slots_.size());
    ticket_.store(static_cast<std::uint64_t>(n_others), std::memory_order_seq_cst);
    const int n_awake = size - 1 - n_asleep_.load(std::memory_order_seq_cst);
    wake(0, size, n_others - n_awake);
  }
  return 0;
}

int Crew::wait_for_task(int me) {
  for (;;) {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    if (!ready(ticket, me)) {
      const auto start = Clock::now();
      const auto limit = pool_->crowded() ? kSpinCrowded : kSpin;
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
    const int task = claim();
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

namespace {

std::atomic<Pool*> g_pool{nullptr};  // never deleted: its workers may outlive every static object
Pool* g_inherited = nullptr;

// The workers do not exist in a forked child, and any mutex may be locked for ever there: leave everything as it is,
// and let the next Team make a new pool.
void forget_pool_after_fork() {
  Pool* old = g_pool.load(std::memory_order_relaxed);
  if (old == nullptr) return;
  old->inherited = g_inherited;
  g_inherited = old;
  g_pool.store(nullptr, std::memory_order_relaxed);
}

[[maybe_unused]] const int g_fork_handler = pthread_atfork(nullptr, nullptr, forget_pool_after_fork);

// While it lives, threads made by this one are born with all signals blocked that a process gets from outside, so that
// the application's own threads answer them.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t set;
    sigfillset(&set);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS, SIGPROF}) sigdelset(&set, fault);
    pthread_sigmask(SIG_BLOCK, &set, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

// No function-local static: a fork during its construction would lock the child out.
Pool& Pool::instance() {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  if (pool != nullptr) return *pool;
  auto fresh = std::make_unique<Pool>();
  if (g_pool.compare_exchange_strong(pool, fresh.get(), std::memory_order_acq_rel)) return *fresh.release();
  return *pool;
}

// Null where there is no worker to be had.
std::shared_ptr<Crew> Pool::lease(int n_threads) {
  const int n_usable = usable_threads();
  const std::lock_guard<std::mutex> lock(mutex_);
  usable.store(n_usable, std::memory_order_relaxed);
  largest_ = std::max(largest_, n_threads);
  const std::size_t n_wanted = static_cast<std::size_t>(n_threads - 1);
  const std::size_t n_most = static_cast<std::size_t>(std::max(largest_, n_usable) - 1);
  while (idle_.size() < n_wanted && workers_.size() < n_most && spawn()) {
  }
  const std::size_t n_taken = std::min(n_wanted, idle_.size());
  if (n_taken == 0) return nullptr;
  auto crew = std::make_shared<Crew>(this, static_cast<int>(n_taken) + 1);
  for (std::size_t i = 0; i < n_taken; ++i) {
    Worker* worker = idle_.back();  // the last one to work: its caches are the warmest
    idle_.pop_back();
    crew->workers.push_back(worker);
    worker->next = crew;
    worker->next_index = static_cast<int>(i) + 1;
    worker->wake.notify_one();
  }
  return crew;
}

// The workers are free at once, also those that have yet to notice that the crew is closed, or never arrived.
void Pool::give_back(const std::shared_ptr<Crew>& crew) {
  crew->close();
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto it = crew->workers.rbegin(); it != crew->workers.rend(); ++it) {
    if ((*it)->next == crew) (*it)->next.reset();
    idle_.push_back(*it);
  }
}

bool Pool::spawn() {
  try {
    idle_.reserve(workers_.size() + 1);  // so that giving back cannot fail
    workers_.push_back(std::make_unique<Worker>());
  } catch (const std::bad_alloc&) {
    return false;
  }
  Worker* worker = workers_.back().get();
  try {
    const SignalsBlocked blocked;
    std::thread([this, worker] { live(worker); }).detach();
  } catch (const std::exception&) {  // no more threads, or no memory for one: a smaller Team does the job
    workers_.pop_back();
    return false;
  }
  idle_.push_back(worker);
  return true;
}

void Pool::live(Worker* self) noexcept {
  for (;;) {
    int index = 0;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      self->wake.wait(lock, [self] { return self->next != nullptr; });
      self->current = std::move(self->next);
      self->next.reset();
      index = self->next_index;
    }
    self->current->work(index, -1);
    self->current.reset();
  }
}

}  // namespace detail

Team::Team(int n_threads) : pool_(&detail::Pool::instance()) {
  if (n_threads > 1) crew_ = pool_->lease(n_threads);
  if (crew_) size_ = static_cast<int>(crew_->workers.size()) + 1;
  pool_->busy.fetch_add(size_, std::memory_order_relaxed);
}

Team::~Team() {
  if (pool_ != detail::g_pool.load(std::memory_order_acquire)) return;  // in a forked child: the lease is the parent's
  pool_->busy.fetch_sub(size_, std::memory_order_relaxed);
  if (crew_) pool_->give_back(crew_);
}

int Team::size() const { return pool_ == detail::g_pool.load(std::memory_order_acquire) ? size_ : 1; }

bool Team::run(const int* tasks_per_phase, int n_phases, TaskFn fn, void* ctx, const std::atomic<bool>* stop,
               int first_uninterruptible) {
  if (size() > 1) return crew_->run(tasks_per_phase, n_phases, fn, ctx, stop, first_uninterruptible);
  int latest = n_phases;  // the phase of the task before this one; none yet
  for (int phase = 0; phase < n_phases; ++phase) {
    for (int task = 0; task < tasks_per_phase[phase]; ++task) {
      if (std::min(latest, phase) < first_uninterruptible && stop != nullptr && stop->load(std::memory_order_relaxed)) {
        return false;
      }
      fn(ctx, phase, task, 0);
      latest = phase;
    }
  }
  return true;
}

}  // namespace gesda
