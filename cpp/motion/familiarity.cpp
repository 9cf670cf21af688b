#include "cpp/motion/familiarity.hpp"

#include <algorithm>
#include <cmath>

#include "cpp/runtime/error.hpp"

namespace gesda {
namespace {

constexpr double kTiny = 1e-12;
// A measure far above the usual is no merit: it must not make up for another that is far below.
constexpr double kMostMerit = 2.0;
constexpr std::size_t kMeasures = 3;

// out (columns) = in (rows) times a matrix (rows, columns).
template <class Number>
void multiply(const Number* in, const double* matrix, std::size_t rows, std::size_t columns, double* out) {
  std::fill(out, out + columns, 0.0);
  for (std::size_t i = 0; i < rows; ++i, matrix += columns) {
    const double value = in[i];
    for (std::size_t j = 0; j < columns; ++j) out[j] += value * matrix[j];
  }
}

void check_spread(const std::vector<double>& spread) {
  if (*std::min_element(spread.begin(), spread.end()) <= 0.0) {
    throw Error(GESDA_BAD_FILE, "the recogniser's spread of familiarity is not positive");
  }
}

}  // namespace

Familiarity::Familiarity(const ModelFile& file, int n_members, int n_gestures, int n_hidden)
    : n_members_(static_cast<std::size_t>(n_members)),
      n_gestures_(static_cast<std::size_t>(n_gestures)),
      n_hidden_(static_cast<std::size_t>(n_hidden)),
      whitening_(file.doubles("familiarity.whitening", {n_members, n_hidden, n_hidden})),
      means_(n_members_ * n_hidden_ * n_gestures_),
      squares_(n_members_ * n_gestures_),
      center_(file.doubles("familiarity.center", {kMeasures})),
      spread_(file.doubles("familiarity.spread", {kMeasures})),
      class_center_(file.doubles("familiarity.class_center", {n_gestures})),
      class_spread_(file.doubles("familiarity.class_spread", {n_gestures})),
      threshold_(file.doubles("familiarity.threshold", {})[0]),
      white_(n_hidden_),
      products_(n_gestures_),
      distances_(n_gestures_) {
  check_spread(spread_);
  check_spread(class_spread_);
  const std::vector<double> means = file.doubles("familiarity.means", {n_members, n_gestures, n_hidden});
  for (std::size_t i = 0; i < n_members_ * n_gestures_; ++i) {
    const std::size_t member = i / n_gestures_, gesture = i % n_gestures_;
    multiply(&means[i * n_hidden_], &whitening_[member * n_hidden_ * n_hidden_], n_hidden_, n_hidden_, white_.data());
    for (std::size_t h = 0; h < n_hidden_; ++h) {
      means_[(member * n_hidden_ + h) * n_gestures_ + gesture] = white_[h];
      squares_[i] += white_[h] * white_[h];
    }
  }
}

double Familiarity::score(const Committee& committee, int best, double error) {
  const std::vector<double>& probabilities = committee.probabilities();
  const double measures[kMeasures] = {std::log(*std::max_element(probabilities.begin(), probabilities.end()) + kTiny),
                                      score_alone(error), -std::log(nearest_distance(committee) + kTiny)};
  double merit = 0.0;
  for (std::size_t k = 0; k < kMeasures; ++k) merit += std::min((measures[k] - center_[k]) / spread_[k], kMostMerit);
  const auto gesture = static_cast<std::size_t>(best);
  return (merit / kMeasures - class_center_[gesture]) / class_spread_[gesture];
}

double Familiarity::score_alone(double error) { return -std::log(error + kTiny); }

// Mahalanobis' squared distance to the nearest gesture, the mean of those that the members see, a hidden unit.
double Familiarity::nearest_distance(const Committee& committee) {
  std::fill(distances_.begin(), distances_.end(), 0.0);
  for (std::size_t member = 0; member < n_members_; ++member) {
    add_distances(committee.encoding(static_cast<int>(member)), member);
  }
  return *std::min_element(distances_.begin(), distances_.end()) / static_cast<double>(n_members_);
}

void Familiarity::add_distances(const float* encoding, std::size_t member) {
  multiply(encoding, &whitening_[member * n_hidden_ * n_hidden_], n_hidden_, n_hidden_, white_.data());
  multiply(white_.data(), &means_[member * n_hidden_ * n_gestures_], n_hidden_, n_gestures_, products_.data());
  double square = 0.0;
  for (const double value : white_) square += value * value;
  for (std::size_t g = 0; g < n_gestures_; ++g) {
    const double squared = square + squares_[member * n_gestures_ + g] - 2.0 * products_[g];
    distances_[g] += std::max(squared, 0.0) / static_cast<double>(n_hidden_);
  }
}

}  // namespace gesda
