// How much a motion is like the gestures that were learnt: the score by which the unknown is rejected.
// gesda/deepmotion/recognition/familiarity.py is the same in Python and says why.
#pragma once

#include <cstddef>
#include <vector>

#include "cpp/motion/committee.hpp"
#include "cpp/runtime/model_file.hpp"

namespace gesda {

class Familiarity {
 public:
  Familiarity(const ModelFile& file, int n_members, int n_gestures, int n_hidden);

  double threshold() const { return threshold_; }

  // What the committee has said of a motion, the gesture that it takes it for, and the stack's error.
  double score(const Committee& committee, int best, double error);

  // Of a motion where no gesture is known.
  static double score_alone(double error);

 private:
  double nearest_distance(const Committee& committee);
  void add_distances(const float* encoding, std::size_t member);

  std::size_t n_members_, n_gestures_, n_hidden_;
  std::vector<double> whitening_;  // (n_members, n_hidden, n_hidden)
  std::vector<double> means_;      // of each gesture's encodings, whitened: (n_members, n_hidden, n_gestures)
  std::vector<double> squares_;    // of their lengths: (n_members, n_gestures)
  std::vector<double> center_, spread_, class_center_, class_spread_;
  double threshold_;
  std::vector<double> white_, products_, distances_;  // of the motion: (n_hidden), (n_gestures), (n_gestures)
};

}  // namespace gesda
