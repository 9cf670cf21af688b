// Networks that have learnt the gestures from different parts of the examples, each with a linear classifier beside it;
// the mean of their probabilities is the answer. gesda/deepmotion/recognition/committee.py is the same in Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "cpp/motion/networks.hpp"
#include "cpp/runtime/dense.hpp"
#include "cpp/runtime/memory.hpp"

namespace gesda {

class Committee {
 public:
  // outputs: which output of the heads each gesture has.
  Committee(const ModelFile& file, const InferenceKernels& kernels, const std::vector<NetworkShape>& members,
            const std::vector<int>& outputs);

  int n_members() const { return n_members_; }
  WeightType type() const { return first_.type(); }
  std::size_t weight_bytes() const;

  // Asks all members about a row (n_features). What they say stands until the next one.
  void answer(const float* row);
  const float* encoding(int member) const;
  const std::vector<double>& probabilities() const { return probabilities_; }  // of each gesture

 private:
  struct Level {  // a layer of all members
    std::vector<Dense> layers;
    std::size_t stride;  // of a member's values
    AlignedFloats values;
  };

  void encode(const float* row);
  void vote(int member);
  void add_softmax(double share);

  int n_members_;
  std::vector<int> outputs_;
  Dense first_;                   // all members' first layers: a row passes through memory once
  std::optional<Dense> readers_;  // all linear classifiers; none without gestures
  std::vector<Level> levels_;     // the first one holds only the values of first_
  std::vector<Dense> heads_;
  AlignedFloats head_values_, reader_values_;
  std::vector<float> logits_;  // of one member, for each gesture
  std::vector<double> powers_, probabilities_;
  Aligned<std::int16_t> codes_;
};

}  // namespace gesda
