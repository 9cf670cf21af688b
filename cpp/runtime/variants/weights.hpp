// Vectors of weights, whatever they are stored as.
#pragma once

#include "cpp/runtime/inference_kernels.hpp"
#include "cpp/src/variants/choose.hpp"

namespace gesda {
namespace GESDA_VARIANT {

struct Float32Weights {
  typedef float Stored;
  static GESDA_FN F load_weights(const float* p) { return load(p); }
};

struct Float16Weights {
  typedef std::uint16_t Stored;
  static GESDA_FN F load_weights(const std::uint16_t* p) {
#if defined(__AVX512F__)
    return (FloatVector)_mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__) && GESDA_LANES == 8
    return (FloatVector)_mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__aarch64__)
    return (FloatVector)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
#else
    // A float whose exponent is 112 too small: right for subnormal numbers too; there is no infinity among weights.
    typedef std::uint16_t HalfVector __attribute__((vector_size(2 * kLanes)));
    HalfVector halves;
    __builtin_memcpy(&halves, p, sizeof halves);
    const U word(__builtin_convertvector(halves, WordVector));
    return floats(((word & U(0x8000u)) << 16) | ((word & U(0x7FFFu)) << 13)) * F(0x1p112f);
#endif
  }
};

GESDA_FN int panels_for(int columns) { return (columns + kPanel - 1) / kPanel; }

}  // namespace GESDA_VARIANT
}  // namespace gesda
