// Where motion begins and ends in a stream of uniform rows.
//
// What gesda/deepmotion/streaming/spotting.py does, which says why; every decision falls at the same row.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace gesda {

// What a spotter goes by, in rows.
struct Lengths {
  std::int64_t window;    // of the activity
  std::int64_t pause;     // a motion ends after so many rows of rest
  std::int64_t shortest;  // a motion shorter than this is none
  std::int64_t longest;   // a motion longer than this holds several gestures
  std::int64_t hop;       // from one scan of a long motion to the next
};

struct SpotterSettings {
  int n_channels;
  double rate;         // rows per second
  double sample_rate;  // samples per second, as far as it is known; rows between samples are no news
  Lengths lengths;
};

// Rows from begin up to end.
struct Stretch {
  std::int64_t begin, end;
};

enum class Todo : std::uint8_t {
  kNothing,
  kEnded,   // a motion has ended
  kScan,    // one goes on and on
  kRested,  // one has rested for half a pause
};

class Spotter {
 public:
  explicit Spotter(const SpotterSettings& settings);
  static double bytes_needed(const SpotterSettings& settings);
  void reset();

  // Takes a row; what is to be done now.
  Todo take(const double* row);
  // Ends the motion at the last row; whether there was one.
  bool finish();
  // The same, as rows are no longer counted from where they were; begin_run() says from where.
  bool end_run();
  void begin_run(double time);

  std::size_t n_channels() const { return n_channels_; }
  const Lengths& lengths() const { return lengths_; }
  bool in_motion() const { return in_motion_; }
  std::int64_t row() const { return row_; }      // of the run, the next one
  std::int64_t start() const { return start_; }  // of the motion that is going on
  Stretch ended() const { return ended_; }       // the motion that has
  // What ended() will be if the motion that rests does not go on before the pause is over.
  Stretch at_rest() const { return {start_, rest_begins()}; }
  // The row after the last of the run, or of the motion if it ended by itself.
  std::int64_t cut_off() const { return cut_off_; }
  double time(std::int64_t row) const { return run_time_ + static_cast<double>(row) / rate_; }
  // How many rows are kept, and the first that is.
  static double capacity(const Lengths& lengths);
  std::int64_t oldest() const { return std::max<std::int64_t>(0, written_ - capacity_); }

  // Copies rows; out: (end - begin, n_channels).
  void cut(Stretch stretch, double* out) const;
  // Copies one channel of them.
  void cut_channel(Stretch stretch, std::size_t channel, double* out) const;

 private:
  struct Level {
    double rest, peak;
  };
  struct Exceeding {
    int above, clearly;  // how many channels do
  };

  void measure_activity(std::int64_t row);
  Exceeding compare_with_rest();
  void begin_motion(std::int64_t row);
  bool end_motion();
  std::int64_t rest_begins() const;
  std::size_t place(std::int64_t row) const;

  std::size_t n_channels_;
  double rate_;
  Lengths lengths_;
  std::int64_t stride_;  // of the rows in the window that are looked at
  int needed_;           // channels that make a motion
  // Ratios of variances, and what is left of a difference, or grows, from one row to the next.
  double goes_on_, begins_, fall_, follow_, rise_, peak_decay_;

  bool in_motion_;
  std::int64_t row_, start_, last_, last_clear_, earliest_, next_scan_, cut_off_;
  std::int64_t motions_;  // in this run, ended or not
  std::int64_t written_;  // row_, but that of a run that has ended until the next one's first row comes
  Stretch ended_;
  double run_time_;
  std::vector<Level> levels_;
  std::vector<double> mean_, variance_;  // of the window that ends at the last row
  std::int64_t capacity_;
  std::vector<float> ring_;  // (capacity, n_channels)
};

// The places in a motion where it all but stops for a moment.
class StopFinder {
 public:
  // longest: rows of a motion.
  explicit StopFinder(std::int64_t longest);
  static double bytes_needed(std::int64_t longest);
  // Most stops of a motion: between two there is at least one row that is none.
  static std::int64_t most_stops(std::int64_t longest) { return longest / 2 + 1; }

  // Fills `stops` with their rows, ascending; returns how many. stops: most_stops() numbers.
  std::size_t find(const Spotter& spotter, Stretch motion, std::int64_t* stops);

 private:
  void add_activity(std::size_t n, std::size_t window, bool alone);
  void measure_side_by_side(std::size_t n, std::size_t window);
  void measure_in_pairs(std::size_t n, std::size_t window);

  std::vector<double> channel_, mean_, variance_, stillness_;
};

}  // namespace gesda
