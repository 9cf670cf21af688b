#include "cpp/motion/features.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "cpp/runtime/error.hpp"

namespace gesda {
namespace {

constexpr int kSteps = LocalPatterns::kSteps;
constexpr int kTrajectorySteps = 32;

template <class Option, std::size_t kCount>
Option read_option(const Json& value, const char* what,
                   const std::array<std::pair<std::string_view, Option>, kCount>& known) {
  for (const auto& [name, option] : known) {
    if (value.text() == name) return option;
  }
  throw Error(GESDA_BAD_FILE, std::string("the recogniser's ") + what + " is unknown to this version");
}

Orientation read_orientation(const ModelFile& file) {
  static constexpr std::array<std::pair<std::string_view, Orientation>, 3> kKnown = {
      {{"keep", Orientation::kKeep}, {"gravity", Orientation::kGravity}, {"magnitude", Orientation::kMagnitude}}};
  return read_option(file.metadata().at("params").at("orientation"), "orientation", kKnown);
}

Resampling read_resampling(const ModelFile& file) {
  static constexpr std::array<std::pair<std::string_view, Resampling>, 2> kKnown = {
      {{"time", Resampling::kTime}, {"arc", Resampling::kArc}}};
  return read_option(file.metadata().at("params").at("resampling"), "resampling", kKnown);
}

Normalization read_normalization(const ModelFile& file) {
  static constexpr std::array<std::pair<std::string_view, Normalization>, 4> kKnown = {
      {{"global", Normalization::kGlobal},
       {"centered", Normalization::kCentered},
       {"sequence", Normalization::kSequence},
       {"relative", Normalization::kRelative}}};
  return read_option(file.metadata().at("state").at("normalization"), "normalization", kKnown);
}

// Python takes whatever is true for true.
bool read_spectrum(const ModelFile& file) {
  const Json& value = file.metadata().at("params").at("spectrum");
  return value.kind() == Json::kNumber ? value.number() != 0.0 : value.boolean();
}

int read_channels(const ModelFile& file, Orientation orientation, int n_motion_channels) {
  const std::int64_t n_channels = file.metadata().at("state").at("n_channels").integer();
  const bool in_triples = orientation == Orientation::kKeep || n_channels % 3 == 0;
  const std::int64_t kept = orientation == Orientation::kMagnitude ? n_channels / 3 : n_channels;
  if (!in_triples || kept != n_motion_channels) {
    throw Error(GESDA_BAD_FILE, "the recogniser's number of channels does not fit its features");
  }
  return static_cast<int>(n_channels);
}

template <class Number>
void check_positive(const std::vector<Number>& scales, const char* what) {
  if (std::any_of(scales.begin(), scales.end(), [](Number scale) { return !(scale > 0); })) {
    throw Error(GESDA_BAD_FILE, std::string("the recogniser's ") + what + " are not positive");
  }
}

}  // namespace

MotionFeatures::MotionFeatures(const ModelFile& file)
    : orientation_(read_orientation(file)),
      normalizer_(file, read_normalization(file), kSteps),
      resampler_(read_resampling(file), kSteps, normalizer_.n_channels()),
      velocity_scale_(file.doubles("features.velocity_scale", {normalizer_.n_channels()})),
      patterns_(file, 2 * normalizer_.n_channels()) {
  const int n_motion_channels = normalizer_.n_channels();
  n_channels_ = read_channels(file, orientation_, n_motion_channels);
  check_positive(velocity_scale_, "scales of velocities");
  if (read_spectrum(file)) spectrum_ = std::make_unique<Spectrum>(kSteps);
  const int n_bands = spectrum_ ? Spectrum::kBands : 0;
  const int n_features = (kTrajectorySteps + n_bands) * n_motion_channels + 1 + patterns_.n_features();
  mean_ = file.floats("features.mean", {n_features});
  deviation_ = file.floats("features.deviation", {n_features});
  check_positive(deviation_, "deviations of features");
  const std::size_t size = static_cast<std::size_t>(n_motion_channels) * kSteps;
  resampled_.resize(size);
  motion_ = AlignedFloats(2 * size);
}

void MotionFeatures::describe(const OrientedMotion& motion, float* row) {
  const std::size_t n_channels = velocity_scale_.size();
  resampler_.resample(motion, resampled_.data());
  normalizer_.normalize(resampled_.data(), motion_.data());
  const auto channel = [&](std::size_t c) { return motion_.data() + c * kSteps; };
  for (std::size_t c = 0; c < n_channels; ++c) {
    differentiate(channel(c), kSteps, velocity_scale_[c], channel(n_channels + c));
  }

  constexpr std::size_t kLast = kTrajectorySteps - 1;
  float* next = row;
  for (std::size_t i = 0; i < kTrajectorySteps; ++i) {
    const std::size_t step = (2 * i * (kSteps - 1) + kLast) / (2 * kLast);  // i (kSteps - 1) / kLast, rounded
    for (std::size_t c = 0; c < n_channels; ++c) *next++ = channel(c)[step];
  }
  *next++ = static_cast<float>(std::log(static_cast<double>(motion.length())));
  if (spectrum_) {
    for (std::size_t c = 0; c < n_channels; ++c) spectrum_->measure(channel(c), next + c, n_channels);
    next += Spectrum::kBands * n_channels;
  }
  patterns_.describe(motion_.data(), next);
  for (std::size_t i = 0; i < mean_.size(); ++i) row[i] = (row[i] - mean_[i]) / deviation_[i];
}

}  // namespace gesda
