// Sample hygiene: samples as they arrive become uniform, finite rows at the recogniser's rate.
//
// What gesda/deepmotion/streaming/clock.py does, which says why; the rows are the same to the last bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gesda {

// Where rows go.
class RowSink {
 public:
  // The next row is the first of a run, of this time in seconds.
  virtual void begin_run(double time) = 0;
  virtual void take_row(const double* row) = 0;

 protected:
  ~RowSink() = default;
};

// By the names of gesda_report.
struct SampleCounts {
  std::uint64_t received = 0, used = 0, missing = 0, late = 0, duplicated = 0, not_finite = 0, out_of_range = 0,
                gaps = 0;
};

struct ClockSettings {
  int n_channels;
  double rate;       // Hz of samples that come without time stamps
  double grid_rate;  // Hz of the rows
  double max_gap;    // seconds; holes up to this length are interpolated
  const float* low;  // (n_channels,) what lies outside is no measurement; copied; null: anything is one
  const float* high;
};

class Clock {
 public:
  Clock(const ClockSettings& settings, RowSink& sink);
  // Known before anything is made: settings may be such that nothing must be.
  static double bytes_needed(const ClockSettings& settings);
  // Rows, of three runs at most, that one sample makes; finish() makes fewer.
  static double most_rows(const ClockSettings& settings);

  // Forgets all samples and counts.
  void reset();
  // Takes a sample that follows the one before at the rate.
  void take(const float* sample);
  // Takes a sample of this time in seconds.
  void take(const float* sample, double time);
  // Hands on the rows that wait for a channel.
  void finish();

  const SampleCounts& counts() const { return counts_; }
  double rate() const { return 1 / interval_; }  // Hz of the samples, over about the last 64
  int n_lost_channels() const;

 private:
  struct Channel {
    double time, value;  // the last one believed, from the start of the run; time is NaN before the run's first value
    double low, high, centre, scale;
    double wild_times[2], wild_values[2];  // put aside: spikes, unless the channel stays there
    std::int64_t row;                      // the next one to be filled
    std::int64_t seen, unchanged;
    int wild;              // how many are put aside
    bool believed, valid;  // of the sample that is being taken: they are believed; it counts
    bool lost;
  };

  bool follow_jump(const float* sample, double time, double step);
  void take_settled(const float* sample, double time);
  void judge(Channel& channel, double time, double value);
  void begin_run(double time);
  void count_missing(double hole);
  void fill_channels(const float* sample, double time, bool any_changed);
  void fill(std::size_t c, double time, double value);
  void emit();
  void complete();
  std::size_t place(std::int64_t row) const;

  RowSink* sink_;
  std::size_t n_channels_;
  double sample_rate_, grid_rate_, max_gap_;
  double centre_gain_, scale_decay_;
  std::int64_t warm_samples_, lost_samples_;
  std::vector<float> low_, high_;

  SampleCounts counts_;
  bool started_, running_, waiting_;
  std::int64_t row_out_;       // the next row to hand on
  std::int64_t since_anchor_;  // samples since the last time stamp
  double interval_, tick_;     // between samples: mean, and what it would be if none were missing
  double row_time_;            // of the last sample
  double value_time_;          // of the last sample that counted
  double run_time_, anchor_time_, waiting_time_;
  std::vector<Channel> channels_;
  std::vector<float> waiting_sample_;  // whose time stamp jumped; used if the next one continues from there
  std::int64_t ahead_;
  std::vector<double> work_;  // (ahead, n_channels) ring of rows that some channels have not reached
};

}  // namespace gesda
