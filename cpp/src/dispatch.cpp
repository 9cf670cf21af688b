#include "cpp/src/dispatch.hpp"

#include <stdexcept>

#include "cpp/src/cpu_features.hpp"

namespace gesda {

#define GESDA_DECLARE(variant) \
  namespace variant {          \
  extern const Kernels kTable; \
  }
#if defined(GESDA_HAVE_AVX512BF16)
GESDA_DECLARE(avx512bf16)
#endif
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

namespace {

std::vector<const Kernels*> list_runnable(Precision precision) {
  std::vector<const Kernels*> found;
#if defined(GESDA_HAVE_AVX512BF16)
  if (precision == kBf16 && has_avx512bf16()) found.push_back(&avx512bf16::kTable);
#else
  static_cast<void>(precision);
#endif
#if defined(GESDA_HAVE_AVX512)
  if (has_avx512()) found.push_back(&avx512::kTable);
#endif
#if defined(GESDA_HAVE_AVX2)
  if (has_avx2()) found.push_back(&avx2::kTable);
#endif
#if defined(GESDA_HAVE_NEON)
  if (has_neon()) found.push_back(&neon::kTable);
#endif
  found.push_back(&baseline::kTable);
  return found;
}

}  // namespace

const std::vector<const Kernels*>& runnable_kernels(Precision precision) {
  static const std::vector<const Kernels*> runnable[] = {list_runnable(kFp32), list_runnable(kBf16)};
  return runnable[precision];
}

const Kernels& find_kernels(const std::string& name, Precision precision) {
  const std::vector<const Kernels*>& runnable = runnable_kernels(precision);
  for (const Kernels* kernels : runnable)
    if (name.empty() || name == kernels->name) return *kernels;
  std::string known;
  for (const Kernels* kernels : runnable) known += (known.empty() ? "" : ", ") + std::string(kernels->name);
  throw std::invalid_argument("SIMD variant '" + name + "' cannot run here; this machine runs " + known + ".");
}

}  // namespace gesda
