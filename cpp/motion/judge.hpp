// From motions to gestures: which stretch of rows the recogniser is asked about, and what becomes an event.
//
// What gesda/deepmotion/streaming/judging.py does, which says why, but that the recogniser learns nothing meanwhile,
// and that rows which are no longer kept are not asked about.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpp/motion/clock.hpp"
#include "cpp/motion/recognition.hpp"
#include "cpp/motion/spotter.hpp"

namespace gesda {

struct Event {
  int gesture;  // -1: unknown
  double confidence;
  double familiarity;
  double start, end;  // seconds of the first and last sample
};

// Events that wait, in a ring of fixed size.
class EventQueue {
 public:
  explicit EventQueue(std::size_t capacity) : events_(capacity) {}
  std::size_t room() const { return events_.size() - size_; }
  void clear() { first_ = size_ = 0; }
  // Does nothing where there is no room, which whoever pushes has seen to.
  void push(const Event& event);
  bool pop(Event& event);

 private:
  std::vector<Event> events_;
  std::size_t first_ = 0, size_ = 0;
};

struct JudgeSettings {
  SpotterSettings spotter;
  std::vector<std::int64_t> gesture_lengths;  // rows, ascending: those tried in a long motion
  double threshold;                           // familiarity from which on a motion is known
  bool any_gesture;                           // whether the recogniser knows one
  bool unknown, continuous;
};

class Judge final : public RowSink {
 public:
  Judge(const JudgeSettings& settings, MotionRecognizer& recognizer, EventQueue& queue);
  static double bytes_needed(const JudgeSettings& settings);
  // Events that so many rows cause at most, of so many runs or flushed so often.
  static double most_events(const Lengths& lengths, double rows, double cuts);
  void reset();

  void begin_run(double time) override;
  void take_row(const double* row) override;
  // Ends the motion at the last row.
  void finish();

  std::uint64_t events() const { return progress_.events; }
  std::uint64_t rejected() const { return progress_.n_rejected; }
  bool in_motion() const { return spotter_.in_motion(); }

 private:
  static constexpr std::int64_t kNone = -1;

  struct Candidate {
    double score = 0;
    Stretch stretch = {kNone, kNone};  // kNone: there is no candidate
    Answer answer = {-1, -1, 0, 0};
    bool exists() const { return stretch.end != kNone; }
  };
  // What a motion has come to.
  struct Progress {
    std::uint64_t events = 0, n_rejected = 0;
    std::int64_t joinable = 0;      // where the motion before began, if it was no gesture, or the run
    std::int64_t next_end = kNone;  // of the scan by hops; kNone: it has not begun
    std::int64_t last_stop = 0;     // at which stretches were asked about
    std::int64_t earliest = 0;      // where the next gesture may begin
    Candidate best, rejected;
    bool found = false;
  };
  struct KnownAnswer {
    Stretch stretch;
    Answer answer;
  };

  void begin_motion(std::int64_t joinable);
  void think_ahead();
  void end_motion();
  std::int64_t judge_ended(Stretch motion);
  std::int64_t judge_between_pauses(Stretch motion);
  void scan(std::int64_t row);
  void end_scan(std::int64_t end);

  void find_stops(std::int64_t row, bool ended);
  template <class Visit>
  std::int64_t visit_between_stops(bool ended, Visit visit) const;
  void add_between_stops(std::int64_t row, bool ended);
  void add_ending(std::int64_t end);
  void add(Stretch stretch);
  void consider();
  void weigh(const Candidate& candidate);
  void settle();
  void settle_before(std::int64_t end);

  Candidate ask(Stretch stretch);
  Answer answer(Stretch stretch);
  void tell_gesture(const Candidate& candidate);
  void reject(Stretch motion, const Candidate& candidate);
  void tell(const Answer& answer, Stretch stretch);

  MotionRecognizer* recognizer_;
  EventQueue* queue_;
  double threshold_;
  bool any_gesture_, unknown_, continuous_;
  std::vector<std::int64_t> gesture_lengths_;
  Spotter spotter_;
  StopFinder stop_finder_;

  Progress progress_;
  bool thinking_ahead_ = false;  // then nothing is told
  // Of fixed capacity, as many in use as the numbers say.
  std::vector<std::int64_t> stops_;
  std::vector<Stretch> stretches_;    // to be asked about together, by their ends
  std::vector<KnownAnswer> answers_;  // to what was asked of the motion that rests
  std::size_t n_stops_ = 0, n_stretches_ = 0, n_answers_ = 0;
  std::vector<double> motion_;  // (longest, n_channels), for the recogniser
};

}  // namespace gesda
