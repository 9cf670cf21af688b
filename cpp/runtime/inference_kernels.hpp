// What one SIMD variant offers for inference: products of a few rows with weights of 32, 16 or 8 bits.
//
// As in cpp/src/kernel_table.hpp, variants share no inline code with the rest. Activations are row-major; weights
// (K, C) stand in panels of `panel_width` columns, zero padded:
//   float32, float16  element (k, c) at [(c / width) * K + k][c % width]
//   int8              pairs of rows side by side, so that one instruction multiplies and adds two:
//                     element (k, c) at [(c / width) * ceil(K / 2) + k / 2][c % width][k % 2]
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/math.hpp"

namespace gesda {

enum class WeightType : std::uint8_t { kFloat32, kFloat16, kInt8 };

struct DenseTask {
  const float* in;        // (rows, inputs), or (rows, outputs) if transposed, padded with zeros to whole panels
  std::size_t in_stride;  // floats from one row to the next
  int rows, inputs, outputs;
  WeightType type;
  const void* weights;
  const float* scales;  // int8: one a column, padded; else null
  const float* bias;    // padded to whole panels
  Activation activation;
  float* out;  // (rows, outputs), or (rows, inputs) if transposed; padded to whole panels
  std::size_t out_stride;
  std::int16_t* codes;  // int8: room for a row's whole numbers, padded
};

struct InferenceKernels {
  const char* name;
  int panel_width;
  void (*dense)(const DenseTask&);       // out = activation(in W + bias)
  void (*transposed)(const DenseTask&);  // out = activation(in W^T + bias)
};

// The fastest variant that this machine runs; or, by its name, another one. Null: none of that name runs here.
const InferenceKernels* find_inference_kernels(const char* name = nullptr);

}  // namespace gesda
