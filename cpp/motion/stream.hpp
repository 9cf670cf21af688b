// Gestures in a stream: samples are pushed as they come, events taken out.
//
// gesda.deepmotion.GestureStream without Python: the same events for the same samples, but for the rounding of what the
// recogniser computes. Three stages, and data flow one way: samples become uniform rows (clock), rows become motions
// with a beginning and an end (spotter), and the recogniser names the motions (judge). All memory is made by the
// constructor; nothing throws afterwards but what the recogniser throws.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpp/motion/clock.hpp"
#include "cpp/motion/judge.hpp"
#include "cpp/motion/recognition.hpp"

namespace gesda {

// As gesda_stream_options, which explains them.
struct StreamOptions {
  double rate = 0;
  double pause = 0.25;
  double max_gap = 0;
  const float* low = nullptr;
  const float* high = nullptr;
  bool unknown = false;
  bool continuous = true;
  int candidates = 4;
};

// As gesda_report.
struct StreamReport {
  SampleCounts samples;
  std::uint64_t events, rejected;
  double rate;
  int n_lost_channels;
  bool in_motion;
};

class MotionStream {
 public:
  // Throws Error for options out of range, a recogniser that tells no rate while the options give none, and for
  // buffers of more than 256 MB. The recogniser outlives the stream, and stays as it is meanwhile.
  MotionStream(MotionRecognizer& recognizer, const StreamOptions& options);
  MotionStream(const MotionStream&) = delete;
  MotionStream& operator=(const MotionStream&) = delete;

  // Takes samples (n, n_channels), NaN where a value is missing, with time stamps (n,) in seconds or null; returns how
  // many were taken: fewer than n only while so many events wait that those of one more sample might find no room.
  std::size_t push(const float* samples, const double* times, std::size_t n);
  // Ends the motion that is going on. There is always room for its events.
  void flush();
  // The next event, in the order of their ends; false if none waits.
  bool next(Event& event) { return queue_.pop(event); }
  StreamReport report() const;
  // Forgets all samples, events and counts.
  void reset();

 private:
  struct Plan;
  MotionStream(MotionRecognizer& recognizer, const Plan& plan);

  std::size_t n_channels_;
  std::size_t room_for_sample_;  // and for a flush after it
  EventQueue queue_;
  Judge judge_;
  Clock clock_;
};

}  // namespace gesda
