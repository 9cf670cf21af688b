#include "emulator.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <utility>

#if defined(__has_feature)
#define EMULATOR_HAS_FEATURE(name) __has_feature(name)
#else
#define EMULATOR_HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || EMULATOR_HAS_FEATURE(address_sanitizer)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define EMULATOR_ASAN 1
#else
#define EMULATOR_ASAN 0
#endif

// ---- switching stacks: the registers that a call keeps go to the old stack, and come from the new one ----
extern "C" void emulator_switch(void** save, void* to);
#if defined(__x86_64__)
__asm__(
    ".text\n.globl emulator_switch\n.type emulator_switch,@function\nemulator_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n  ret\n"
    ".size emulator_switch, .-emulator_switch\n");
#elif defined(__aarch64__)
__asm__(
    ".text\n.globl emulator_switch\n.type emulator_switch,%function\nemulator_switch:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n  ret\n"
    ".size emulator_switch, .-emulator_switch\n");
#else
#error "the emulator knows how to switch stacks on x86-64 and aarch64"
#endif

namespace emulator {

namespace {

constexpr std::size_t kStack = std::size_t{64} << 10;
constexpr int kMostResident = 4;
constexpr int kMostIdleSweeps = 10000;  // in which threads only waited for other blocks

// Stacks for all resident threads; the system gives memory only for those that are used.
class Stacks {
 public:
  explicit Stacks(std::size_t count) : bytes_(count * kStack) {
    memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
  }
  ~Stacks() { munmap(memory_, bytes_); }
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  void* at(std::size_t i) const { return static_cast<unsigned char*>(memory_) + i * kStack; }

 private:
  std::size_t bytes_;
  void* memory_ = nullptr;
};

void land(Copy& copy) {
  if (!copy.reads_now && copy.from != nullptr) std::memcpy(copy.value, copy.from, copy.bytes);
  std::memcpy(copy.to, copy.value, copy.bytes);
}

}  // namespace

class Scheduler {
 public:
  Scheduler(const Dimensions& dimensions, bool cooperative, std::uint64_t seed, const std::function<void()>& kernel)
      : dimensions_(dimensions),
        kernel_(kernel),
        random_(seed),
        most_resident_(cooperative ? dimensions.blocks
                                   : std::min(dimensions.blocks, 1 + static_cast<int>(seed % kMostResident))),
        stacks_(static_cast<std::size_t>(most_resident_) * static_cast<std::size_t>(dimensions.threads)) {}

