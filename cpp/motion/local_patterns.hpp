// Local patterns: how often a motion matches short patterns of several durations, over the whole motion and over each
// third. gesda/deepmotion/features/local.py is the same in Python and says what the patterns are.
#pragma once

#include <cstddef>
#include <vector>

#include "cpp/runtime/memory.hpp"
#include "cpp/runtime/model_file.hpp"

namespace gesda {

class LocalPatterns {
 public:
  static constexpr int kSteps = 128;  // of a motion

  LocalPatterns(const ModelFile& file, int n_channels);

  int n_features() const;
  // motion: (n_channels, kSteps). shares: (n_features), in [0, 1].
  void describe(const float* motion, float* shares);

 private:
  static constexpr int kTaps = 9, kKernels = 84, kMixtures = 12, kMostDilations = 5;
  static constexpr int kThirds = 3, kSegments = 1 + kThirds;
  // Begins of the thirds; each takes as many lanes as make up whole vectors of four.
  static constexpr int kEdges[kThirds + 1] = {0, (kSteps + 2) / 3, (2 * kSteps + 2) / 3, kSteps};
  static constexpr int kLanes = (kEdges[1] + 3) / 4 * 4;

  struct Part {  // of a mixture
    int channel;
    float weight;
  };
  using Mixture = std::vector<Part>;

  void mix(const float* motion, const Mixture& mixture, std::size_t dilation);
  void sum_taps(std::size_t dilation);
  void count_matches(int kernel, std::size_t dilation, float threshold, float* counts) const;

  std::vector<std::size_t> dilations_;  // steps between taps
  std::vector<Mixture> mixtures_;       // (dilations, kMixtures)
  std::vector<float> thresholds_;       // (dilations, kKernels), thirds of those in the file
  AlignedFloats signal_;                // a mixture of channels, zeros before and after it
  AlignedFloats total_;                 // (kThirds, kLanes), a third of minus the sum of the signal at all taps
};

}  // namespace gesda
