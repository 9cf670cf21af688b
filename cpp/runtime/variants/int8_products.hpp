// Products with weights of 8 bits. A row is rounded to whole numbers of up to 16 bits, as many as let the sums of all
// products fit 32 bits; sums are exact, so rounding the row and the weights is all that is lost.
#pragma once

#include "cpp/runtime/variants/float_products.hpp"

namespace gesda {
namespace GESDA_VARIANT {

constexpr int kMostWeight = 127;
typedef std::int32_t IntVector __attribute__((vector_size(4 * kLanes)));

// The values, times their scales if there are any, from i on; zeros past the n-th.
GESDA_FN F scaled_values(const float* values, const float* scales, int i, int n) {
  F value(0.0f);
  if (i + kLanes <= n) {
    value = load_any(values + i);
  } else {
    for (int lane = 0; lane < n - i; ++lane) value.v[lane] = values[i + lane];
  }
  return scales == nullptr ? value : value * load(scales + i);
}

// codes[0, n) = values * scales * factor, rounded; zeros up to a whole panel. Returns what undoes the factor.
inline float round_row(const float* values, const float* scales, int n, std::int16_t* codes) {
  F sizes(0.0f);
  for (int i = 0; i < n; i += kLanes) {
    const F size = magnitude(scaled_values(values, scales, i, n));
    sizes = pick(size < sizes, sizes, size);  // NaN stays for good: of two numbers one is less
  }
  float most = 0.0f;
  for (int lane = 0; lane < kLanes; ++lane) most = sizes.v[lane] > most ? sizes.v[lane] : most;
  const int room = 0x7FFFFFFF / (kMostWeight * n);
  const float top = static_cast<float>(room < 32767 ? room : 32767);
  // A row of subnormal numbers is a row of zeros: their reciprocal would be infinite. One that has overflowed has no
  // whole numbers; what comes of it is NaN.
  const bool has_codes = most > 1e-30f && most <= 3.4e38f;
  const F factor(has_codes ? top / most : 0.0f);
  typedef std::int16_t ShortVector __attribute__((vector_size(2 * kLanes)));
  for (int i = 0; i < panels_for(n) * kPanel; i += kLanes) {
    const F value = has_codes && i < n ? scaled_values(values, scales, i, n) * factor : F(0.0f);
    const F nearest = value + pick(value < F(0.0f), F(-0.5f), F(0.5f));
    const ShortVector rounded = __builtin_convertvector(__builtin_convertvector(nearest.v, IntVector), ShortVector);
    __builtin_memcpy(codes + i, &rounded, sizeof rounded);
  }
  return has_codes ? most / top : most <= 1e-30f ? 0.0f : __builtin_nanf("");
}

// sums[v] += codes[0] * w[.][0] + codes[1] * w[.][1] over a panel of pairs.
#if defined(__AVX512BW__)
GESDA_FN void add_pair(const std::int8_t* w, const std::int16_t* codes, IntVector (&sums)[kVectors]) {
  std::int32_t both;
  __builtin_memcpy(&both, codes, sizeof both);
  const __m512i x = _mm512_set1_epi32(both);
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const __m512i pairs = _mm512_cvtepi8_epi16(_mm256_load_si256(reinterpret_cast<const __m256i*>(w) + v));
    sums[v] += (IntVector)_mm512_madd_epi16(pairs, x);
  }
}
#elif defined(__AVX2__) && GESDA_LANES == 8
GESDA_FN void add_pair(const std::int8_t* w, const std::int16_t* codes, IntVector (&sums)[kVectors]) {
  std::int32_t both;
  __builtin_memcpy(&both, codes, sizeof both);
  const __m256i x = _mm256_set1_epi32(both);
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const __m256i pairs = _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(w) + v));
    sums[v] += (IntVector)_mm256_madd_epi16(pairs, x);
  }
}
#elif defined(__ARM_NEON)
GESDA_FN void add_pair(const std::int8_t* w, const std::int16_t* codes, IntVector (&sums)[kVectors]) {
  const int8x16x2_t rows = vld2q_s8(w);
#pragma GCC unroll 2
  for (int k = 0; k < 2; ++k) {
    const int16x8_t low = vmovl_s8(vget_low_s8(rows.val[k])), high = vmovl_s8(vget_high_s8(rows.val[k]));
    sums[0] = (IntVector)vmlal_n_s16((int32x4_t)sums[0], vget_low_s16(low), codes[k]);
    sums[1] = (IntVector)vmlal_n_s16((int32x4_t)sums[1], vget_high_s16(low), codes[k]);
    sums[2] = (IntVector)vmlal_n_s16((int32x4_t)sums[2], vget_low_s16(high), codes[k]);
    sums[3] = (IntVector)vmlal_n_s16((int32x4_t)sums[3], vget_high_s16(high), codes[k]);
  }
}
#else
GESDA_FN void add_pair(const std::int8_t* w, const std::int16_t* codes, IntVector (&sums)[kVectors]) {
  for (int v = 0; v < kVectors; ++v)
    for (int i = 0; i < kLanes; ++i) {
      const std::int8_t* pair = w + 2 * (v * kLanes + i);
      sums[v][i] += pair[0] * codes[0] + pair[1] * codes[1];
    }
}
#endif

