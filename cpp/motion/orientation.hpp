// How a device is held: the samples of a motion, turned by gravity, or as lengths that no turn changes.
// gesda/deepmotion/features/orientation.py is the same in Python.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpp/motion/recognition.hpp"

namespace gesda {

enum class Orientation : std::uint8_t { kKeep, kGravity, kMagnitude };

// A motion as the features see it. Its samples are rounded to float32, as those were that the recogniser has learnt
// from, and turned when they are read: nothing is stored, whatever the length.
class OrientedMotion {
 public:
  // Channels of a sample; triples x, y, z unless the orientation is kept.
  OrientedMotion(const Motion<float>& motion, int n_channels, Orientation orientation);
  OrientedMotion(const Motion<double>& motion, int n_channels, Orientation orientation);

  std::size_t length() const { return length_; }
  int n_channels() const { return orientation_ == Orientation::kMagnitude ? n_channels_ / 3 : n_channels_; }
  void read(std::size_t i, double* sample) const;  // n_channels() numbers

 private:
  OrientedMotion(const float* floats, const double* doubles, std::size_t length, std::size_t stride, int n_channels,
                 Orientation orientation);
  double value(std::size_t i, int channel) const;
  void find_axes();
  bool find_down(double* down) const;
  void find_heading(const double* down, double* heading) const;

  const float* floats_;  // one of the two, the other is null
  const double* doubles_;
  std::size_t length_, stride_;
  int n_channels_;
  Orientation orientation_;
  double axes_[3][3];  // rows: where the new axes point
};

}  // namespace gesda
