// From a motion to the row of numbers that the networks read: its trajectory, its duration, its spectrum, and how often
// local patterns match. gesda/deepmotion/features/pipeline.py is the same in Python.
#pragma once

#include <memory>
#include <vector>

#include "cpp/motion/channels.hpp"
#include "cpp/motion/local_patterns.hpp"
#include "cpp/motion/normalization.hpp"
#include "cpp/motion/orientation.hpp"
#include "cpp/motion/resampling.hpp"
#include "cpp/runtime/memory.hpp"
#include "cpp/runtime/model_file.hpp"

namespace gesda {

class MotionFeatures {
 public:
  explicit MotionFeatures(const ModelFile& file);

  int n_channels() const { return n_channels_; }  // of a sample
  int n_features() const { return static_cast<int>(mean_.size()); }

  // row: (n_features).
  template <class Number>
  void describe(const Motion<Number>& motion, float* row) {
    describe(OrientedMotion(motion, n_channels_, orientation_), row);
  }

 private:
  void describe(const OrientedMotion& motion, float* row);

  int n_channels_;
  Orientation orientation_;
  Normalizer normalizer_;
  Resampler resampler_;
  std::vector<double> velocity_scale_;
  LocalPatterns patterns_;
  std::unique_ptr<Spectrum> spectrum_;  // null: without
  std::vector<float> mean_, deviation_;
  std::vector<double> resampled_;  // (steps, channels)
  AlignedFloats motion_;           // (2 * channels, steps): the channels, then their velocities
};

}  // namespace gesda
