// Offsets and scales: what of a motion's place and size is kept.
// gesda/deepmotion/features/normalization.py is the same in Python.
#pragma once

#include <cstdint>
#include <vector>

#include "cpp/runtime/model_file.hpp"

namespace gesda {

enum class Normalization : std::uint8_t { kGlobal, kCentered, kSequence, kRelative };

class Normalizer {
 public:
  Normalizer(const ModelFile& file, Normalization kind, int n_steps);

  int n_channels() const { return static_cast<int>(offset_.size()); }

  // resampled: (n_steps, n_channels), overwritten. motion: (n_channels, n_steps).
  void normalize(double* resampled, float* motion) const;

 private:
  void relate_to_body(double* resampled) const;
  void standardize(double* resampled) const;
  double center(double* channel, double& largest) const;

  Normalization kind_;
  int n_steps_;
  std::vector<double> offset_, scale_;  // of each channel, in training
  std::vector<int> body_;               // first channels of the points of a body, three channels each
};

}  // namespace gesda
