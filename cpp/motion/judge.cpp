#include "cpp/motion/judge.hpp"

#include <algorithm>
#include <cmath>

namespace gesda {

namespace {

constexpr std::int64_t kQuestionsAtEnd = 8;  // about so many at most at a time

// Every so manyth of n is taken, so that few are left.
std::int64_t thinned(std::int64_t n) { return std::max<std::int64_t>(1, (n + kQuestionsAtEnd - 1) / kQuestionsAtEnd); }

// Stretches asked about together: between stops at most 8, or less than two of each length; then twice each length and
// what the last end brings beyond. When a motion ends: 8 between stops, 8 and one of each length for thinned ends, and
// each length for the end itself.
std::size_t most_stretches(std::size_t n_lengths) { return 2 * kQuestionsAtEnd + 3 * n_lengths; }

// Those of a motion that rests, and then those when its pause is over, each with the rest of the motion asked about
// twice.
std::size_t most_answers(std::size_t n_lengths) { return 2 * (most_stretches(n_lengths) + 2); }

}  // namespace

// ---- events -------------------------------------------------------------------------------------------------------
void EventQueue::push(const Event& event) {
  if (room() == 0) return;
  events_[(first_ + size_++) % events_.size()] = event;
}

bool EventQueue::pop(Event& event) {
  if (size_ == 0) return false;
  event = events_[first_];
  first_ = (first_ + 1) % events_.size();
  --size_;
  return true;
}

// Gestures of a motion do not overlap, are no shorter than the shortest, and do not reach back beyond what the spotter
// keeps. A motion that is none may be an event too. Motions are a pause apart, or cut; one that a scan has followed
// into its pause may overlap the next by the pause and a window.
double Judge::most_events(const Lengths& lengths, double rows, double cuts) {
  const double motions = rows / static_cast<double>(lengths.pause + 1) + 1 + cuts;
  const auto overlap = static_cast<double>(lengths.pause + lengths.window);
  const double length = Spotter::capacity(lengths) + rows + motions * overlap;
  return std::ceil(length / static_cast<double>(lengths.shortest) + 2 * motions);
}

// ---- the judge ----------------------------------------------------------------------------------------------------
Judge::Judge(const JudgeSettings& settings, MotionRecognizer& recognizer, EventQueue& queue)
    : recognizer_(&recognizer),
      queue_(&queue),
      threshold_(settings.threshold),
      any_gesture_(settings.any_gesture),
      unknown_(settings.unknown),
      continuous_(settings.continuous),
      gesture_lengths_(settings.gesture_lengths),
      spotter_(settings.spotter),
      stop_finder_(2 * settings.spotter.lengths.longest),
      // Where the motion begins, and where it ends, count as stops.
      stops_(static_cast<std::size_t>(StopFinder::most_stops(2 * settings.spotter.lengths.longest)) + 2),
      stretches_(most_stretches(gesture_lengths_.size())),
      answers_(most_answers(gesture_lengths_.size())),
      motion_(static_cast<std::size_t>(settings.spotter.lengths.longest) * spotter_.n_channels()) {}

double Judge::bytes_needed(const JudgeSettings& settings) {
  const std::int64_t longest = settings.spotter.lengths.longest;
  const std::size_t n_lengths = settings.gesture_lengths.size();
  const double rows = static_cast<double>(longest) * settings.spotter.n_channels;
  return Spotter::bytes_needed(settings.spotter) + StopFinder::bytes_needed(2 * longest) + rows * sizeof(double) +
         static_cast<double>(StopFinder::most_stops(2 * longest) + 2) * sizeof(std::int64_t) +
         static_cast<double>(most_stretches(n_lengths) * sizeof(Stretch) +
                             most_answers(n_lengths) * sizeof(KnownAnswer));
}

void Judge::reset() {
  spotter_.reset();
  progress_ = {};
  n_answers_ = 0;
}

void Judge::begin_run(double time) {
  if (spotter_.end_run()) end_motion();
  spotter_.begin_run(time);
}

void Judge::take_row(const double* row) {
  const Todo todo = spotter_.take(row);
  // Answers to what was asked when the motion seemed to end, and did not.
  if (todo == Todo::kRested || todo == Todo::kScan) n_answers_ = 0;
  if (todo == Todo::kEnded) {
    end_motion();
  } else if (todo == Todo::kRested) {
    think_ahead();
  } else if (todo == Todo::kScan && continuous_) {
    scan(spotter_.row());
  }
}

void Judge::finish() {
  if (spotter_.finish()) end_motion();
  begin_motion(kNone);
}

void Judge::begin_motion(std::int64_t joinable) {
  Progress fresh;
  fresh.events = progress_.events;
  fresh.n_rejected = progress_.n_rejected;
  fresh.joinable = joinable;
  progress_ = fresh;
  n_answers_ = 0;
}

// Asks all that will be asked if the motion has ended, while its pause goes on: then the answers are there.
void Judge::think_ahead() {
  const Progress before = progress_;
  thinking_ahead_ = true;
  judge_ended(spotter_.at_rest());
  thinking_ahead_ = false;
  progress_ = before;
}

void Judge::end_motion() {
  const std::int64_t joinable = judge_ended(spotter_.ended());
  // Rows are counted from the start of a run: none of a run that has ended can be joined to the next.
  begin_motion(spotter_.row() > 0 ? joinable : 0);
}

// Judges a motion that has ended; returns from where on the next one may be joined to it.
std::int64_t Judge::judge_ended(Stretch motion) {
  if (progress_.next_end != kNone) {
    end_scan(motion.end);
    if (!progress_.found) reject(motion, progress_.rejected);
    return kNone;
  }
  if (motion.end - motion.begin > spotter_.lengths().longest) {
    reject(motion, Candidate{});
    return kNone;
  }
  return judge_between_pauses(motion);
}

std::int64_t Judge::judge_between_pauses(Stretch motion) {
  const Lengths& lengths = spotter_.lengths();
  std::int64_t joinable = progress_.joinable;
  if (joinable == kNone || motion.end - joinable > lengths.longest) joinable = motion.begin;
  Candidate candidate;
  if (motion.end - motion.begin >= lengths.shortest) candidate = ask(motion);
  if (candidate.answer.gesture < 0 && joinable < motion.begin) {
    // Of a run that was cut off before rest was known, the end is not known either.
    const std::int64_t whole = joinable == 0 ? spotter_.cut_off() : motion.end;
    const Candidate joined = ask({joinable, whole - joinable <= lengths.longest ? whole : motion.end});
    if (joined.answer.gesture >= 0) candidate = joined;
  }
  if (!candidate.exists()) return joinable;
  if (candidate.answer.gesture >= 0) {
    tell_gesture(candidate);
  } else if (continuous_) {
    progress_.earliest = motion.begin;
    n_stretches_ = 0;
    add_between_stops(motion.end, true);
    consider();
    settle();
  }
  if (progress_.found) return kNone;
  reject(motion, candidate);
  return joinable;
}

// ---- long motions -------------------------------------------------------------------------------------------------
// Asks about stretches that end no later than `row`, of which some are behind when the scan begins.
void Judge::scan(std::int64_t row) {
  if (progress_.next_end == kNone) {
    progress_.earliest = spotter_.start();
    progress_.next_end = progress_.earliest + gesture_lengths_.front();
  }
  n_stretches_ = 0;
  add_between_stops(row, false);
  while (progress_.next_end <= row && n_stretches_ < 2 * gesture_lengths_.size()) {
    add_ending(progress_.next_end);
    progress_.next_end += spotter_.lengths().hop;
  }
  consider();
  settle_before(progress_.next_end - spotter_.lengths().hop);
}

// Asks about what is left of a long motion that has ended; coarser if much is left.
void Judge::end_scan(std::int64_t end) {
  const Lengths& lengths = spotter_.lengths();
  n_stretches_ = 0;
  add_between_stops(end, true);
  const std::int64_t n_ends = std::max<std::int64_t>(0, (end - progress_.next_end + lengths.hop - 1) / lengths.hop);
  const std::int64_t every = thinned(n_ends * static_cast<std::int64_t>(gesture_lengths_.size()));
  for (std::int64_t i = 0; i < n_ends; ++i) {
    if ((n_ends - 1 - i) % every == 0) add_ending(progress_.next_end + i * lengths.hop);
  }
  add_ending(end);
  consider();
  for (int i = 0; i < 2; ++i) {  // the rest of the motion as a whole, against the best; and what is left after that
    const std::int64_t left = end - progress_.earliest;
    if (lengths.shortest <= left && left <= lengths.longest) {
      n_stretches_ = 0;
      add({progress_.earliest, end});
      consider();
    }
    if (!progress_.best.exists()) break;
    settle();
  }
}

// The stops up to `row`, itself one if the motion has ended.
void Judge::find_stops(std::int64_t row, bool ended) {
  const std::int64_t first = std::max({progress_.earliest, row - 2 * spotter_.lengths().longest, spotter_.oldest()});
  stops_[0] = first;
  n_stops_ = 1 + stop_finder_.find(spotter_, {first, row}, &stops_[1]);
  if (ended) stops_[n_stops_++] = row;
}

// Visits stretches between stops, by their ends; returns the last stop that was taken for an end.
template <class Visit>
std::int64_t Judge::visit_between_stops(bool ended, Visit visit) const {
  const Lengths& lengths = spotter_.lengths();
  const std::size_t n_lengths = gesture_lengths_.size();
  const auto fits = [&](std::int64_t begin, std::int64_t end) {
    return begin >= progress_.earliest && lengths.shortest <= end - begin;
  };
  std::int64_t last_stop = progress_.last_stop;
  std::size_t visited = 0;
  for (std::size_t i = 0; i < n_stops_; ++i) {
    const std::int64_t end = stops_[i];
    if (end <= last_stop) continue;
    if (visited >= n_lengths && !ended) break;  // the others at the next hop
    std::size_t from = i, fitting = 0;
    for (; from > 0 && end - stops_[from - 1] <= lengths.longest && fitting < n_lengths; --from) {
      fitting += fits(stops_[from - 1], end) ? 1 : 0;
    }
    for (; from < i; ++from) {
      if (fits(stops_[from], end)) visit(Stretch{stops_[from], end});
    }
    visited += fitting;
    last_stop = end;
  }
  return last_stop;
}

void Judge::add_between_stops(std::int64_t row, bool ended) {
  find_stops(row, ended);
  std::int64_t n = 0;
  visit_between_stops(ended, [&n](Stretch) { ++n; });
  const std::int64_t every = thinned(n);
  progress_.last_stop = visit_between_stops(ended, [&](Stretch stretch) {
    if (--n % every == 0) add(stretch);
  });
}

// Adds all stretches that end here.
void Judge::add_ending(std::int64_t end) {
  for (const std::int64_t length : gesture_lengths_) {
    if (end - length >= progress_.earliest) add({end - length, end});
  }
}

void Judge::add(Stretch stretch) {
  if (stretch.begin < spotter_.oldest() || n_stretches_ == stretches_.size()) return;
  std::size_t at = n_stretches_++;
  for (; at > 0 && stretches_[at - 1].end > stretch.end; --at) stretches_[at] = stretches_[at - 1];
  stretches_[at] = stretch;
}

// Weighs the answers in the order of their ends.
void Judge::consider() {
  std::int64_t before = 0;
  for (std::size_t i = 0; i < n_stretches_; ++i) {
    const Stretch stretch = stretches_[i];
    if (stretch.end > before) {
      settle_before(before);
      before = stretch.end;
    }
    if (stretch.begin < progress_.earliest) continue;  // an event since then holds a part of it
    weigh(ask(stretch));
  }
}

void Judge::weigh(const Candidate& candidate) {
  if (candidate.answer.gesture >= 0) {
    if (!progress_.best.exists() || candidate.score > progress_.best.score) progress_.best = candidate;
  } else if (!progress_.rejected.exists() || candidate.answer.familiarity > progress_.rejected.answer.familiarity) {
    progress_.rejected = candidate;
  }
}

// Makes the best candidate an event; the next gesture begins after it.
void Judge::settle() {
  if (!progress_.best.exists()) return;
  tell_gesture(progress_.best);
  progress_.earliest = progress_.best.stretch.end;
  progress_.best = {};
}

void Judge::settle_before(std::int64_t end) {
  // What begins after the best one is no gesture yet by then, so nothing was passed over in its favour.
  if (progress_.best.exists() && end - progress_.best.stretch.end >= spotter_.lengths().shortest) settle();
}

// ---- questions and answers ----------------------------------------------------------------------------------------
Judge::Candidate Judge::ask(Stretch stretch) {
  Candidate candidate;
  candidate.stretch = stretch;
  if (!any_gesture_) return candidate;
  candidate.answer = answer(stretch);
  // How sure, how far above what is known at all, for how long: the whole of a gesture beats a part of it.
  const double excess = candidate.answer.familiarity - threshold_;
  const auto length = static_cast<double>(stretch.end - stretch.begin);
  candidate.score = candidate.answer.confidence * length * (std::isfinite(excess) ? std::max(excess, 0.0) : 1.0);
  return candidate;
}

Answer Judge::answer(Stretch stretch) {
  for (std::size_t i = 0; i < n_answers_; ++i) {
    if (answers_[i].stretch.begin == stretch.begin && answers_[i].stretch.end == stretch.end) return answers_[i].answer;
  }
  const std::int64_t n_rows = stretch.end - stretch.begin;
  // Noise that is almost a motion may put its end off until the rows are gone.
  if (n_rows < 1 || n_rows > spotter_.lengths().longest || stretch.begin < spotter_.oldest()) return {-1, -1, 0, 0};
  spotter_.cut(stretch, motion_.data());
  const Answer answer =
      recognizer_->recognize({motion_.data(), static_cast<std::size_t>(n_rows), spotter_.n_channels()});
  if (n_answers_ < answers_.size()) answers_[n_answers_++] = {stretch, answer};
  return answer;
}

void Judge::tell_gesture(const Candidate& candidate) {
  progress_.found = true;
  ++progress_.events;
  tell(candidate.answer, candidate.stretch);
}

void Judge::reject(Stretch motion, const Candidate& candidate) {
  ++progress_.n_rejected;
  if (unknown_) tell(candidate.answer, motion);
}

void Judge::tell(const Answer& answer, Stretch stretch) {
  if (thinking_ahead_) return;
  queue_->push({answer.gesture, answer.confidence, answer.familiarity, spotter_.time(stretch.begin),
                spotter_.time(stretch.end - 1)});
}

}  // namespace gesda
