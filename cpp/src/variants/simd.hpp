// Vectors of floats for one SIMD variant, as lane types of kernels/math.hpp.
//
// GCC and Clang vector extensions carry the arithmetic; intrinsics appear only where the extensions have no
// word for it: fused multiply-add, wide integer products and square roots. Everything lives in a namespace
// named after the variant, because this file is compiled several times with different instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include "kernels/math.hpp"

#if defined(__AVX512F__) || defined(GESDA_VARIANT_WIDE)  // wide: the shape of AVX-512 on AVX2, for the tests
#define GESDA_LANES 16
#define GESDA_PANEL 32
#define GESDA_TILE_ROWS 13
#elif defined(__AVX2__)
#define GESDA_LANES 8
#define GESDA_PANEL 16
#define GESDA_TILE_ROWS 6
#elif defined(__ARM_NEON)  // of aarch64; of 32 bits there are half the registers
#define GESDA_LANES 4
#define GESDA_PANEL 16
#if defined(__aarch64__)
#define GESDA_TILE_ROWS 6
#else
#define GESDA_TILE_ROWS 2
#endif
#else
#define GESDA_LANES 4
#define GESDA_PANEL 16
#define GESDA_TILE_ROWS 2
#endif

namespace gesda {
namespace GESDA_VARIANT {

constexpr int kLanes = GESDA_LANES;         // floats in a vector
constexpr int kPanel = GESDA_PANEL;         // columns in a panel
constexpr int kVectors = kPanel / kLanes;   // vectors in a panel's row
constexpr int kTileRows = GESDA_TILE_ROWS;  // rows whose accumulators fit into the registers

typedef float FloatVector __attribute__((vector_size(4 * kLanes)));
typedef std::uint32_t WordVector __attribute__((vector_size(4 * kLanes)));
typedef std::int32_t MaskVector __attribute__((vector_size(4 * kLanes)));

struct Mask {
  MaskVector v;
};
struct U {
  WordVector v;
  U() = default;
  GESDA_FN U(WordVector x) : v(x) {}
  GESDA_FN explicit U(u32 x) : v(WordVector{} + x) {}
};
struct F {
  FloatVector v;
  F() = default;
  GESDA_FN F(FloatVector x) : v(x) {}
  GESDA_FN explicit F(float x) : v(x - FloatVector{}) {}  // x - 0 is x for every x, x + 0 is not
};

GESDA_FN F operator+(F a, F b) { return a.v + b.v; }
GESDA_FN F operator-(F a, F b) { return a.v - b.v; }
GESDA_FN F operator*(F a, F b) { return a.v * b.v; }
GESDA_FN F operator/(F a, F b) { return a.v / b.v; }
GESDA_FN Mask operator<(F a, F b) { return {a.v < b.v}; }
GESDA_FN Mask operator>(F a, F b) { return {a.v > b.v}; }
GESDA_FN Mask operator&(Mask a, Mask b) { return {a.v & b.v}; }
GESDA_FN Mask operator|(Mask a, Mask b) { return {a.v | b.v}; }
GESDA_FN U operator+(U a, U b) { return a.v + b.v; }
GESDA_FN U operator-(U a, U b) { return a.v - b.v; }
GESDA_FN U operator^(U a, U b) { return a.v ^ b.v; }
GESDA_FN U operator&(U a, U b) { return a.v & b.v; }
GESDA_FN U operator|(U a, U b) { return a.v | b.v; }
GESDA_FN U operator<<(U a, int n) { return a.v << n; }
GESDA_FN U operator>>(U a, int n) { return a.v >> n; }
GESDA_FN F pick(Mask m, F a, F b) { return m.v ? a.v : b.v; }
GESDA_FN U bits(F a) { return (WordVector)a.v; }
GESDA_FN F floats(U a) { return (FloatVector)a.v; }
GESDA_FN F to_float(U a) { return __builtin_convertvector((MaskVector)a.v, FloatVector); }
GESDA_FN Mask less(U a, U b) { return {(MaskVector)a.v < (MaskVector)b.v}; }  // both below 2^31

GESDA_FN F load(const float* p) { return *reinterpret_cast<const FloatVector*>(p); }  // aligned
GESDA_FN void store(float* p, F a) { *reinterpret_cast<FloatVector*>(p) = a.v; }      // aligned
GESDA_FN F load_any(const float* p) {
  F a;
  __builtin_memcpy(&a.v, p, sizeof a.v);
  return a;
}
GESDA_FN U load_words(const u32* p) {
  U a;
  __builtin_memcpy(&a.v, p, sizeof a.v);
  return a;
}
GESDA_FN U lane_numbers() {
  U a;
  for (int i = 0; i < kLanes; ++i) a.v[i] = static_cast<u32>(i);
  return a;
}
GESDA_FN double sum(F a) {
  double total = 0.0;
  for (int i = 0; i < kLanes; ++i) total += static_cast<double>(a.v[i]);
  return total;
}
// Mask with the first n lanes set.
GESDA_FN Mask first_lanes(int n) { return {(MaskVector)lane_numbers().v < MaskVector{} + n}; }
// Mask from the low bits of a word, one a lane.
GESDA_FN Mask lanes_of_bits(u32 word) {
  const WordVector one = WordVector{} + 1u;
  return {(MaskVector)(((WordVector{} + word) >> lane_numbers().v) & one) != MaskVector{}};
}

#if defined(__AVX512F__)
GESDA_FN F mad(F a, F b, F c) { return (FloatVector)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v); }
GESDA_FN F root(F a) { return (FloatVector)_mm512_sqrt_ps((__m512)a.v); }
GESDA_FN u32 bits_of_lanes(Mask m) { return _mm512_movepi32_mask((__m512i)m.v); }
GESDA_FN void mul_wide(U a, U b, U& high, U& low) {
  const __m512i x = (__m512i)a.v, y = (__m512i)b.v;
  const __m512i even = _mm512_mul_epu32(x, y);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), _mm512_srli_epi64(y, 32));
  high.v = (WordVector)_mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
  low = a.v * b.v;
}
#elif defined(__AVX2__)
#if GESDA_LANES == 8
GESDA_FN F mad(F a, F b, F c) { return (FloatVector)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v); }
GESDA_FN F root(F a) { return (FloatVector)_mm256_sqrt_ps((__m256)a.v); }
GESDA_FN u32 bits_of_lanes(Mask m) { return static_cast<u32>(_mm256_movemask_ps((__m256)m.v)); }
GESDA_FN void mul_wide(U a, U b, U& high, U& low) {
  const __m256i x = (__m256i)a.v, y = (__m256i)b.v;
  const __m256i even = _mm256_mul_epu32(x, y);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(y, 32));
  high.v = (WordVector)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
  low.v = (WordVector)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
}
#else  // the AVX-512 shape on AVX2: two halves
union Halves {
  FloatVector v;
  __m256 half[2];
};
GESDA_FN F mad(F a, F b, F c) {
  Halves x{a.v}, y{b.v}, z{c.v};
  for (int i = 0; i < 2; ++i) z.half[i] = _mm256_fmadd_ps(x.half[i], y.half[i], z.half[i]);
  return z.v;
}
GESDA_FN F root(F a) {
  Halves x{a.v};
  for (int i = 0; i < 2; ++i) x.half[i] = _mm256_sqrt_ps(x.half[i]);
  return x.v;
}
#define GESDA_PLAIN_MUL_WIDE
#endif
#elif defined(__ARM_NEON)
GESDA_FN F mad(F a, F b, F c) { return (FloatVector)vfmaq_f32((float32x4_t)c.v, (float32x4_t)a.v, (float32x4_t)b.v); }
#if defined(__aarch64__)
GESDA_FN F root(F a) { return (FloatVector)vsqrtq_f32((float32x4_t)a.v); }
#else
#define GESDA_PLAIN_ROOT
#endif
#define GESDA_PLAIN_MUL_WIDE
#else  // no fused multiply-add
GESDA_FN F mad(F a, F b, F c) { return a.v * b.v + c.v; }
#if defined(__x86_64__)
GESDA_FN F root(F a) { return (FloatVector)_mm_sqrt_ps((__m128)a.v); }
#else
#define GESDA_PLAIN_ROOT
#endif
#define GESDA_PLAIN_MUL_WIDE
#endif

#if defined(GESDA_PLAIN_ROOT)
GESDA_FN F root(F a) {
  for (int i = 0; i < kLanes; ++i) a.v[i] = __builtin_sqrtf(a.v[i]);
  return a;
}
#endif

#if defined(GESDA_PLAIN_MUL_WIDE)
GESDA_FN void mul_wide(U a, U b, U& high, U& low) {
  typedef std::uint64_t LongVector __attribute__((vector_size(8 * kLanes)));
  const LongVector product = __builtin_convertvector(a.v, LongVector) * __builtin_convertvector(b.v, LongVector);
  high = U(__builtin_convertvector(product >> 32, WordVector));
  low = U(__builtin_convertvector(product, WordVector));
}
GESDA_FN u32 bits_of_lanes(Mask m) {
  u32 word = 0;
  for (int i = 0; i < kLanes; ++i) word |= static_cast<u32>(m.v[i] & 1) << i;
  return word;
}
#endif

}  // namespace GESDA_VARIANT
}  // namespace gesda
