#include "cpp/runtime/inference_kernels.hpp"

#include <cstring>

#include "cpp/src/cpu_features.hpp"

namespace gesda {

#define GESDA_DECLARE(variant)              \
  namespace variant {                       \
  extern const InferenceKernels kInference; \
  }
#if defined(GESDA_HAVE_AVX512)
GESDA_DECLARE(avx512)
#endif
#if defined(GESDA_HAVE_AVX2)
GESDA_DECLARE(avx2)
#endif
#if defined(GESDA_HAVE_NEON)
GESDA_DECLARE(neon)
#endif
GESDA_DECLARE(baseline)
#undef GESDA_DECLARE

const InferenceKernels* find_inference_kernels(const char* name) {
  const auto is_wanted = [name](const InferenceKernels& kernels) {
    return name == nullptr || std::strcmp(name, kernels.name) == 0;
  };
#if defined(GESDA_HAVE_AVX512)
  if (has_avx512() && is_wanted(avx512::kInference)) return &avx512::kInference;
#endif
#if defined(GESDA_HAVE_AVX2)
  if (has_avx2() && is_wanted(avx2::kInference)) return &avx2::kInference;
#endif
#if defined(GESDA_HAVE_NEON)
  if (has_neon() && is_wanted(neon::kInference)) return &neon::kInference;
#endif
  return is_wanted(baseline::kInference) ? &baseline::kInference : nullptr;
}

}  // namespace gesda
