// The pretrained stack of denoising autoencoders: how well it restores a row tells how usual the row is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "cpp/motion/networks.hpp"
#include "cpp/runtime/dense.hpp"
#include "cpp/runtime/memory.hpp"

namespace gesda {

class PretrainedStack {
 public:
  PretrainedStack(const ModelFile& file, const InferenceKernels& kernels, const NetworkShape& shape);

  std::size_t weight_bytes() const;

  // Mean squared error of the reconstruction of a row (n_features).
  double error(const float* row);

 private:
  struct Layer {
    Dense encoder;
    Activation output_activation;
    AlignedFloats bias;            // of a decoder with the encoder's weights
    std::optional<Dense> decoder;  // with weights of its own
  };

  void encode(const float* row);
  void decode();

  std::vector<Layer> layers_;
  std::vector<AlignedFloats> values_;  // of the input's reconstruction, then of each layer's encoding
  Aligned<std::int16_t> codes_;
};

}  // namespace gesda
