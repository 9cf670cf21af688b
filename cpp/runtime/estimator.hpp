// A fitted estimator for inference: layers up, layers down, head. All memory is made by the constructor.
#pragma once

#include <string>
#include <vector>

#include "cpp/runtime/dense.hpp"
#include "gesda/gesda.h"

namespace gesda {

class Estimator {
 public:
  // Throws Error where the file describes no estimator.
  Estimator(const ModelFile& file, const InferenceKernels& kernels);

  gesda_kind kind() const { return kind_; }
  int n_features() const { return encoders_.front().inputs(); }
  int n_layers() const { return static_cast<int>(encoders_.size()); }
  int n_hidden() const { return encoders_.back().outputs(); }
  int n_outputs() const { return head_.empty() ? 0 : head_[0].outputs(); }
  WeightType weights() const { return encoders_.front().type(); }
  std::size_t weight_bytes() const;
  const std::vector<std::string>& class_names() const { return class_names_; }
  const std::vector<std::string>& feature_names() const { return feature_names_; }

  // rows: (n, n_features), finite. None of these can fail; heads only where there is one of their kind.
  void encode(const float* rows, std::size_t n, float* codes);
  void reconstruct(const float* rows, std::size_t n, float* reconstructions);
  void score(const float* rows, std::size_t n, float* scores);
  void predict(const float* rows, std::size_t n, float* outputs);  // probabilities, or values
  void classify(const float* rows, std::size_t n, std::int32_t* classes);

 private:
  // The way down of a layer: the weights of the way up, transposed, or its own.
  struct Decoder {
    Activation activation;
    AlignedFloats bias;      // tied
    std::vector<Dense> own;  // untied: one
  };

  void read_names(const ModelFile& file);
  std::size_t outputs() const { return static_cast<std::size_t>(n_outputs()); }
  // A chunk of rows through the network; the results stand in buffers_, `stride_` floats from row to row.
  const float* encode_chunk(const float* rows, int n);
  const float* reconstruct_chunk(const float* rows, int n);
  const float* predict_chunk(const float* rows, int n);
  // Calls chunk(first, n) for all rows.
  template <class Function>
  void for_each_chunk(std::size_t n, const Function& chunk) const;
  float* other(const float* buffer) { return buffer == buffers_[0].data() ? buffers_[1].data() : buffers_[0].data(); }

  gesda_kind kind_;
  std::vector<Dense> encoders_, head_;  // of the head one or none
  std::vector<Decoder> decoders_;
  std::vector<std::string> class_names_, feature_names_;
  std::size_t chunk_, stride_;
  AlignedFloats buffers_[2];
  Aligned<std::int16_t> codes_;
};

// Reads a JSON name of an activation.
Activation activation_of(const std::string& name);
// Numbers, truth values and texts as labels.
std::string label_of(const Json& value);

}  // namespace gesda
