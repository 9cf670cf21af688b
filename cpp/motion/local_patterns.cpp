#include "cpp/motion/local_patterns.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "cpp/runtime/error.hpp"

namespace gesda {
namespace {

struct Taps {
  std::size_t a, b, c;
};

// Which three of the nine taps are 2; the others are -1. In lexicographic order.
template <std::size_t kCount, std::size_t kTaps>
constexpr std::array<Taps, kCount> all_triples() {
  std::array<Taps, kCount> triples{};
  std::size_t k = 0;
  for (std::size_t a = 0; a < kTaps; ++a) {
    for (std::size_t b = a + 1; b < kTaps; ++b) {
      for (std::size_t c = b + 1; c < kTaps; ++c) triples[k++] = {a, b, c};
    }
  }
  return triples;
}

}  // namespace

LocalPatterns::LocalPatterns(const ModelFile& file, int n_channels) {
  const Tensor& tensor = file.at("features.dilations");
  if (tensor.shape.size() != 1 || tensor.shape[0] > kMostDilations) {
    throw Error(GESDA_BAD_FILE, "the recogniser's patterns have an impossible number of durations");
  }
  const std::int64_t n_dilations = tensor.shape[0];
  std::size_t widest = 0;
  for (const std::int64_t dilation : file.integers("features.dilations", {n_dilations})) {
    // Taps further apart than a motion is long would all but one lie outside of it.
    if (dilation < 1 || dilation >= kSteps) {
      throw Error(GESDA_BAD_FILE, "the recogniser's patterns have an impossible duration");
    }
    dilations_.push_back(static_cast<std::size_t>(dilation));
    widest = std::max(widest, dilations_.back());
  }
  const std::vector<float> weights = file.floats("features.mixtures", {n_dilations, kMixtures, n_channels});
  mixtures_.resize(dilations_.size() * kMixtures);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const auto width = static_cast<std::size_t>(n_channels);
    if (weights[i] != 0.0f) mixtures_[i / width].push_back({static_cast<int>(i % width), weights[i]});
  }
  thresholds_ = file.floats("features.thresholds", {n_dilations, kKernels, 1});
  for (float& threshold : thresholds_) threshold *= 1.0f / 3.0f;
  // Lanes of the last third that stand for no step still read the signal.
  signal_ = AlignedFloats((kTaps - 1) * widest + kEdges[kThirds - 1] + kLanes);
  total_ = AlignedFloats(kThirds * kLanes);
}

int LocalPatterns::n_features() const { return static_cast<int>(thresholds_.size()) * kSegments; }

void LocalPatterns::describe(const float* motion, float* shares) {
  for (std::size_t d = 0; d < dilations_.size(); ++d) {
    for (int m = 0; m < kMixtures; ++m) {
      const std::size_t number = d * kMixtures + static_cast<std::size_t>(m);
      mix(motion, mixtures_[number], dilations_[d]);
      sum_taps(dilations_[d]);
      for (int kernel = m; kernel < kKernels; kernel += kMixtures) {
        const std::size_t pattern = d * kKernels + static_cast<std::size_t>(kernel);
        count_matches(kernel, dilations_[d], thresholds_[pattern], shares + pattern * kSegments);
      }
    }
  }
  // Not one by one above, where the next pattern would wait for it.
  static constexpr float kSizes[kSegments] = {kSteps, kEdges[1] - kEdges[0], kEdges[2] - kEdges[1],
                                              kEdges[3] - kEdges[2]};
  for (std::size_t pattern = 0; pattern < thresholds_.size(); ++pattern, shares += kSegments) {
    for (int segment = 0; segment < kSegments; ++segment) shares[segment] /= kSizes[segment];
  }
}

// The signal is moved to the right so far that tap j of step t is at [t + j * dilation].
void LocalPatterns::mix(const float* motion, const Mixture& mixture, std::size_t dilation) {
  float* signal = signal_.data() + (kTaps - 1) / 2 * dilation;
  std::fill(signal_.data(), signal_.data() + signal_.size(), 0.0f);
  for (const Part& part : mixture) {
    const float* channel = motion + static_cast<std::size_t>(part.channel) * kSteps;
    for (int t = 0; t < kSteps; ++t) signal[t] += part.weight * channel[t];
  }
}

void LocalPatterns::sum_taps(std::size_t dilation) {
  for (int third = 0; third < kThirds; ++third) {
    const float* taps = signal_.data() + kEdges[third];
    float* total = total_.data() + third * kLanes;
    for (int i = 0; i < kLanes; ++i) {
      float sum = 0.0f;
      for (std::size_t tap = 0; tap < kTaps; ++tap) sum -= taps[tap * dilation + static_cast<std::size_t>(i)];
      total[i] = sum * (1.0f / 3.0f);
    }
    // Lanes that stand for no step exceed no threshold.
    for (int i = kEdges[third + 1] - kEdges[third]; i < kLanes; ++i) total[i] = -std::numeric_limits<float>::infinity();
  }
}

// Of the whole motion and of each third. The order of the additions is that of Python: it decides what is equal to a
// threshold.
void LocalPatterns::count_matches(int kernel, std::size_t dilation, float threshold, float* counts) const {
  static constexpr std::array<Taps, kKernels> kTriples = all_triples<kKernels, kTaps>();
  const Taps taps = kTriples[static_cast<std::size_t>(kernel)];
  int all = 0;
  for (int third = 0; third < kThirds; ++third) {
    const float* total = total_.data() + third * kLanes;
    const float* a = signal_.data() + kEdges[third] + taps.a * dilation;
    const float* b = signal_.data() + kEdges[third] + taps.b * dilation;
    const float* c = signal_.data() + kEdges[third] + taps.c * dilation;
    int inside = 0;
    for (int i = 0; i < kLanes; ++i) inside += total[i] + a[i] + b[i] + c[i] > threshold ? 1 : 0;
    counts[1 + third] = static_cast<float>(inside);
    all += inside;
  }
  counts[0] = static_cast<float>(all);
}

}  // namespace gesda