  void run() {
    std::vector<int> waiting(static_cast<std::size_t>(dimensions_.blocks));
    for (std::size_t i = 0; i < waiting.size(); ++i) waiting[i] = static_cast<int>(i);
    std::shuffle(waiting.begin(), waiting.end(), random_);
    std::vector<int> free_slots;
    for (int i = most_resident_; i-- > 0;) free_slots.push_back(i);
    std::vector<std::pair<int, std::unique_ptr<Block>>> resident;  // with their slots
    int idle_sweeps = 0;
    while (!waiting.empty() || !resident.empty()) {
      while (!waiting.empty() && !free_slots.empty()) {
        resident.emplace_back(free_slots.back(), make_block(waiting.back(), free_slots.back()));
        free_slots.pop_back();
        waiting.pop_back();
      }
      idle_sweeps = sweep(resident) ? 0 : idle_sweeps + 1;
      if (idle_sweeps > kMostIdleSweeps) throw std::runtime_error("blocks wait for each other for ever");
      for (std::size_t i = resident.size(); i-- > 0;) {
        if (resident[i].second->done < dimensions_.threads) continue;
        free_slots.push_back(resident[i].first);
        resident.erase(resident.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
  }

  // ---- on a thread's own stack ----
  void wait(State state, Site site) {
    current_->state = state;
    current_->site = site;
    leave();
  }
  [[noreturn]] void fail(const char* what, Site one = {}, Site other = {}) {
    error_ = {what, one, other};
    leave();
    std::abort();  // nobody resumes a thread of a failed launch
  }
  void enter_warp(Site site, const void* input, void* output, Exchange exchange) {
    Warp& warp = current_->block->warps[static_cast<std::size_t>(current_->warp())];
    const std::size_t first = static_cast<std::size_t>(current_->warp() * kWarp);
    warp.inputs[current_->lane()] = input;
    warp.outputs[current_->lane()] = output;
    if (++warp.arrived < kWarp) return wait(State::kInWarp, site);
    warp.arrived = 0;
    exchange(warp.inputs, warp.outputs);
    for (std::size_t i = first; i < first + kWarp; ++i) {
      Thread& other = current_->block->threads[i];
      if (&other == current_) continue;
      if (!(other.site == site)) fail("a warp diverges:", other.site, site);
      other.state = State::kReady;
    }
  }
  void enter_barrier(Site site) {
    Block& block = *current_->block;
    if (block.done > 0) fail("threads have ended before the barrier", site);
    if (++block.at_barrier < dimensions_.threads) return wait(State::kAtBarrier, site);
    block.at_barrier = 0;
    for (Thread& other : block.threads) {
      if (&other == current_) continue;
      if (!(other.site == site)) fail("a barrier diverges:", other.site, site);
      other.state = State::kReady;
    }
  }
  Thread& current() { return *current_; }
  const Dimensions& dimensions() const { return dimensions_; }
  bool toss() { return (random_() >> 7 & 1u) != 0; }

 private:
  std::unique_ptr<Block> make_block(int index, int slot) {
    auto block = std::make_unique<Block>();
    block->index = index;
    block->shared.reset(new unsigned char[dimensions_.shared_bytes]);
    std::memset(block->shared.get(), 0xFF, dimensions_.shared_bytes);  // NaN
    block->warps.resize(static_cast<std::size_t>((dimensions_.threads + kWarp - 1) / kWarp));
    block->threads.resize(static_cast<std::size_t>(dimensions_.threads));
    for (std::size_t i = 0; i < block->threads.size(); ++i) {
      Thread& thread = block->threads[i];
      thread.index = static_cast<int>(i);
      thread.block = block.get();
      thread.stack = stacks_.at(static_cast<std::size_t>(slot) * block->threads.size() + i);
      prepare(thread);
    }
    return block;
  }

  // The first switch to a thread returns into `begin`.
  void prepare(Thread& thread) {
#if EMULATOR_ASAN
    __asan_unpoison_memory_region(thread.stack, kStack);  // of what ran on it before
#endif
    unsigned char* top = static_cast<unsigned char*>(thread.stack) + kStack;
#if defined(__x86_64__)
    void** stack = reinterpret_cast<void**>(top);
    *--stack = nullptr;  // keeps the stack as after a call
    *--stack = reinterpret_cast<void*>(&Scheduler::begin);
    for (int i = 0; i < 6; ++i) *--stack = nullptr;
    thread.stack_pointer = stack;
#else
    void** stack = reinterpret_cast<void**>(top - 160);
    std::memset(stack, 0, 160);
    stack[11] = reinterpret_cast<void*>(&Scheduler::begin);  // x30
    thread.stack_pointer = stack;
#endif
  }

  // Resumes all threads that are ready, in random order. False if there was none but those that wait for other blocks.
  bool sweep(std::vector<std::pair<int, std::unique_ptr<Block>>>& resident) {
    std::vector<Thread*> ready;
    bool progress = false;
    for (auto& [slot, block] : resident)
      for (Thread& thread : block->threads) {
        if (thread.state == State::kReady) progress = true;
        if (thread.state == State::kReady || thread.state == State::kRelaxed) ready.push_back(&thread);
      }
    if (ready.empty()) throw std::runtime_error("threads wait for ever: " + where(resident));
    std::shuffle(ready.begin(), ready.end(), random_);
    for (Thread* thread : ready) {
      thread->state = State::kReady;
      resume(*thread);
      if (error_.what != nullptr) throw std::runtime_error(error_.what + error_.one.text() + error_.other.text());
    }
    return progress;
  }

  std::string where(const std::vector<std::pair<int, std::unique_ptr<Block>>>& resident) const {
    for (const auto& [slot, block] : resident)
      for (const Thread& thread : block->threads)
        if (thread.state == State::kAtBarrier || thread.state == State::kInWarp) {
          const char* kind = thread.state == State::kAtBarrier ? "barrier" : "warp instruction";
          return std::string("part of the threads do not reach the ") + kind + thread.site.text();
        }
    return "of unknown cause";
  }

  void resume(Thread& thread) {
    current_ = &thread;
    Scheduler* const outer = std::exchange(running, this);
#if EMULATOR_ASAN
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, thread.stack, kStack);
#endif
    emulator_switch(&stack_pointer_, thread.stack_pointer);
#if EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
    running = outer;
  }

  void leave() {
    Thread& thread = *current_;
#if EMULATOR_ASAN
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(thread.state == State::kDone ? nullptr : &fake, bottom_, size_);
#endif
    emulator_switch(&thread.stack_pointer, stack_pointer_);
#if EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }

  static void begin() {
    Scheduler& scheduler = *running;
#if EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler.bottom_, &scheduler.size_);
#endif
    scheduler.kernel_();
    Thread& thread = *scheduler.current_;
    if (!thread.open.empty() || !thread.groups.empty())
      scheduler.fail("a thread has ended with copies that it has not waited for");
    if (thread.block->at_barrier > 0) scheduler.fail("a thread has ended while others wait at a barrier");
    ++thread.block->done;
    thread.state = State::kDone;
    scheduler.leave();
    std::abort();
  }

 public:
  static thread_local Scheduler* running;

 private:
  const Dimensions dimensions_;
  const std::function<void()>& kernel_;
  std::mt19937_64 random_;
  const int most_resident_;
  Stacks stacks_;
  Thread* current_ = nullptr;
  void* stack_pointer_ = nullptr;
  struct {
    const char* what = nullptr;
    Site one, other;
  } error_;
#if EMULATOR_ASAN
  const void* bottom_ = nullptr;
  std::size_t size_ = 0;
#endif
};

thread_local Scheduler* Scheduler::running = nullptr;

Thread& self() { return Scheduler::running->current(); }
const Dimensions& dimensions() { return Scheduler::running->dimensions(); }
void fail(const char* what, Site one, Site other) { Scheduler::running->fail(what, one, other); }
void sync_block(Site site) { Scheduler::running->enter_barrier(site); }
void in_warp(Site site, const void* input, void* output, Exchange exchange) {
  Scheduler::running->enter_warp(site, input, output, exchange);
}
void relax() { Scheduler::running->wait(State::kRelaxed, Site{}); }

void copy_async(void* to, const void* from) {
  Copy copy{to, from, 16, false, {}};
  if (reinterpret_cast<std::uintptr_t>(to) % 16 != 0 || reinterpret_cast<std::uintptr_t>(from) % 16 != 0)
    fail("an asynchronous copy is not aligned to 16 bytes");
  Scheduler& scheduler = *Scheduler::running;
  if (scheduler.toss()) {
    copy.reads_now = true;
    if (from != nullptr) std::memcpy(copy.value, from, copy.bytes);
  }
  if (copy.reads_now && scheduler.toss()) {
    std::memcpy(to, copy.value, copy.bytes);
  } else {
    std::memset(to, 0xFF, copy.bytes);
  }
  self().open.push_back(copy);
}
void commit_copies() {
  Thread& thread = self();
  thread.groups.push_back(std::move(thread.open));
  thread.open.clear();
}
void wait_for_copies(int groups_left) {
  Thread& thread = self();
  const std::size_t left = static_cast<std::size_t>(groups_left);
  while (thread.groups.size() > left) {
    for (Copy& copy : thread.groups.front()) land(copy);
    thread.groups.erase(thread.groups.begin());
  }
}

void launch(const Dimensions& dimensions, bool cooperative, std::uint64_t seed, const std::function<void()>& kernel) {
  Scheduler(dimensions, cooperative, seed, kernel).run();
}

}  // namespace emulator
