#include "cpp/motion/clock.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace gesda {

namespace {

// Beyond these a number is no measurement (float32 still squares it) and no time in seconds (it has no fractions).
constexpr double kMaxMagnitude = 1e12;
constexpr double kMaxTime = 1e11;

constexpr double kSpikeFactor = 20.0;
constexpr double kTolerance =
    1e-3;  // in grid intervals: stamps are rounded, and a row due a thousandth later is due now
constexpr double kCentreSeconds = 1.0;
constexpr double kScaleSeconds = 60.0;
constexpr double kWarmSeconds = 0.5;  // before a channel's scale is known, nothing is a spike
constexpr double kLostSeconds = 2.0;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// A channel lags by no more than max_gap and one step, and a step by no more than max_gap.
double rows_ahead(const ClockSettings& settings) {
  return std::ceil((2 * settings.max_gap + 3 / settings.rate) * settings.grid_rate) + 8;
}

// Rounded down; what no 64-bit number holds, as far as one goes.
std::int64_t whole(double value) {
  constexpr double kMost = 9e18;
  return static_cast<std::int64_t>(std::floor(value > -kMost ? std::min(value, kMost) : -kMost));
}

}  // namespace

Clock::Clock(const ClockSettings& settings, RowSink& sink)
    : sink_(&sink),
      n_channels_(static_cast<std::size_t>(settings.n_channels)),
      sample_rate_(settings.rate),
      grid_rate_(settings.grid_rate),
      max_gap_(settings.max_gap),
      centre_gain_(-std::expm1(-1 / (kCentreSeconds * settings.rate))),
      scale_decay_(std::exp(-1 / (kScaleSeconds * settings.rate))),
      warm_samples_(whole(std::ceil(kWarmSeconds * settings.rate))),
      lost_samples_(whole(std::ceil(kLostSeconds * settings.rate))),
      low_(n_channels_, -std::numeric_limits<float>::infinity()),
      high_(n_channels_, std::numeric_limits<float>::infinity()),
      channels_(n_channels_),
      waiting_sample_(n_channels_),
      ahead_(static_cast<std::int64_t>(rows_ahead(settings))),
      work_(static_cast<std::size_t>(ahead_) * n_channels_) {
  if (settings.low != nullptr) std::copy_n(settings.low, n_channels_, low_.begin());
  if (settings.high != nullptr) std::copy_n(settings.high, n_channels_, high_.begin());
  reset();
}

double Clock::bytes_needed(const ClockSettings& settings) {
  return settings.n_channels * (rows_ahead(settings) * sizeof(double) + sizeof(Channel) + 3 * sizeof(float));
}

// What waits in the run that ends, and the first row of the next; twice, as the sample before may have waited too.
double Clock::most_rows(const ClockSettings& settings) { return 2 * (rows_ahead(settings) + 1); }

void Clock::reset() {
  counts_ = {};
  started_ = running_ = waiting_ = false;
  row_out_ = since_anchor_ = 0;
  interval_ = tick_ = 1 / sample_rate_;
  row_time_ = value_time_ = run_time_ = anchor_time_ = waiting_time_ = 0;
  for (std::size_t c = 0; c < n_channels_; ++c) {
    channels_[c] = {};
    channels_[c].time = kNaN;
    channels_[c].low = low_[c];
    channels_[c].high = high_[c];
  }
}

int Clock::n_lost_channels() const {
  return static_cast<int>(std::count_if(channels_.begin(), channels_.end(), [this](const Channel& channel) {
    return channel.lost || channel.unchanged >= lost_samples_;
  }));
}

// ---- whose time is it ---------------------------------------------------------------------------------------------
void Clock::take(const float* sample) {
  ++counts_.received;
  // Not a sum: ten million steps would add up their errors.
  const double time = anchor_time_ + static_cast<double>(since_anchor_) / sample_rate_;
  ++since_anchor_;
  take_settled(sample, time);
}

void Clock::take(const float* sample, double time) {
  ++counts_.received;
  if (!(std::abs(time) <= kMaxTime)) {
    ++counts_.not_finite;
    return;
  }
  const double step = time - row_time_;
  if (started_ && !(0 < step && step <= max_gap_) && !follow_jump(sample, time, step)) return;
  counts_.late += waiting_ ? 1 : 0;
  waiting_ = false;
  anchor_time_ = time;
  since_anchor_ = 1;
  take_settled(sample, time);
}

// A time that jumps is believed when the next sample continues from there.
bool Clock::follow_jump(const float* sample, double time, double step) {
  if (step == 0) {
    ++counts_.duplicated;
    return false;
  }
  const double since = time - waiting_time_;
  if (waiting_ && 0 < since && since <= max_gap_) {
    waiting_ = false;
    take_settled(waiting_sample_.data(), waiting_time_);
    return true;
  }
  if (waiting_ && since == 0) {
    ++counts_.duplicated;
  } else if (-max_gap_ <= step && step < 0) {
    ++counts_.late;
  } else {
    counts_.late += waiting_ ? 1 : 0;
    waiting_ = true;
    waiting_time_ = time;
    std::copy_n(sample, n_channels_, waiting_sample_.begin());
  }
  return false;
}

