// One SIMD variant of all kernels. CMake compiles this file once per variant, with GESDA_VARIANT its name and the
// compiler flags of its instruction set. It must define no inline function outside its own namespace, or the
// linker could hand AVX code to a machine without it; tests/test_symbols.py looks.
#include <time.h>

#include "cpp/src/variants/layers.hpp"

#define GESDA_TEXT_(x) #x
#define GESDA_TEXT(x) GESDA_TEXT_(x)

namespace gesda {
namespace GESDA_VARIANT {
namespace {

double seconds_now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Enough independent chains to hide the latency of any core's multiply-add.
double fma_rate(double seconds) {
  constexpr int kChains = kTileRows * kVectors < 12 ? 12 : kTileRows * kVectors;
  FloatVector acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = FloatVector{} + 1.0f;
  FloatVector a = FloatVector{} + 0.999f, b = FloatVector{} + 0.001f;
  const double start = seconds_now();
  double now = start, best = 0.0;
  while (now - start < seconds) {
    constexpr int kRounds = 20000;
    const double begin = now;
    for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 32
      for (int i = 0; i < kChains; ++i) acc[i] = mad(F(acc[i]), F(a), F(b)).v;
    }
    now = seconds_now();
    const double rate = 2.0 * kRounds * kChains * kLanes / (now - begin);
    best = rate > best ? rate : best;
  }
  FloatVector total = acc[0];
  for (int i = 1; i < kChains; ++i) total += acc[i];
  return sum(F(total)) > 1e30 ? 0.0 : best;  // the sum is used, so the loop cannot be dropped
}

}  // namespace

extern const Kernels kTable;
const Kernels kTable = {GESDA_TEXT(GESDA_VARIANT),
                        kPanel,
                        kRowBlock,
                        sizeof(Workspace) / sizeof(float),
                        gather,
                        corrupt,
                        pack,
                        encode,
                        decode,
                        backprop,
                        statistics,
                        update,
                        update_bias,
                        head,
                        scatter,
                        fma_rate};

}  // namespace GESDA_VARIANT
}  // namespace gesda
