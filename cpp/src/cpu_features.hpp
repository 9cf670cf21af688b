// What this machine's processor can do, by the names of the SIMD variants.
#pragma once

#if defined(__arm__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace gesda {

#if defined(__x86_64__)
inline bool has_avx2() {  // with these came half precision (F16C)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
inline bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
inline bool has_avx512bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#elif defined(__aarch64__)
inline bool has_neon() { return true; }  // part of every aarch64
#elif defined(__arm__)
inline bool has_neon() {  // with fused multiply-add
  return (getauxval(AT_HWCAP) & (HWCAP_NEON | HWCAP_VFPv4)) == (HWCAP_NEON | HWCAP_VFPv4);
}
#endif

}  // namespace gesda
