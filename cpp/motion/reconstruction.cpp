#include "cpp/motion/reconstruction.hpp"

#include <algorithm>
#include <utility>

namespace gesda {

PretrainedStack::PretrainedStack(const ModelFile& file, const InferenceKernels& kernels, const NetworkShape& shape) {
  std::size_t codes = 0;
  values_.emplace_back(padded_width(shape.layers[0].n_visible));
  for (std::size_t k = 0; k < shape.layers.size(); ++k) {
    const LayerShape& sizes = shape.layers[k];
    Layer layer{Dense(kernels, file, {shape.encoder(k)}, sizes.n_visible, kTanh), sizes.output_activation, {}, {}};
    codes = std::max(codes, layer.encoder.codes_size());
    if (sizes.tied) {
      const std::vector<float> bias = file.floats(shape.decoder_bias(k), {sizes.n_visible});
      layer.bias = AlignedFloats(padded_width(sizes.n_visible));
      std::copy(bias.begin(), bias.end(), layer.bias.data());
    } else {
      layer.decoder.emplace(kernels, file, std::vector<DensePart>{shape.untied_decoder(k)}, sizes.n_hidden,
                            sizes.output_activation);
      codes = std::max(codes, layer.decoder->codes_size());
    }
    values_.emplace_back(padded_width(sizes.n_hidden));
    layers_.push_back(std::move(layer));
  }
  codes_ = Aligned<std::int16_t>(codes);
}

std::size_t PretrainedStack::weight_bytes() const {
  std::size_t bytes = 0;
  for (const Layer& layer : layers_) {
    bytes += layer.encoder.weight_bytes() + layer.bias.size() * sizeof(float);
    if (layer.decoder) bytes += layer.decoder->weight_bytes();
  }
  return bytes;
}

double PretrainedStack::error(const float* row) {
  encode(row);
  decode();
  const float* restored = values_.front().data();
  const int n_features = layers_.front().encoder.inputs();
  double squares = 0.0;
  for (int i = 0; i < n_features; ++i) {
    const float difference = restored[i] - row[i];
    squares += static_cast<double>(difference * difference);
  }
  return squares / n_features;
}

void PretrainedStack::encode(const float* row) {
  const float* in = row;
  for (std::size_t k = 0; k < layers_.size(); ++k) {
    float* out = values_[k + 1].data();
    layers_[k].encoder.forward(in, 0, 1, out, 0, codes_.data());
    in = out;
  }
}

// Each layer's reconstruction takes the place of what it encoded.
void PretrainedStack::decode() {
  for (std::size_t k = layers_.size(); k-- > 0;) {
    const Layer& layer = layers_[k];
    float* in = values_[k + 1].data();
    float* out = values_[k].data();
    if (layer.decoder) {
      layer.decoder->forward(in, 0, 1, out, 0, codes_.data());
    } else {
      layer.encoder.transposed(in, 0, 1, layer.bias.data(), layer.output_activation, out, 0, codes_.data());
    }
  }
}

}  // namespace gesda
