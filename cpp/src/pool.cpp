#include "gesda/pool.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "cpp/src/crew.hpp"

namespace gesda {

namespace detail {

struct Worker {
  std::condition_variable wake;  // with Pool::mutex
  std::shared_ptr<Lease> next;   // where to go next; guarded by Pool::mutex
  int next_index = 0;
  // The worker's own; here and not on its stack so that a forked child still reaches it.
  std::shared_ptr<Lease> current;
};

// A crew and the workers in it.
struct Lease {
  Lease(const Occupancy& occupancy, int size) : crew(occupancy, size) {}
  Crew crew;
  std::vector<Worker*> workers;
};

class Pool {
 public:
  static Pool& instance();
  std::shared_ptr<Lease> lease(int n_threads);
  void give_back(const std::shared_ptr<Lease>& lease);

  Occupancy occupancy;
  Pool* inherited = nullptr;  // a forked child's: the parent's pool. Kept reachable, never touched.

 private:
  bool spawn();
  void live(Worker* self) noexcept;

  std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<Worker*> idle_;
  int largest_ = 1;
};

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
std::shared_ptr<Lease> Pool::lease(int n_threads) {
  const int n_usable = usable_threads();
  const std::lock_guard<std::mutex> lock(mutex_);
  occupancy.usable.store(n_usable, std::memory_order_relaxed);
  largest_ = std::max(largest_, n_threads);
  const std::size_t n_wanted = static_cast<std::size_t>(n_threads - 1);
  const std::size_t n_most = static_cast<std::size_t>(std::max(largest_, n_usable) - 1);
  while (idle_.size() < n_wanted && workers_.size() < n_most && spawn()) {
  }
  const std::size_t n_taken = std::min(n_wanted, idle_.size());
  if (n_taken == 0) return nullptr;
  auto fresh = std::make_shared<Lease>(occupancy, static_cast<int>(n_taken) + 1);
  for (std::size_t i = 0; i < n_taken; ++i) {
    Worker* worker = idle_.back();  // the last one to work: its caches are the warmest
    idle_.pop_back();
    fresh->workers.push_back(worker);
    worker->next = fresh;
    worker->next_index = static_cast<int>(i) + 1;
    worker->wake.notify_one();
  }
  return fresh;
}

// The workers are free at once, also those that have yet to notice that the crew is closed, or never arrived.
void Pool::give_back(const std::shared_ptr<Lease>& lease) {
  lease->crew.close();
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto it = lease->workers.rbegin(); it != lease->workers.rend(); ++it) {
    if ((*it)->next == lease) (*it)->next.reset();
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
    self->current->crew.work(index, -1);
    self->current.reset();
  }
}

}  // namespace detail

Team::Team(int n_threads) : pool_(&detail::Pool::instance()) {
  if (n_threads > 1) lease_ = pool_->lease(n_threads);
  if (lease_) size_ = static_cast<int>(lease_->workers.size()) + 1;
  pool_->occupancy.busy.fetch_add(size_, std::memory_order_relaxed);
}

Team::~Team() {
  if (pool_ != detail::g_pool.load(std::memory_order_acquire)) return;  // in a forked child: the lease is the parent's
  pool_->occupancy.busy.fetch_sub(size_, std::memory_order_relaxed);
  if (lease_) pool_->give_back(lease_);
}

int Team::size() const { return pool_ == detail::g_pool.load(std::memory_order_acquire) ? size_ : 1; }

bool Team::run(const int* tasks_per_phase, int n_phases, TaskFn fn, void* ctx, const std::atomic<bool>* stop,
               int first_uninterruptible) {
  if (size() > 1) return lease_->crew.run(tasks_per_phase, n_phases, fn, ctx, stop, first_uninterruptible);
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
