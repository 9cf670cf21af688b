#include "cpp/motion/normalization.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "cpp/runtime/error.hpp"

namespace gesda {
namespace {

// Of one channel there are 30 numbers in the file or more; this keeps all counts of them within an int.
constexpr std::int64_t kMostChannels = 1'000'000;
// A deviation below this share of a channel's values is rounding, not motion.
constexpr double kRounding = 1e-6;
// Far beyond anything that training has seen, a value says no more than that.
constexpr double kMostDeviations = 1e3;

std::int64_t count_channels(const ModelFile& file) {
  const Tensor& offset = file.at("features.offset");
  if (offset.shape.size() != 1 || offset.shape[0] < 1 || offset.shape[0] > kMostChannels) {
    throw Error(GESDA_BAD_FILE, "the recogniser's features have an impossible number of channels");
  }
  return offset.shape[0];
}

}  // namespace

Normalizer::Normalizer(const ModelFile& file, Normalization kind, int n_steps) : kind_(kind), n_steps_(n_steps) {
  const std::int64_t n_channels = count_channels(file);
  offset_ = file.doubles("features.offset", {n_channels});
  scale_ = file.doubles("features.scale", {n_channels});
  if (*std::min_element(scale_.begin(), scale_.end()) <= 0.0) {
    throw Error(GESDA_BAD_FILE, "the recogniser's scales of channels are not positive");
  }
  const std::vector<std::int64_t> body = file.integers("features.body", {n_channels / 3});
  for (std::size_t point = 0; point < body.size(); ++point) {
    if (body[point] != 0) body_.push_back(static_cast<int>(3 * point));
  }
  if (!body_.empty() && n_channels % 3 != 0) {
    throw Error(GESDA_BAD_FILE, "the recogniser's channels are no points of a body");
  }
}

void Normalizer::normalize(double* resampled, float* motion) const {
  if (!body_.empty()) relate_to_body(resampled);
  const std::size_t n_channels = offset_.size(), n_steps = static_cast<std::size_t>(n_steps_);
  const bool by_training = kind_ == Normalization::kGlobal || kind_ == Normalization::kRelative;
  if (!by_training) standardize(resampled);
  for (std::size_t c = 0; c < n_channels; ++c) {
    for (std::size_t t = 0; t < n_steps; ++t) {
      double value = resampled[t * n_channels + c];
      if (by_training) value = std::clamp((value - offset_[c]) / scale_[c], -kMostDeviations, kMostDeviations);
      motion[c * n_steps + t] = static_cast<float>(value);
    }
  }
}

// Takes the mean of the body's points off each of them, at each step.
void Normalizer::relate_to_body(double* resampled) const {
  for (int t = 0; t < n_steps_; ++t, resampled += offset_.size()) {
    for (int axis = 0; axis < 3; ++axis) {
      double mean = 0.0;
      for (const int point : body_) mean += resampled[point + axis];
      mean /= static_cast<double>(body_.size());
      for (const int point : body_) resampled[point + axis] -= mean;
    }
  }
}

// Takes the means of channels off and divides by deviations, of each or of all together.
void Normalizer::standardize(double* resampled) const {
  const std::size_t n_channels = offset_.size();
  double all_squares = 0.0, largest_of_all = 0.0;
  const auto scale_channel = [&](std::size_t c, double squares, double largest) {
    const double deviation = std::sqrt(squares / n_steps_);
    const double factor = deviation <= kRounding * largest ? 0.0 : 1.0 / deviation;
    for (int t = 0; t < n_steps_; ++t) resampled[static_cast<std::size_t>(t) * n_channels + c] *= factor;
  };
  for (std::size_t c = 0; c < n_channels; ++c) {
    double largest = 0.0;
    const double squares = center(resampled + c, largest);
    all_squares += squares;
    largest_of_all = std::max(largest_of_all, largest);
    if (kind_ == Normalization::kSequence) scale_channel(c, squares, largest);
  }
  if (kind_ == Normalization::kSequence) return;
  for (std::size_t c = 0; c < n_channels; ++c) {
    scale_channel(c, all_squares / static_cast<double>(n_channels), largest_of_all);
  }
}

// Takes a channel's mean off; gives the sum of the squares of what is left, and the largest magnitude before.
double Normalizer::center(double* channel, double& largest) const {
  const std::size_t n_channels = offset_.size(), end = static_cast<std::size_t>(n_steps_) * n_channels;
  double mean = 0.0, squares = 0.0;
  for (std::size_t i = 0; i < end; i += n_channels) {
    mean += channel[i];
    largest = std::max(largest, std::fabs(channel[i]));
  }
  mean /= n_steps_;
  for (std::size_t i = 0; i < end; i += n_channels) {
    channel[i] -= mean;
    squares += channel[i] * channel[i];
  }
  return squares;
}

}  // namespace gesda
