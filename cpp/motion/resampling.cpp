#include "cpp/motion/resampling.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

namespace gesda {
namespace {

// Samples are of float32: in double precision their squares neither overflow nor vanish.
double distance(const std::vector<double>& from, const std::vector<double>& to) {
  double squares = 0.0;
  for (std::size_t c = 0; c < from.size(); ++c) squares += (to[c] - from[c]) * (to[c] - from[c]);
  return std::sqrt(squares);
}

}  // namespace

Resampler::Resampler(Resampling kind, int n_steps, int n_channels)
    : kind_(kind),
      n_steps_(n_steps),
      n_channels_(n_channels),
      before_(static_cast<std::size_t>(n_channels)),
      after_(before_.size()),
      corner_(before_.size()) {}

void Resampler::resample(const OrientedMotion& motion, double* resampled) {
  if (kind_ == Resampling::kArc && resample_arc(motion, resampled)) return;
  resample_time(motion, resampled);
}

void Resampler::resample_time(const OrientedMotion& motion, double* resampled) {
  const std::size_t last = motion.length() - 1;
  const double step = static_cast<double>(last) / std::max(n_steps_ - 1, 1);
  for (int t = 0; t < n_steps_; ++t, resampled += n_channels_) {
    const double place = std::min(t * step, static_cast<double>(last));
    const std::size_t before = std::min(static_cast<std::size_t>(place), last > 0 ? last - 1 : 0);
    const double fraction = place - static_cast<double>(before);
    motion.read(before, before_.data());
    motion.read(std::min(before + 1, last), after_.data());
    for (std::size_t c = 0; c < before_.size(); ++c) {
      resampled[c] = before_[c] * (1.0 - fraction) + after_[c] * fraction;
    }
  }
}

// Walks along the path twice, first to know its length. False for a path without length.
bool Resampler::resample_arc(const OrientedMotion& motion, double* resampled) {
  const double length = measure_path(motion);
  if (length <= 0.0) return false;
  const double step = length / std::max(n_steps_ - 1, 1);
  const auto wanted = [&](int t) { return t == n_steps_ - 1 ? length : t * step; };

  int t = 0;
  double travelled = 0.0, travelled_at_corner = 0.0;
  motion.read(0, before_.data());
  corner_ = before_;
  for (std::size_t i = 1; i < motion.length(); ++i) {
    motion.read(i, after_.data());
    travelled += distance(before_, after_);
    std::swap(before_, after_);
    // Where the path stands still, several samples share a place: the first of them is enough.
    if (travelled <= travelled_at_corner) continue;
    for (; t < n_steps_ && wanted(t) < travelled; ++t, resampled += n_channels_) {
      for (std::size_t c = 0; c < corner_.size(); ++c) {
        const double slope = (before_[c] - corner_[c]) / (travelled - travelled_at_corner);
        resampled[c] = slope * (wanted(t) - travelled_at_corner) + corner_[c];
      }
    }
    corner_ = before_;
    travelled_at_corner = travelled;
  }
  for (; t < n_steps_; ++t, resampled += n_channels_) std::copy(corner_.begin(), corner_.end(), resampled);
  return true;
}

double Resampler::measure_path(const OrientedMotion& motion) {
  double travelled = 0.0;
  motion.read(0, before_.data());
  for (std::size_t i = 1; i < motion.length(); ++i) {
    motion.read(i, after_.data());
    travelled += distance(before_, after_);
    std::swap(before_, after_);
  }
  return travelled;
}

}  // namespace gesda
