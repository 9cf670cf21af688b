// Runs CUDA kernels on a CPU, so that they can be tested where there is no GPU.
//
// Each CUDA thread is a fiber with a stack of its own. A scheduler resumes the fibers of the resident blocks in random
// order, and a fiber runs until it waits: for its block, for its warp, or for other blocks (`relax`). What hardware
// leaves open is left to chance, by a seed:
//
//   which blocks are resident together, in which order blocks and threads run
//   when an asynchronous copy reads its source and lands: at once, or not before somebody waits for it
//   what shared memory holds at the start: NaN
//
// A kernel that depends on any of that gives other results for other seeds, or NaN. Reported as errors: a barrier or a
// warp instruction that part of the threads never reach or reach elsewhere, misaligned copies, copies nobody waits for,
// blocks that wait for each other for ever. Accesses out of bounds are AddressSanitizer's to find: every array and
// every block's shared memory is an allocation of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace emulator {

constexpr int kWarp = 32;

struct Dimensions {
  int blocks, threads;
  std::size_t shared_bytes;
};

// A place in the source.
struct Site {
  const char* file = "";
  int line = 0;
  bool operator==(const Site& other) const { return line == other.line && std::strcmp(file, other.file) == 0; }
  std::string text() const { return line == 0 ? "" : " " + std::string(file) + ":" + std::to_string(line); }
};

struct Block;

struct Copy {
  void* to;
  const void* from;
  std::size_t bytes;
  bool reads_now;
  alignas(16) unsigned char value[16];
};

enum class State { kReady, kAtBarrier, kInWarp, kRelaxed, kDone };

struct Thread {
  int index = 0;
  Block* block = nullptr;
  State state = State::kReady;
  Site site;  // where it waits
  void* stack = nullptr;
  void* stack_pointer = nullptr;
  std::vector<std::vector<Copy>> groups;  // committed, not waited for
  std::vector<Copy> open;                 // not committed

  int lane() const { return index % kWarp; }
  int warp() const { return index / kWarp; }
};

struct Warp {
  const void* inputs[kWarp];
  void* outputs[kWarp];
  int arrived = 0;
};

struct Block {
  int index = 0, at_barrier = 0, done = 0;
  std::unique_ptr<unsigned char[]> shared;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
};

// The running thread, and the launch that it belongs to.
Thread& self();
const Dimensions& dimensions();
// Ends the launch with an error; does not come back, so nothing on the caller's stack is destroyed.
[[noreturn]] void fail(const char* what, Site one = {}, Site other = {});

// ---- what a kernel waits for ----
void sync_block(Site site);
// All 32 threads of a warp come here with a pointer to what they bring and one to where their result goes; the last one
// computes for all, by inputs[lane] and outputs[lane].
using Exchange = void (*)(const void* const* inputs, void* const* outputs);
void in_warp(Site site, const void* input, void* output, Exchange exchange);
// Lets others run: in a loop that waits for another block.
void relax();

// ---- asynchronous copies of 16 bytes from global to shared memory ----
void copy_async(void* to, const void* from);  // from null: zeros
void commit_copies();
void wait_for_copies(int groups_left);

// Runs `kernel` in every thread. All blocks are resident at once if `cooperative`, else one to four at a time. Throws
// std::runtime_error with what went wrong.
void launch(const Dimensions& dimensions, bool cooperative, std::uint64_t seed, const std::function<void()>& kernel);

}  // namespace emulator