// ---- what counts --------------------------------------------------------------------------------------------------
void Clock::take_settled(const float* sample, double time) {
  if (started_) {
    const double step = time - row_time_;
    if (0 < step && step <= max_gap_) {
      interval_ += (std::min(step, 4 * interval_) - interval_) / 64;
      // A quartile of the steps: what they would be if none were missing.
      tick_ *= step > tick_ ? 1.0125 : 0.9625;
    }
  }
  started_ = true;
  row_time_ = time;
  bool any_valid = false, any_believed = false, any_changed = false;
  for (std::size_t c = 0; c < n_channels_; ++c) {
    Channel& channel = channels_[c];
    judge(channel, time, sample[c]);
    if (!channel.valid) continue;
    any_valid = true;
    any_believed = any_believed || channel.believed;
    any_changed = any_changed || sample[c] != channel.value;
  }
  if (!any_valid) return;
  ++counts_.used;
  const double hole = time - value_time_;
  value_time_ = time;
  if (!running_ || !(0 < hole && hole <= max_gap_)) {
    begin_run(time);
  } else if (hole > 1.5 * tick_ && !any_believed) {
    count_missing(hole);
  }
  fill_channels(sample, time, any_changed);
  emit();
}

// Decides whether a channel's value counts; a far one is put aside until it is known whether it lasts.
void Clock::judge(Channel& channel, double time, double value) {
  channel.valid = channel.believed = false;
  if (!std::isfinite(value)) {
    ++counts_.not_finite;
    return;
  }
  if (std::abs(value) > kMaxMagnitude || value < channel.low || value > channel.high) {
    ++counts_.out_of_range;
    return;
  }
  if (channel.seen == 0) channel.centre = value;
  const double distance = std::abs(value - channel.centre);
  if (channel.seen >= warm_samples_ && channel.scale > 0 && distance > kSpikeFactor * channel.scale) {
    if (channel.wild < 2) {
      channel.wild_times[channel.wild] = time;
      channel.wild_values[channel.wild] = value;
      ++channel.wild;
      return;
    }
    channel.believed = true;
  } else {
    counts_.out_of_range += static_cast<std::uint64_t>(channel.wild);
  }
  channel.wild = 0;
  channel.valid = true;
  ++channel.seen;
  channel.scale = std::max(distance, channel.scale * scale_decay_);
  channel.centre += (value - channel.centre) * centre_gain_;
}

void Clock::count_missing(double hole) {
  constexpr double kMost = 9e15;  // time stamps may be closer than any clock's
  counts_.missing += static_cast<std::uint64_t>(std::nearbyint(std::min(hole / tick_, kMost))) - 1;
}

// ---- rows ---------------------------------------------------------------------------------------------------------
void Clock::begin_run(double time) {
  if (running_) {
    ++counts_.gaps;
    // What still waits for a channel that did not come belongs to the run that ends.
    complete();
  }
  running_ = true;
  run_time_ = time;
  row_out_ = 0;
  for (Channel& channel : channels_) {
    channel.time = kNaN;
    channel.row = 0;
    channel.believed = false;
  }
}

void Clock::fill_channels(const float* sample, double time, bool any_changed) {
  const double since = time - run_time_;
  for (std::size_t c = 0; c < n_channels_; ++c) {
    Channel& channel = channels_[c];
    if (channel.valid) {
      for (int i = 0; channel.believed && i < 2; ++i) {
        // Later than now, if the clock was put back since: rows of a time that may never come.
        if (channel.wild_times[i] <= time) fill(c, channel.wild_times[i] - run_time_, channel.wild_values[i]);
      }
      if (sample[c] != channel.value) {
        channel.unchanged = 0;
      } else if (any_changed) {
        ++channel.unchanged;
      }
      channel.lost = false;
      fill(c, since, sample[c]);
    } else if (channel.lost || since - (std::isnan(channel.time) ? 0.0 : channel.time) > max_gap_) {
      channel.lost = true;
      fill(c, since, channel.value);
    }
  }
}

// Brings one channel up to a time (from the start of the run), on a line from its last value to this one.
void Clock::fill(std::size_t c, double time, double value) {
  Channel& channel = channels_[c];
  const std::int64_t last = whole(time * grid_rate_ + kTolerance);
  for (; channel.row <= last; ++channel.row) {
    const double at = static_cast<double>(channel.row) / grid_rate_;
    double filled = value;
    if (!std::isnan(channel.time) && (time - at) * grid_rate_ > kTolerance) {
      filled = channel.value + (at - channel.time) / (time - channel.time) * (value - channel.value);
    }
    work_[place(channel.row) + c] = filled;
  }
  channel.time = time;
  channel.value = value;
}

// Hands on the rows that all channels have reached.
void Clock::emit() {
  std::int64_t complete = channels_[0].row;
  for (const Channel& channel : channels_) complete = std::min(complete, channel.row);
  for (; row_out_ < complete; ++row_out_) {
    if (row_out_ == 0) sink_->begin_run(run_time_);
    sink_->take_row(&work_[place(row_out_)]);
  }
}

// Where a row stands in the ring.
std::size_t Clock::place(std::int64_t row) const { return static_cast<std::size_t>(row % ahead_) * n_channels_; }

void Clock::finish() {
  if (running_) complete();
}

// Brings all channels to where the furthest is; those behind keep their last value.
void Clock::complete() {
  std::int64_t furthest = 0;
  for (Channel& channel : channels_) {
    counts_.out_of_range += static_cast<std::uint64_t>(channel.wild);
    channel.wild = 0;
    furthest = std::max(furthest, channel.row);
  }
  for (std::size_t c = 0; c < n_channels_; ++c) {
    if (channels_[c].row >= furthest) continue;
    fill(c, static_cast<double>(furthest - 1) / grid_rate_, channels_[c].value);
  }
  emit();
}

}  // namespace gesda