inline void dense_int8(const DenseTask& task) {
  const int panels = panels_for(task.outputs), pairs = (task.inputs + 1) / 2;
  for (int row = 0; row < task.rows; ++row) {
    float* out = task.out + static_cast<std::size_t>(row) * task.out_stride;
    const float* in = task.in + static_cast<std::size_t>(row) * task.in_stride;
    const float unit = round_row(in, nullptr, task.inputs, task.codes);
    const std::int8_t* w = static_cast<const std::int8_t*>(task.weights);
    for (int panel = 0; panel < panels; ++panel) {
      IntVector even[kVectors] = {}, odd[kVectors] = {};
      int pair = 0;
      for (; pair + 2 <= pairs; pair += 2, w += 4 * kPanel) {
        __builtin_prefetch(w + kAheadBytes);
        add_pair(w, task.codes + 2 * pair, even);
        add_pair(w + 2 * kPanel, task.codes + 2 * pair + 2, odd);
      }
      if (pair < pairs) add_pair(w, task.codes + 2 * pair, even), w += 2 * kPanel;
      for (int v = 0; v < kVectors; ++v) {
        const int column = panel * kPanel + v * kLanes;
        const F sum(__builtin_convertvector(even[v] + odd[v], FloatVector));
        store(out + column, sum * (load(task.scales + column) * F(unit)));
      }
    }
  }
  finish_rows(task, task.outputs);
}

// sums += the products of kPanel columns with those of two rows of W, an even one and the odd one below it.
#if defined(__AVX512BW__)
typedef __m512i PairSum;
GESDA_FN void add_columns(const std::int8_t* w, const std::int16_t* codes, PairSum& even, PairSum& odd) {
  const __m512i both = _mm512_load_si512(w), x = _mm512_load_si512(codes);
  even = _mm512_add_epi32(even, _mm512_madd_epi16(_mm512_srai_epi16(_mm512_slli_epi16(both, 8), 8), x));
  odd = _mm512_add_epi32(odd, _mm512_madd_epi16(_mm512_srai_epi16(both, 8), x));
}
#elif defined(__AVX2__) && GESDA_LANES == 8
typedef __m256i PairSum;
GESDA_FN void add_columns(const std::int8_t* w, const std::int16_t* codes, PairSum& even, PairSum& odd) {
  const __m256i both = _mm256_load_si256(reinterpret_cast<const __m256i*>(w));
  const __m256i x = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes));
  even = _mm256_add_epi32(even, _mm256_madd_epi16(_mm256_srai_epi16(_mm256_slli_epi16(both, 8), 8), x));
  odd = _mm256_add_epi32(odd, _mm256_madd_epi16(_mm256_srai_epi16(both, 8), x));
}
#elif defined(__ARM_NEON)
typedef int32x4_t PairSum;
GESDA_FN void add_columns(const std::int8_t* w, const std::int16_t* codes, PairSum& even, PairSum& odd) {
  const int8x16x2_t rows = vld2q_s8(w);
  const auto add = [&](int8x16_t row, PairSum sum) {
    const int16x8_t low = vmovl_s8(vget_low_s8(row)), high = vmovl_s8(vget_high_s8(row));
    const int16x8_t x0 = vld1q_s16(codes), x1 = vld1q_s16(codes + 8);
    sum = vmlal_s16(sum, vget_low_s16(low), vget_low_s16(x0));
    sum = vmlal_s16(sum, vget_high_s16(low), vget_high_s16(x0));
    sum = vmlal_s16(sum, vget_low_s16(high), vget_low_s16(x1));
    return vmlal_s16(sum, vget_high_s16(high), vget_high_s16(x1));
  };
  even = add(rows.val[0], even);
  odd = add(rows.val[1], odd);
}
#else
typedef IntVector PairSum;
GESDA_FN void add_columns(const std::int8_t* w, const std::int16_t* codes, PairSum& even, PairSum& odd) {
  for (int i = 0; i < kPanel; ++i) {
    even[i % kLanes] += w[2 * i] * codes[i];
    odd[i % kLanes] += w[2 * i + 1] * codes[i];
  }
}
#endif

GESDA_FN float total_of(PairSum sums) {
  IntVector lanes;
  __builtin_memcpy(&lanes, &sums, sizeof lanes);
  std::int32_t total = 0;
  for (int i = 0; i < kLanes; ++i) total += lanes[i];
  return static_cast<float>(total);
}

inline void transposed_int8(const DenseTask& task) {
  constexpr int kPairs = 4;  // of rows of W, side by side
  const int panels = panels_for(task.outputs), pairs = (task.inputs + 1) / 2;
  const std::size_t panel_size = static_cast<std::size_t>(pairs) * 2 * kPanel;
  for (int row = 0; row < task.rows; ++row) {
    float* out = task.out + static_cast<std::size_t>(row) * task.out_stride;
    // The scales belong to the columns of W, which are summed over here.
    const float* in = task.in + static_cast<std::size_t>(row) * task.in_stride;
    const float unit = round_row(in, task.scales, task.outputs, task.codes);
    for (int first = 0; first < pairs; first += kPairs) {
      const int together = pairs - first < kPairs ? pairs - first : kPairs;
      const std::int8_t* w =
          static_cast<const std::int8_t*>(task.weights) + static_cast<std::size_t>(first) * 2 * kPanel;
      PairSum even[kPairs] = {}, odd[kPairs] = {};
      for (int panel = 0; panel < panels; ++panel, w += panel_size) {
        __builtin_prefetch(w + 2 * kPairs * kPanel);
        for (int p = 0; p < together; ++p)
          add_columns(w + 2 * p * kPanel, task.codes + panel * kPanel, even[p], odd[p]);
      }
      for (int p = 0; p < together; ++p) {
        const int column = 2 * (first + p);
        out[column] = total_of(even[p]) * unit;
        if (column + 1 < task.inputs) out[column + 1] = total_of(odd[p]) * unit;
      }
    }
  }
  finish_rows(task, task.inputs);
}

}  // namespace GESDA_VARIANT
}  // namespace gesda
