// One SIMD variant of the kernels for inference. CMake compiles this file once per variant, as it does
// cpp/src/variants/kernels.cpp, and the same rule holds: no inline function outside of the variant's namespace.
#include "cpp/runtime/variants/int8_products.hpp"

#define GESDA_TEXT_(x) #x
#define GESDA_TEXT(x) GESDA_TEXT_(x)

namespace gesda {
namespace GESDA_VARIANT {
namespace {

void dense(const DenseTask& task) {
  switch (task.type) {
    case WeightType::kFloat32: return dense_floats<Float32Weights>(task);
    case WeightType::kFloat16: return dense_floats<Float16Weights>(task);
    case WeightType::kInt8: return dense_int8(task);
  }
}

void transposed(const DenseTask& task) {
  switch (task.type) {
    case WeightType::kFloat32: return transposed_floats<Float32Weights>(task);
    case WeightType::kFloat16: return transposed_floats<Float16Weights>(task);
    case WeightType::kInt8: return transposed_int8(task);
  }
}

}  // namespace

extern const InferenceKernels kInference;
const InferenceKernels kInference = {GESDA_TEXT(GESDA_VARIANT), kPanel, dense, transposed};

}  // namespace GESDA_VARIANT
}  // namespace gesda
