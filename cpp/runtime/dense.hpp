// A layer for inference: out = activation(in W + b), for a few rows at a time, with weights of 32, 16 or 8 bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cpp/runtime/inference_kernels.hpp"
#include "cpp/runtime/memory.hpp"
#include "cpp/runtime/model_file.hpp"

namespace gesda {

// Where a block of columns of a layer comes from: the arrays `weights` (inputs, columns) and `bias` (columns); or, with
// a slice, one of the matrices and vectors that stand in arrays of one more dimension.
struct DensePart {
  std::string weights, bias;
  int columns;
  int slice = -1;
};

class Dense {
 public:
  // The columns of the parts stand side by side: one product serves all. Weights of float32 or float16 stay so; of int8
  // they need an array `<weights>.scales` of float32, in the shape of the bias.
  Dense(const InferenceKernels& kernels, const ModelFile& file, const std::vector<DensePart>& parts, int inputs,
        Activation activation);

  int inputs() const { return inputs_; }
  int outputs() const { return outputs_; }
  std::size_t weight_bytes() const { return weights_.size() + (scales_.size() + bias_.size()) * sizeof(float); }
  WeightType type() const { return type_; }

  // Rows of `in` and `out` are in_stride and out_stride floats apart; `out` is aligned to 64 bytes, its stride a
  // multiple of 16 and at least padded_width(outputs()); what is past outputs() is of no meaning. codes: codes_size()
  // numbers, aligned to 64 bytes.
  void forward(const float* in, std::size_t in_stride, int rows, float* out, std::size_t out_stride,
               std::int16_t* codes) const;
  // out = activation(in W^T + bias): the decoder of tied weights. `in` has outputs() columns, aligned and padded as
  // `out` is, and what is past them is overwritten with zeros; bias is aligned and has padded_width(inputs()) floats.
  void transposed(float* in, std::size_t in_stride, int rows, const float* bias, Activation activation, float* out,
                  std::size_t out_stride, std::int16_t* codes) const;
  std::size_t codes_size() const;

 private:
  void check_part(const ModelFile& file, const DensePart& part) const;
  void read_part(const ModelFile& file, const DensePart& part, int first_column);
  template <int Bytes>
  void pack_rows(const unsigned char* rows, int first, int n, int first_column, int columns);
  void pack_pairs(const unsigned char* rows, int first, int n, int first_column, int columns);

  const InferenceKernels* kernels_;
  int inputs_, outputs_;
  Activation activation_;
  WeightType type_;
  AlignedBytes weights_;
  AlignedFloats scales_, bias_;
};

// Bounds what a file may ask for.
constexpr int kMostUnits = 1 << 24;

// A width with room for whole vectors of any variant.
constexpr int kWidestPanel = 32;
constexpr std::size_t padded_width(int columns) {
  return static_cast<std::size_t>((columns + kWidestPanel - 1) / kWidestPanel) * kWidestPanel;
}

}  // namespace gesda
