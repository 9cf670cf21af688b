// What a stream asks a recogniser for.
#pragma once

#include <cstddef>

namespace gesda {

struct Answer {
  int gesture;         // -1: like no known gesture
  int best;            // the most probable one; -1 if none is known
  double confidence;   // probability of `best`
  double familiarity;  // how much the motion is like known ones
};

// Rows of a motion that need not be contiguous in memory: row i stands at samples + i * stride.
template <class Number>
struct Motion {
  const Number* samples;
  std::size_t length;  // rows
  std::size_t stride;  // numbers from one row to the next
};

// Does not allocate in recognize().
class MotionRecognizer {
 public:
  virtual ~MotionRecognizer() = default;
  virtual int n_channels() const = 0;
  virtual int n_gestures() const = 0;
  virtual double rate() const = 0;  // Hz of the examples; 0 if unknown
  virtual double threshold() const = 0;
  virtual double shortest() const = 0;  // example: in seconds if the rate is known, else in samples
  virtual double longest() const = 0;
  virtual Answer recognize(const Motion<double>& motion) = 0;
};

}  // namespace gesda
