#include "cpp/motion/stream.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "cpp/runtime/error.hpp"

namespace gesda {

namespace {

// What a gesture may be shorter or longer than all that were taught: people are not clocks.
constexpr double kShortest = 0.5;
constexpr double kLongest = 1.5;
constexpr double kAnyShortest = 0.3;  // seconds, as long as the recogniser has been taught nothing
constexpr double kAnyLongest = 3.0;
constexpr double kWindowSeconds = 0.15;
constexpr double kMaxGapSeconds = 0.25;
constexpr double kLowestRate = 1e-3, kHighestRate = 1e6;  // Hz
constexpr double kMostBytes = 256e6;
constexpr std::size_t kWaitingEvents = 256;  // that a stream keeps beyond what a sample and a flush may bring

std::string text(double value) {
  char digits[32];
  std::snprintf(digits, sizeof(digits), "%g", value);
  return digits;
}

void check_range(const char* name, double value, double low, double high, const char* unit) {
  if (low <= value && value <= high) return;
  throw Error(GESDA_INVALID_ARGUMENT, std::string(name) + " is " + text(value) + "; give a number from " + text(low) +
                                          " to " + text(high) + " " + unit);
}

void check_limits(const StreamOptions& options, int n_channels) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (int c = 0; c < n_channels; ++c) {
    const float low = options.low == nullptr ? -kInfinity : options.low[c];
    const float high = options.high == nullptr ? kInfinity : options.high[c];
    if (low < high) continue;
    throw Error(GESDA_INVALID_ARGUMENT, "limits of channel " + std::to_string(c) + " are " + text(low) + " and " +
                                            text(high) + "; give the lower one first");
  }
}

// Shortest and longest gesture in seconds; rate: rows per second.
std::pair<double, double> taught_durations(const MotionRecognizer& recognizer, double rate) {
  if (recognizer.n_gestures() <= 0) return {kAnyShortest, kAnyLongest};
  const double unit = recognizer.rate() == 0 ? rate : 1.0;
  const double shortest = recognizer.shortest() / unit, longest = recognizer.longest() / unit;
  if (0 <= shortest && shortest <= longest && std::isfinite(longest)) return {shortest, longest};
  return {kAnyShortest, kAnyLongest};
}

// Lengths from the shortest to the longest in equal ratios, in whole rows, each once.
std::vector<std::int64_t> lengths_between(double shortest, double longest, int n) {
  std::vector<std::int64_t> lengths;
  const double from = std::log10(shortest), step = n > 1 ? (std::log10(longest) - from) / (n - 1) : 0.0;
  for (int i = 0; i < n; ++i) {
    double length = std::pow(10.0, i * step + from);
    if (i == n - 1) length = longest;
    if (i == 0) length = shortest;
    lengths.push_back(static_cast<std::int64_t>(std::nearbyint(length)));
  }
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  return lengths;
}

}  // namespace

// All settings, checked, and what they take in memory.
struct MotionStream::Plan {
  ClockSettings clock;
  JudgeSettings judge;
  double sample_events, flush_events;

  Plan(const MotionRecognizer& recognizer, const StreamOptions& options);

 private:
  void plan_clock(const MotionRecognizer& recognizer, const StreamOptions& options);
  void plan_judge(const MotionRecognizer& recognizer, const StreamOptions& options);
  void check_memory() const;
};

MotionStream::Plan::Plan(const MotionRecognizer& recognizer, const StreamOptions& options) {
  if (recognizer.n_channels() < 1) {
    throw Error(GESDA_INVALID_ARGUMENT, "the recogniser has " + std::to_string(recognizer.n_channels()) +
                                            " channels; a stream needs one or more");
  }
  plan_clock(recognizer, options);
  plan_judge(recognizer, options);
  const double rows = Clock::most_rows(clock);
  // A sample may begin two runs, which end others.
  sample_events = Judge::most_events(judge.spotter.lengths, rows, 2);
  flush_events = Judge::most_events(judge.spotter.lengths, rows, 1);
  check_memory();
}

