// The device of kernels/device.cuh on the emulator.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "emulator.hpp"

#define GESDA_DEVICE inline
#define GESDA_UNROLL
#define GESDA_UNROLL_BY(times)
#define GESDA_KEEP_LOOP
#define GESDA_KERNEL(threads, blocks_per_sm) inline void
// Whoever waits says where, so that threads that wait in different places are found out.
#define EMULATOR_HERE int line = __builtin_LINE(), const char *file = __builtin_FILE()

namespace gesda {

inline int thread_index() { return emulator::self().index; }
inline int block_index() { return emulator::self().block->index; }
inline int block_count() { return emulator::dimensions().blocks; }
inline void* shared_memory() { return emulator::self().block->shared.get(); }

inline void sync_block(EMULATOR_HERE) { emulator::sync_block({file, line}); }
inline void sync_warp(EMULATOR_HERE) {
  emulator::in_warp({file, line}, nullptr, nullptr, [](const void* const*, void* const*) {});
}
inline float shuffle_xor(float value, int mask, EMULATOR_HERE) {
  struct Input {
    float value;
    int mask;
  } input{value, mask};
  float result;
  emulator::in_warp({file, line}, &input, &result, [](const void* const* inputs, void* const* outputs) {
    for (int lane = 0; lane < emulator::kWarp; ++lane) {
      const int other = lane ^ static_cast<const Input*>(inputs[lane])->mask;
      *static_cast<float*>(outputs[lane]) = static_cast<const Input*>(inputs[other % emulator::kWarp])->value;
    }
  });
  return result;
}

// One thread runs at a time, so that all see the same memory.
inline float load_shared_by_blocks(const float* p) { return *p; }
inline void publish() {}
inline unsigned add_atomic(unsigned* p, unsigned value) {
  const unsigned before = *p;
  *p += value;
  return before;
}
inline unsigned load_acquire(const unsigned* p) {
  emulator::relax();  // what is read in a loop may need another block to run
  return *p;
}

inline void copy_async(void* shared, const void* global, bool real) {
  emulator::copy_async(shared, real ? global : nullptr);
}
inline void commit_copies() { emulator::commit_copies(); }
template <int kLeft>
inline void wait_for_copies() {
  emulator::wait_for_copies(kLeft);
}

// ---- tensor cores ----
inline float word_as_float(unsigned word) {
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}
inline unsigned float_as_word(float value) {
  unsigned word;
  std::memcpy(&word, &value, sizeof word);
  return word;
}
// Half a word as a number.
inline float half_as_float(unsigned bits) {
  const unsigned exponent = bits >> 10 & 31u, fraction = bits & 1023u, sign = (bits & 0x8000u) << 16;
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(fraction), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  return word_as_float(sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | fraction << 13);
}
// To the nearest half-precision number, ties to even.
inline unsigned float_as_half(float value) {
  const unsigned word = float_as_word(value), sign = word >> 16 & 0x8000u;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7E00u;
  if (magnitude >= 65520.0f) return sign | 0x7C00u;  // halfway to what would follow the greatest
  if (magnitude < 6.103515625e-5f)                   // below the normal numbers: multiples of 2^-24
    return sign | static_cast<unsigned>(std::nearbyint(std::ldexp(magnitude, 24)));
  const unsigned rounded = (word & 0x7FFFFFFFu) + 0xFFFu + (word >> 13 & 1u);
  return sign | ((rounded >> 13) - (112u << 10));
}

// sums += a b of a warp's fragments, exact products added in float32: hardware's order of additions is not known.
template <int kDepth, class A, class B>
void multiply_fragments(const void* const* inputs, void* const* outputs, A a, B b) {
  for (int lane = 0; lane < emulator::kWarp; ++lane) {
    float* sums = static_cast<float*>(outputs[lane]);
    const int row = lane / 4, column = lane % 4 * 2;
    for (int i = 0; i < 4; ++i)
      for (int k = 0; k < kDepth; ++k) sums[i] += a(inputs, row + i / 2 * 8, k) * b(inputs, k, column + i % 2);
  }
}
inline void multiply_tf32(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2], EMULATOR_HERE) {
  struct Input {
    unsigned a[4], b[2];
  } input{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  emulator::in_warp({file, line}, &input, sums, [](const void* const* inputs, void* const* outputs) {
    const auto at = [](const void* const* all, int lane) { return static_cast<const Input*>(all[lane]); };
    // The tensor core does not look at the last 13 bits.
    const auto value = [](unsigned word) { return word_as_float(word & 0xFFFFE000u); };
    multiply_fragments<8>(
        inputs, outputs,
        [&](const void* const* all, int row, int k) {
          return value(at(all, row % 8 * 4 + k % 4)->a[row / 8 + k / 4 * 2]);
        },
        [&](const void* const* all, int k, int column) { return value(at(all, column * 4 + k % 4)->b[k / 4]); });
  });
}
inline void multiply_f16(float (&sums)[4], const unsigned (&a)[2], unsigned b, EMULATOR_HERE) {
  struct Input {
    unsigned a[2], b;
  } input{{a[0], a[1]}, b};
  emulator::in_warp({file, line}, &input, sums, [](const void* const* inputs, void* const* outputs) {
    const auto at = [](const void* const* all, int lane) { return static_cast<const Input*>(all[lane]); };
    const auto value = [](unsigned word, int k) { return half_as_float(word >> k % 2 * 16 & 0xFFFFu); };
    multiply_fragments<8>(
        inputs, outputs,
        [&](const void* const* all, int row, int k) { return value(at(all, row % 8 * 4 + k / 2)->a[row / 8], k); },
        [&](const void* const* all, int k, int column) { return value(at(all, column * 4 + k / 2)->b, k); });
  });
}
inline unsigned to_tf32(float x) {
  const unsigned word = float_as_word(x);
  return std::isnan(x) ? word : (word + 0x1000u) & 0xFFFFE000u;
}
inline float from_f16(unsigned short half) { return half_as_float(half); }
inline unsigned pack_f16(float low, float high) { return float_as_half(low) | float_as_half(high) << 16; }

}  // namespace gesda
