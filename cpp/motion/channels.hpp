// What is added to a motion's own channels: its velocity and its spectrum.
// gesda/deepmotion/features/channels.py is the same in Python.
#pragma once

#include <complex>
#include <cstddef>
#include <vector>

namespace gesda {

// Difference quotients of a channel in units a step, divided by a scale: central ones, one-sided at both ends.
void differentiate(const float* channel, int n_steps, double scale, float* velocity);

// Logarithms of a channel's power in eight bands, each twice as wide as the one below.
class Spectrum {
 public:
  static constexpr int kBands = 8;

  explicit Spectrum(int n_steps);  // a power of two
  // powers: those of band b at [b * stride].
  void measure(const float* channel, float* powers, std::size_t stride);

 private:
  void transform();

  std::vector<std::complex<double>> values_, turns_;  // turns: exp(-2 pi i k / n_steps) for the first half of k
  std::vector<std::size_t> reversed_;                 // step numbers with their bits in reverse order
};

}  // namespace gesda