void MotionStream::Plan::plan_clock(const MotionRecognizer& recognizer, const StreamOptions& options) {
  const double known_rate = recognizer.rate();
  if (options.rate == 0 && known_rate == 0) {
    throw Error(GESDA_INVALID_ARGUMENT,
                "neither the recogniser nor the stream knows a rate: give rate, in samples per second");
  }
  if (known_rate != 0) check_range("the recogniser's rate", known_rate, kLowestRate, kHighestRate, "Hz");
  const double rate = options.rate == 0 ? known_rate : options.rate;
  check_range("rate", rate, kLowestRate, kHighestRate, "Hz");
  check_range("pause", options.pause, 0.01, 60, "seconds");
  const double max_gap = options.max_gap == 0 ? std::max(kMaxGapSeconds, 5 / rate) : options.max_gap;
  check_range("max_gap", max_gap, 3 / rate, 1000 / rate + 60, "seconds");
  check_range("candidates", options.candidates, 1, 64, "lengths");
  check_limits(options, recognizer.n_channels());
  const double grid_rate = known_rate == 0 ? rate : known_rate;
  clock = {recognizer.n_channels(), rate, grid_rate, max_gap, options.low, options.high};
}

void MotionStream::Plan::plan_judge(const MotionRecognizer& recognizer, const StreamOptions& options) {
  const double rate = clock.grid_rate;
  const auto [shortest_seconds, longest_seconds] = taught_durations(recognizer, rate);
  const double shortest = std::max(4.0, std::nearbyint(shortest_seconds * rate));
  const double longest = std::max(shortest, std::nearbyint(longest_seconds * rate));
  if (!(longest <= kMostBytes)) {
    throw Error(GESDA_INVALID_ARGUMENT, "the recogniser's longest gesture takes " + text(longest_seconds) + " s, or " +
                                            text(longest) + " samples; no stream can keep so many");
  }
  const auto rows = [](double number) { return static_cast<std::int64_t>(number); };
  Lengths lengths;
  lengths.window = rows(std::max(3.0, std::nearbyint(std::min(kWindowSeconds * rate, shortest / 4))));
  lengths.pause = rows(std::max(3.0, std::nearbyint(options.pause * rate)));
  lengths.shortest = rows(std::ceil(kShortest * shortest));
  lengths.longest = rows(std::ceil(kLongest * longest));
  // An end is missed by an eighth of the shortest gesture at worst; the second bound is for very unlike ones.
  lengths.hop = rows(std::max({1.0, std::nearbyint(shortest / 4), std::nearbyint(longest / 16)}));
  judge.spotter = {clock.n_channels, rate, clock.rate, lengths};
  judge.gesture_lengths = lengths_between(shortest, longest, options.candidates);
  judge.threshold = recognizer.threshold();
  judge.any_gesture = recognizer.n_gestures() > 0;
  judge.unknown = options.unknown;
  judge.continuous = options.continuous;
}

void MotionStream::Plan::check_memory() const {
  const double bytes = Clock::bytes_needed(clock) + Judge::bytes_needed(judge) +
                       (sample_events + flush_events + kWaitingEvents) * sizeof(Event);
  if (bytes <= kMostBytes) return;
  const double longest = static_cast<double>(judge.spotter.lengths.longest) / clock.grid_rate;
  throw Error(GESDA_OUT_OF_MEMORY, "this stream would take " + text(std::ceil(bytes / 1e6)) + " MB, for " +
                                       std::to_string(clock.n_channels) + " channels at " + text(clock.grid_rate) +
                                       " Hz, gestures of up to " + text(longest) + " s and holes of up to " +
                                       text(clock.max_gap) + " s; the most is " + text(kMostBytes / 1e6) +
                                       " MB: give a smaller max_gap or pause, or shorter examples at a lower rate");
}

MotionStream::MotionStream(MotionRecognizer& recognizer, const StreamOptions& options)
    : MotionStream(recognizer, Plan(recognizer, options)) {}

MotionStream::MotionStream(MotionRecognizer& recognizer, const Plan& plan)
    : n_channels_(static_cast<std::size_t>(plan.clock.n_channels)),
      room_for_sample_(static_cast<std::size_t>(plan.sample_events + plan.flush_events)),
      queue_(room_for_sample_ + kWaitingEvents),
      judge_(plan.judge, recognizer, queue_),
      clock_(plan.clock, judge_) {}

std::size_t MotionStream::push(const float* samples, const double* times, std::size_t n) {
  std::size_t taken = 0;
  for (; taken < n && queue_.room() >= room_for_sample_; ++taken) {
    const float* sample = samples + taken * n_channels_;
    if (times == nullptr) {
      clock_.take(sample);
    } else {
      clock_.take(sample, times[taken]);
    }
  }
  return taken;
}

void MotionStream::flush() {
  clock_.finish();
  judge_.finish();
}

StreamReport MotionStream::report() const {
  return {clock_.counts(), judge_.events(),          judge_.rejected(),
          clock_.rate(),   clock_.n_lost_channels(), judge_.in_motion()};
}

void MotionStream::reset() {
  queue_.clear();
  clock_.reset();
  judge_.reset();
}

}  // namespace gesda
