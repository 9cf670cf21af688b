#include "cpp/motion/channels.hpp"

#include <algorithm>
#include <cmath>

namespace gesda {

void differentiate(const float* channel, int n_steps, double scale, float* velocity) {
  for (int t = 0; t < n_steps; ++t) {
    const int before = std::max(t - 1, 0), after = std::min(t + 1, n_steps - 1);
    const double difference = static_cast<double>(channel[after]) - static_cast<double>(channel[before]);
    velocity[t] = static_cast<float>(difference / std::max(after - before, 1) / scale);
  }
}

Spectrum::Spectrum(int n_steps) : values_(static_cast<std::size_t>(n_steps)), reversed_(values_.size()) {
  const double circle = 2.0 * std::acos(-1.0);
  for (std::size_t k = 0; k < values_.size() / 2; ++k) {
    turns_.push_back(std::polar(1.0, -circle * static_cast<double>(k) / n_steps));
  }
  for (std::size_t k = 1; k < values_.size(); ++k) {
    reversed_[k] = reversed_[k / 2] / 2 + (k % 2) * (values_.size() / 2);
  }
}

void Spectrum::measure(const float* channel, float* powers, std::size_t stride) {
  const std::size_t n_steps = values_.size();
  for (std::size_t t = 0; t < n_steps; ++t) values_[reversed_[t]] = static_cast<double>(channel[t]);
  transform();
  for (std::size_t band = 0; band < kBands; ++band) {
    double power = 0.0;
    for (std::size_t k = std::size_t{1} << band; k < std::size_t{2} << band && k <= n_steps / 2; ++k) {
      const double mirrored = 2 * k == n_steps ? 1.0 : 2.0;  // the highest frequency has no mirror image
      power += std::norm(values_[k]) * (mirrored / static_cast<double>(n_steps));
    }
    powers[band * stride] = static_cast<float>(std::log1p(power));
  }
}

// The fast Fourier transform (J. W. Cooley and J. W. Tukey, 1965), of values in bit-reversed order.
void Spectrum::transform() {
  const std::size_t n_steps = values_.size();
  for (std::size_t half = 1; half < n_steps; half *= 2) {
    for (std::size_t begin = 0; begin < n_steps; begin += 2 * half) {
      for (std::size_t k = 0; k < half; ++k) {
        std::complex<double>& low = values_[begin + k];
        std::complex<double>& high = values_[begin + k + half];
        const std::complex<double> turn = turns_[k * (n_steps / (2 * half))];
        // Written out: operator* looks for NaN first.
        const std::complex<double> turned(high.real() * turn.real() - high.imag() * turn.imag(),
                                          high.real() * turn.imag() + high.imag() * turn.real());
        high = low - turned;
        low += turned;
      }
    }
  }
}

}  // namespace gesda
