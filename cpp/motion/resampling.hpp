// Motions of any length to a fixed number of steps: evenly in time, or evenly along the path.
// gesda/deepmotion/features/resampling.py is the same in Python.
#pragma once

#include <cstdint>
#include <vector>

#include "cpp/motion/orientation.hpp"

namespace gesda {

enum class Resampling : std::uint8_t { kTime, kArc };

class Resampler {
 public:
  Resampler(Resampling kind, int n_steps, int n_channels);

  // resampled: (n_steps, n_channels).
  void resample(const OrientedMotion& motion, double* resampled);

 private:
  void resample_time(const OrientedMotion& motion, double* resampled);
  bool resample_arc(const OrientedMotion& motion, double* resampled);
  double measure_path(const OrientedMotion& motion);

  Resampling kind_;
  int n_steps_, n_channels_;
  std::vector<double> before_, after_, corner_;  // samples
};

}  // namespace gesda
