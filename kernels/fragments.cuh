// Fragments: what a lane holds of the operands of a product of 16 x 8, eight deep, in one of three arithmetics.
#pragma once

#include "device.cuh"
#include "math.hpp"

namespace gesda {

enum Arithmetic : int { kStrict = 0, kTf32 = 1, kHalf = 2 };

template <Arithmetic>
struct FragmentA;
template <Arithmetic>
struct FragmentB;
template <>
struct FragmentA<kStrict> {
  float of[2][8];  // rows g and g + 8
};
template <>
struct FragmentB<kStrict> {
  float of[2][8];  // columns 2t and 2t + 1
};
template <>
struct FragmentA<kTf32> {
  unsigned of[4];
};
template <>
struct FragmentB<kTf32> {
  unsigned of[2];
};
template <>
struct FragmentA<kHalf> {
  unsigned of[2];
};
template <>
struct FragmentB<kHalf> {
  unsigned of;
};

// From a(i, k), i in [0, 16), k in [0, 8).
template <Arithmetic kArithmetic, class Load>
GESDA_DEVICE FragmentA<kArithmetic> fragment_a(const Load& a) {
  const int lane = thread_index() % 32, g = lane / 4, t = lane % 4;
  FragmentA<kArithmetic> f;
  if constexpr (kArithmetic == kStrict) {
    GESDA_UNROLL
    for (int i = 0; i < 16; ++i) f.of[i / 8][i % 8] = a(g + i / 8 * 8, i % 8);
  } else if constexpr (kArithmetic == kTf32) {
    GESDA_UNROLL
    for (int i = 0; i < 4; ++i) f.of[i] = to_tf32(a(g + i % 2 * 8, t + i / 2 * 4));
  } else {
    GESDA_UNROLL
    for (int i = 0; i < 2; ++i) f.of[i] = pack_f16(a(g + i * 8, 2 * t), a(g + i * 8, 2 * t + 1));
  }
  return f;
}
// From b(k, j), j in [0, 8).
template <Arithmetic kArithmetic, class Load>
GESDA_DEVICE FragmentB<kArithmetic> fragment_b(const Load& b) {
  const int lane = thread_index() % 32, g = lane / 4, t = lane % 4;
  FragmentB<kArithmetic> f;
  if constexpr (kArithmetic == kStrict) {
    GESDA_UNROLL
    for (int i = 0; i < 16; ++i) f.of[i / 8][i % 8] = b(i % 8, 2 * t + i / 8);
  } else if constexpr (kArithmetic == kTf32) {
    GESDA_UNROLL
    for (int i = 0; i < 2; ++i) f.of[i] = to_tf32(b(t + i * 4, g));
  } else {
    f.of = pack_f16(b(2 * t, g), b(2 * t + 1, g));
  }
  return f;
}

// sums(g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1) += a b
GESDA_DEVICE void multiply(float (&sums)[4], const FragmentA<kStrict>& a, const FragmentB<kStrict>& b) {
  GESDA_UNROLL
  for (int k = 0; k < 8; ++k) {
    GESDA_UNROLL
    for (int i = 0; i < 4; ++i) sums[i] = mad(a.of[i / 2][k], b.of[i % 2][k], sums[i]);
  }
}
GESDA_DEVICE void multiply(float (&sums)[4], const FragmentA<kTf32>& a, const FragmentB<kTf32>& b) {
  multiply_tf32(sums, a.of, b.of);
}
GESDA_DEVICE void multiply(float (&sums)[4], const FragmentA<kHalf>& a, const FragmentB<kHalf>& b) {
  multiply_f16(sums, a.of, b.of);
}

}  // namespace gesda
