// Numbers and codes that are known at run time, as constants for which loops are compiled.
#pragma once

#include "cpp/src/variants/simd.hpp"

namespace gesda {
namespace GESDA_VARIANT {

template <int N>
struct Count {
  static constexpr int value = N;
};
// Calls f with the compile-time number equal to n, 1 <= n <= Max.
template <int Max, class Function>
GESDA_FN void with_count(int n, const Function& f) {
  if constexpr (Max > 1) {
    if (n < Max) return with_count<Max - 1>(n, f);
  }
  f(Count<Max>{});
}

template <class Code, Code code>
struct Constant {
  static constexpr Code value = code;
};
// Calls f with the activation as a constant.
template <class Function>
GESDA_FN void with_activation(Activation kind, const Function& f) {
  switch (kind) {
    case kSigmoid: return f(Constant<Activation, kSigmoid>());
    case kTanh: return f(Constant<Activation, kTanh>());
    case kRelu: return f(Constant<Activation, kRelu>());
    case kLinear: return f(Constant<Activation, kLinear>());
  }
}

}  // namespace GESDA_VARIANT
}  // namespace gesda
