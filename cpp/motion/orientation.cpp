#include "cpp/motion/orientation.hpp"

#include <algorithm>
#include <cmath>

namespace gesda {
namespace {

// A rotation by Jacobi's method is exact to rounding after a few sweeps; it converges quadratically.
constexpr int kSweeps = 12;

double dot(const double* a, const double* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

void normalize(double* vector) {
  const double length = std::sqrt(dot(vector, vector));
  for (int k = 0; k < 3; ++k) vector[k] /= length;
}

void take_off(const double* direction, double* vector) {
  const double along = dot(vector, direction);
  for (int k = 0; k < 3; ++k) vector[k] -= along * direction[k];
}

// Turns axes p and q so that the symmetric matrix's element (p, q) becomes 0 (Golub and Van Loan, "Matrix
// Computations", section 8.5.2), and the columns of `vectors` with them.
void rotate(double (*matrix)[3], double (*vectors)[3], int p, int q) {
  if (matrix[p][q] == 0.0) return;
  const double tau = (matrix[q][q] - matrix[p][p]) / (2.0 * matrix[p][q]);
  const double tangent = (tau >= 0.0 ? 1.0 : -1.0) / (std::fabs(tau) + std::hypot(1.0, tau));
  const double cosine = 1.0 / std::hypot(1.0, tangent), sine = tangent * cosine;
  for (int k = 0; k < 3; ++k) {
    const double at_p = matrix[k][p], at_q = matrix[k][q];
    matrix[k][p] = cosine * at_p - sine * at_q;
    matrix[k][q] = sine * at_p + cosine * at_q;
  }
  for (int k = 0; k < 3; ++k) {
    const double at_p = matrix[p][k], at_q = matrix[q][k];
    matrix[p][k] = cosine * at_p - sine * at_q;
    matrix[q][k] = sine * at_p + cosine * at_q;
  }
  for (int k = 0; k < 3; ++k) {
    const double at_p = vectors[k][p], at_q = vectors[k][q];
    vectors[k][p] = cosine * at_p - sine * at_q;
    vectors[k][q] = sine * at_p + cosine * at_q;
  }
}

// The eigenvector of the largest eigenvalue of a symmetric matrix, which is overwritten; the first axis for 0.
void principal_axis(double (*matrix)[3], double* axis) {
  double vectors[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    rotate(matrix, vectors, 0, 1);
    rotate(matrix, vectors, 0, 2);
    rotate(matrix, vectors, 1, 2);
  }
  int largest = 0;
  for (int k = 1; k < 3; ++k) largest = matrix[k][k] > matrix[largest][largest] ? k : largest;
  for (int k = 0; k < 3; ++k) axis[k] = vectors[k][largest];
}

}  // namespace

OrientedMotion::OrientedMotion(const Motion<float>& motion, int n_channels, Orientation orientation)
    : OrientedMotion(motion.samples, nullptr, motion.length, motion.stride, n_channels, orientation) {}

OrientedMotion::OrientedMotion(const Motion<double>& motion, int n_channels, Orientation orientation)
    : OrientedMotion(nullptr, motion.samples, motion.length, motion.stride, n_channels, orientation) {}

OrientedMotion::OrientedMotion(const float* floats, const double* doubles, std::size_t length, std::size_t stride,
                               int n_channels, Orientation orientation)
    : floats_(floats),
      doubles_(doubles),
      length_(length),
      stride_(stride),
      n_channels_(n_channels),
      orientation_(orientation),
      axes_{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}} {
  if (orientation == Orientation::kGravity) find_axes();
}

double OrientedMotion::value(std::size_t i, int channel) const {
  const std::size_t place = i * stride_ + static_cast<std::size_t>(channel);
  return floats_ != nullptr ? floats_[place] : static_cast<float>(doubles_[place]);
}

void OrientedMotion::read(std::size_t i, double* sample) const {
  if (orientation_ == Orientation::kKeep) {
    for (int c = 0; c < n_channels_; ++c) sample[c] = value(i, c);
    return;
  }
  for (int c = 0; c < n_channels_; c += 3) {
    const double triple[3] = {value(i, c), value(i, c + 1), value(i, c + 2)};
    if (orientation_ == Orientation::kMagnitude) {
      sample[c / 3] = std::sqrt(dot(triple, triple));
    } else {
      for (int k = 0; k < 3; ++k) sample[c + k] = dot(triple, axes_[k]);
    }
  }
}

// The mean acceleration becomes the third axis, the direction of most horizontal acceleration the first one.
void OrientedMotion::find_axes() {
  double down[3], heading[3];
  if (!find_down(down)) return;
  find_heading(down, heading);
  const double side[3] = {down[1] * heading[2] - down[2] * heading[1], down[2] * heading[0] - down[0] * heading[2],
                          down[0] * heading[1] - down[1] * heading[0]};
  for (int k = 0; k < 3; ++k) {
    axes_[0][k] = heading[k];
    axes_[1][k] = side[k];
    axes_[2][k] = down[k];
  }
}

// Whether there is a mean acceleration to go by.
bool OrientedMotion::find_down(double* down) const {
  double largest = 0.0;
  for (int k = 0; k < 3; ++k) down[k] = 0.0;
  for (std::size_t i = 0; i < length_; ++i) {
    for (int k = 0; k < 3; ++k) {
      down[k] += value(i, k);
      largest = std::max(largest, std::fabs(value(i, k)));
    }
  }
  for (int k = 0; k < 3; ++k) down[k] /= static_cast<double>(length_);
  const double strength = std::sqrt(dot(down, down));
  if (strength <= 1e-9 * largest || strength == 0.0) return false;
  for (int k = 0; k < 3; ++k) down[k] /= strength;
  return true;
}

void OrientedMotion::find_heading(const double* down, double* heading) const {
  double moments[3][3] = {};  // of the horizontal acceleration: its principal axis is the SVD's first right vector
  for (std::size_t i = 0; i < length_; ++i) {
    double horizontal[3] = {value(i, 0), value(i, 1), value(i, 2)};
    take_off(down, horizontal);
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 3; ++k) moments[j][k] += horizontal[j] * horizontal[k];
    }
  }
  principal_axis(moments, heading);
  take_off(down, heading);
  if (dot(heading, heading) < 0.25) {  // no horizontal motion: any direction at right angles will do
    int least = 0;
    for (int k = 1; k < 3; ++k) least = std::fabs(down[k]) < std::fabs(down[least]) ? k : least;
    for (int k = 0; k < 3; ++k) heading[k] = k == least ? 1.0 : 0.0;
    take_off(down, heading);
  }
  normalize(heading);
  double largest = 0.0;  // it points where the largest acceleration along it does
  for (std::size_t i = 0; i < length_; ++i) {
    double horizontal[3] = {value(i, 0), value(i, 1), value(i, 2)};
    take_off(down, horizontal);
    const double along = dot(horizontal, heading);
    if (std::fabs(along) > std::fabs(largest)) largest = along;
  }
  if (largest < 0.0) {
    for (int k = 0; k < 3; ++k) heading[k] = -heading[k];
  }
}

}  // namespace gesda
