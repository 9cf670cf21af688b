#include "cpp/motion/spotter.hpp"

#include <algorithm>
#include <cmath>

namespace gesda {

namespace {

// Ratios of variances: squares of those that spotting.py tells in words.
constexpr double kGoesOn = 1.9 * 1.9;
constexpr double kBeginsOverGoesOn = 1.8;
// In a window of few samples noise varies more: motion exceeds what it does in one window of so many.
constexpr double kRarely = 3e-4;
constexpr double kOfPeak = 0.15 * 0.15;
constexpr double kFallSeconds = 0.2;
constexpr double kRestSeconds = 0.7;
// What is this many times the variance of a window has never been rest, but came from a run that began in motion.
constexpr double kNotRest = 10.0;
// The rest level is never further below a motion than this, so that it can rise to it within a minute.
constexpr double kDeepest = 1e-6;
constexpr double kRounding = 1e-12;  // relative variance that rounding may feign
// A stop is this many times stiller than the motion on either side, as a standard deviation.
constexpr double kStopDepth = 2.0;
// No more samples of the window than these are looked at, whatever the rate.
constexpr std::int64_t kWindowSamples = 24;
constexpr int kChannelsPerNeeded = 20;

// The probability that a sum of squares of so many normal numbers exceeds x: a finite sum for whole degrees of freedom
// (Abramowitz and Stegun, 26.4.4 and 26.4.5).
double chi_square_exceeds(double x, int freedom) {
  const double h = x / 2;
  const double half = freedom % 2 == 1 ? 0.5 : 0.0;
  double probability = half > 0 ? std::erfc(std::sqrt(h)) : 0.0;
  double term = std::pow(h, half) * std::exp(-h) / std::tgamma(half + 1);
  for (int i = 0; i < freedom / 2; ++i) {
    probability += term;
    term *= h / (half + i + 1);
  }
  return probability;
}

// What it exceeds with a probability; by bisection, down to the last bit.
double chi_square_quantile(int freedom, double probability) {
  double low = 0, high = 1e3;
  while (true) {
    const double middle = (low + high) / 2;
    if (middle <= low || middle >= high) return middle;
    (chi_square_exceeds(middle, freedom) > probability ? low : high) = middle;
  }
}

// The ratio to its rest level over which the variance of so many samples says that motion goes on.
double goes_on_ratio(int samples) {
  constexpr int kMostFreedom = 16;  // with more, noise is under the ratio that is wanted anyway
  const int freedom = std::max(1, samples - 1);
  if (freedom > kMostFreedom) return kGoesOn;
  return std::max(kGoesOn, chi_square_quantile(freedom, kRarely) / freedom);
}

int samples_in_window(const SpotterSettings& settings) {
  const auto window = static_cast<double>(settings.lengths.window);
  const double samples = std::nearbyint(window * settings.sample_rate / settings.rate);
  return static_cast<int>(std::min({samples, window, 1e6}));
}

}  // namespace

Spotter::Spotter(const SpotterSettings& settings)
    : n_channels_(static_cast<std::size_t>(settings.n_channels)),
      rate_(settings.rate),
      lengths_(settings.lengths),
      stride_((lengths_.window + kWindowSamples - 1) / kWindowSamples),
      needed_((settings.n_channels + kChannelsPerNeeded - 1) / kChannelsPerNeeded),
      goes_on_(goes_on_ratio(samples_in_window(settings))),
      begins_(kBeginsOverGoesOn * goes_on_),
      fall_(-std::expm1(-1 / (kFallSeconds * rate_))),
      follow_(-std::expm1(-1 / (kRestSeconds * rate_))),
      rise_(std::pow(std::pow(10.0, 0.1), 1 / rate_)),  // 1 dB a second
      peak_decay_(std::exp(-1 / static_cast<double>(lengths_.longest))),
      levels_(n_channels_),
      mean_(n_channels_),
      variance_(n_channels_),
      capacity_(static_cast<std::int64_t>(capacity(lengths_))),
      ring_(static_cast<std::size_t>(capacity_) * n_channels_) {
  reset();
}

// While a motion is scanned, the scan may be behind by one longest motion and look back by another.
double Spotter::capacity(const Lengths& lengths) {
  return static_cast<double>(2 * lengths.longest + lengths.pause + lengths.window + 2 * lengths.hop);
}

double Spotter::bytes_needed(const SpotterSettings& settings) {
  return settings.n_channels * (capacity(settings.lengths) * sizeof(float) + sizeof(Level) + 2 * sizeof(double));
}

void Spotter::reset() {
  in_motion_ = false;
  row_ = start_ = last_ = last_clear_ = earliest_ = next_scan_ = cut_off_ = motions_ = written_ = 0;
  ended_ = {0, 0};
  run_time_ = 0;
  std::fill(levels_.begin(), levels_.end(), Level{0, 0});
  std::fill(ring_.begin(), ring_.end(), 0.0F);
}

Todo Spotter::take(const double* row) {
  float* kept = &ring_[place(row_)];
  for (std::size_t c = 0; c < n_channels_; ++c) kept[c] = static_cast<float>(row[c]);
  const std::int64_t at = row_++;
  written_ = row_;
  if (row_ < lengths_.window) return Todo::kNothing;
  measure_activity(at);
  const Exceeding channels = compare_with_rest();
  if (channels.above >= needed_) {
    if (!in_motion_) begin_motion(at);
    last_ = at;
  }
  if (channels.clearly >= needed_) last_clear_ = at;
  if (!in_motion_) return Todo::kNothing;
  if (at - last_ >= lengths_.pause) {
    end_motion();
    cut_off_ = ended_.end;
    return Todo::kEnded;
  }
  if (at - last_ == (lengths_.pause + 1) / 2) {
    cut_off_ = rest_begins();
    return Todo::kRested;
  }
  if (at - start_ + 1 >= next_scan_) {
    next_scan_ += lengths_.hop;
    return Todo::kScan;
  }
  return Todo::kNothing;
}

// Mean and variance of each channel over the trailing window, summed afresh: running sums would keep rounding errors.
void Spotter::measure_activity(std::int64_t row) {
  const std::int64_t n = (lengths_.window + stride_ - 1) / stride_;
  const std::int64_t newest = row % capacity_;
  const auto back = [this](std::int64_t at) { return at < stride_ ? at - stride_ + capacity_ : at - stride_; };

  std::fill(mean_.begin(), mean_.end(), 0.0);
  for (std::int64_t i = 0, at = newest; i < n; ++i, at = back(at)) {
    const float* values = &ring_[static_cast<std::size_t>(at) * n_channels_];
    for (std::size_t c = 0; c < n_channels_; ++c) mean_[c] += values[c];
  }
  for (double& mean : mean_) mean /= static_cast<double>(n);
  std::fill(variance_.begin(), variance_.end(), 0.0);
  for (std::int64_t i = 0, at = newest; i < n; ++i, at = back(at)) {
    const float* values = &ring_[static_cast<std::size_t>(at) * n_channels_];
    for (std::size_t c = 0; c < n_channels_; ++c) {
      const double difference = values[c] - mean_[c];
      variance_[c] += difference * difference;
    }
  }
  for (double& variance : variance_) variance /= static_cast<double>(n);
}

// How many channels move, and what is rest from now on.
Spotter::Exceeding Spotter::compare_with_rest() {
  Exceeding channels{0, 0};
  for (std::size_t c = 0; c < n_channels_; ++c) {
    Level& level = levels_[c];
    const double variance = variance_[c];
    if (row_ == lengths_.window) level.rest = 2 * variance;  // a single window may be stiller than most
    const double rounding = kRounding * (mean_[c] * mean_[c]);
    const double rest = std::max(level.rest, rounding);
    if (in_motion_) {
      level.peak = std::max(variance, level.peak * peak_decay_);
      channels.above += variance > std::max(goes_on_ * rest, kOfPeak * level.peak) ? 1 : 0;
      channels.clearly += variance > std::max(begins_ * rest, kOfPeak * level.peak) ? 1 : 0;
    } else {
      if (motions_ == 0) level.peak = std::max(level.peak, variance - rounding);
      channels.above += variance > begins_ * rest ? 1 : 0;
      channels.clearly = channels.above;
    }
    if (variance <= level.rest) {
      // In motion any stiller window is a better guess; at rest it is as good as one that is less still.
      const double gain = in_motion_ ? fall_ : follow_;
      level.rest = std::min(level.rest + (variance - level.rest) * gain, kNotRest * variance);
    } else if (variance <= goes_on_ * rest) {
      level.rest += (variance - level.rest) * follow_;
    } else {
      level.rest = std::max(level.rest, kDeepest * variance) * rise_;
    }
  }
  return channels;
}

void Spotter::begin_motion(std::int64_t row) {
  in_motion_ = true;
  // Nothing is known of rest before the first pause: the first motion may have begun with the run.
  const bool rest_is_known = row >= lengths_.window + lengths_.pause;
  start_ = rest_is_known ? std::max(earliest_, row - lengths_.window / 2) : earliest_;
  next_scan_ = lengths_.longest;
  ++motions_;
  for (Level& level : levels_) level.peak = 0;
}

// Ends the motion, if there is one, at this row; whether there was something to look at.
bool Spotter::end_motion() {
  bool found = false;
  cut_off_ = row_;
  if (in_motion_) {
    // Noise may have put the end off, but not where the motion was last clear. Motion that was going on at the last row
    // fills the window; one that had ended before left it on the way.
    ended_ = {start_, last_ == row_ - 1 ? row_ : rest_begins()};
    found = true;
  } else if (motions_ == 0 && row_ > 0 && row_ - earliest_ <= lengths_.longest) {
    // Too short for rest to be known: perhaps a sensor that sends while it moves, and nothing else.
    ended_ = {earliest_, row_};
    found = std::any_of(levels_.begin(), levels_.end(), [](const Level& level) { return level.peak > 0; });
  }
  in_motion_ = false;
  ++motions_;
  earliest_ = found ? ended_.end : row_;
  for (Level& level : levels_) level.peak = 0;
  return found;
}

// Where a row stands in the ring.
std::size_t Spotter::place(std::int64_t row) const { return static_cast<std::size_t>(row % capacity_) * n_channels_; }

// The row after the last of a motion that has come to rest.
std::int64_t Spotter::rest_begins() const { return last_clear_ - lengths_.window / 2 + 1; }

bool Spotter::finish() { return end_motion(); }

bool Spotter::end_run() {
  const bool found = row_ > 0 && end_motion();
  row_ = 0;
  return found;
}

void Spotter::begin_run(double time) {
  run_time_ = time;
  earliest_ = motions_ = 0;
}

void Spotter::cut(Stretch stretch, double* out) const {
  for (std::int64_t row = stretch.begin; row < stretch.end; ++row) {
    out = std::copy_n(&ring_[place(row)], n_channels_, out);
  }
}

void Spotter::cut_channel(Stretch stretch, std::size_t channel, double* out) const {
  for (std::int64_t row = stretch.begin; row < stretch.end; ++row) {
    *out++ = ring_[place(row) + channel];
  }
}

// ---- stops --------------------------------------------------------------------------------------------------------
namespace {

// Whether values fall by kStopDepth from a peak in one direction, before one is higher than it: what SciPy's find_peaks
// calls a prominence, as far as it is asked for.
bool falls_away(const std::vector<double>& values, std::ptrdiff_t n, std::ptrdiff_t peak, std::ptrdiff_t step) {
  const double depth = std::log(kStopDepth);
  const double top = values[static_cast<std::size_t>(peak)];
  for (std::ptrdiff_t i = peak; i >= 0 && i < n; i += step) {
    const double value = values[static_cast<std::size_t>(i)];
    if (value > top) return false;
    if (top - value >= depth) return true;
  }
  return false;
}

// The sum of value(begin), value(begin + 1), ..., n of them, in the order of NumPy's pairwise sum.
template <class Value>
double sum_in_pairs(std::size_t begin, std::size_t n, const Value& value) {
  constexpr std::size_t kAtOnce = 8, kMost = 128;
  if (n > kMost) {
    const std::size_t half = n / 2 / kAtOnce * kAtOnce;
    return sum_in_pairs(begin, half, value) + sum_in_pairs(begin + half, n - half, value);
  }
  std::size_t i = 0;
  double total = 0;
  if (n >= kAtOnce) {
    double part[kAtOnce] = {};
    for (; i + kAtOnce <= n; i += kAtOnce) {
      for (std::size_t j = 0; j < kAtOnce; ++j) part[j] += value(begin + i + j);
    }
    total = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
  }
  for (; i < n; ++i) total += value(begin + i);
  return total;
}

}  // namespace

StopFinder::StopFinder(std::int64_t longest)
    : channel_(static_cast<std::size_t>(longest)),
      mean_(static_cast<std::size_t>(longest)),
      variance_(static_cast<std::size_t>(longest)),
      stillness_(static_cast<std::size_t>(longest)) {}

double StopFinder::bytes_needed(std::int64_t longest) { return 4.0 * sizeof(double) * static_cast<double>(longest); }

std::size_t StopFinder::find(const Spotter& spotter, Stretch motion, std::int64_t* stops) {
  const std::int64_t window = spotter.lengths().window;
  if (motion.end - motion.begin <= window) return 0;
  const auto n = static_cast<std::size_t>(motion.end - motion.begin - window + 1);  // windows
  std::fill_n(stillness_.begin(), n, 0.0);
  for (std::size_t c = 0; c < spotter.n_channels(); ++c) {
    spotter.cut_channel(motion, c, channel_.data());
    add_activity(n, static_cast<std::size_t>(window), spotter.n_channels() == 1);
  }
  for (std::size_t i = 0; i < n; ++i) stillness_[i] = -0.5 * std::log(stillness_[i] + kDeepest);

  // A plateau is a peak at its middle.
  std::size_t n_stops = 0;
  for (std::size_t i = 1; i + 1 < n; ++i) {
    if (!(stillness_[i - 1] < stillness_[i])) continue;
    std::size_t after = i + 1;
    while (after + 1 < n && stillness_[after] == stillness_[i]) ++after;
    if (!(stillness_[after] < stillness_[i])) continue;
    const auto middle = static_cast<std::ptrdiff_t>((i + after - 1) / 2);
    const auto count = static_cast<std::ptrdiff_t>(n);
    if (falls_away(stillness_, count, middle, -1) && falls_away(stillness_, count, middle, 1)) {
      stops[n_stops++] = motion.begin + middle + window / 2;
    }
    i = after - 1;
  }
  return n_stops;
}

// Raises stillness_, activity so far, to that of the channel at hand: the variance of each window, of the highest.
void StopFinder::add_activity(std::size_t n, std::size_t window, bool alone) {
  if (alone) {
    measure_in_pairs(n, window);
  } else {
    measure_side_by_side(n, window);
  }
  const double peak = *std::max_element(variance_.begin(), variance_.begin() + static_cast<std::ptrdiff_t>(n));
  if (!(peak > 0)) return;
  for (std::size_t i = 0; i < n; ++i) stillness_[i] = std::max(stillness_[i], variance_[i] / peak);
}

// Each window summed in the order of its rows, and all windows side by side, so that the compiler takes several at
// once.
void StopFinder::measure_side_by_side(std::size_t n, std::size_t window) {
  std::fill_n(mean_.begin(), n, 0.0);
  std::fill_n(variance_.begin(), n, 0.0);
  for (std::size_t k = 0; k < window; ++k) {
    for (std::size_t i = 0; i < n; ++i) mean_[i] += channel_[i + k];
  }
  for (std::size_t i = 0; i < n; ++i) mean_[i] /= static_cast<double>(window);
  for (std::size_t k = 0; k < window; ++k) {
    for (std::size_t i = 0; i < n; ++i) {
      const double difference = channel_[i + k] - mean_[i];
      variance_[i] += difference * difference;
    }
  }
  for (std::size_t i = 0; i < n; ++i) variance_[i] /= static_cast<double>(window);
}

// Where there is one channel only, NumPy adds in another order. In data of few distinct values many windows are as
// still as one another, and the last bit says which of them is a stop.
void StopFinder::measure_in_pairs(std::size_t n, std::size_t window) {
  for (std::size_t i = 0; i < n; ++i) {
    const double mean =
        sum_in_pairs(i, window, [this](std::size_t k) { return channel_[k]; }) / static_cast<double>(window);
    const auto square = [this, mean](std::size_t k) { return (channel_[k] - mean) * (channel_[k] - mean); };
    variance_[i] = sum_in_pairs(i, window, square) / static_cast<double>(window);
  }
}

}  // namespace gesda
