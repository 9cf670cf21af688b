// A gesture recogniser from its file: motion in, gestures out. gesda/deepmotion/recognition/recognizer.py is the same
// in Python. All memory is made by the constructor; one recogniser serves one thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "cpp/motion/committee.hpp"
#include "cpp/motion/familiarity.hpp"
#include "cpp/motion/features.hpp"
#include "cpp/motion/recognition.hpp"
#include "cpp/motion/reconstruction.hpp"
#include "cpp/runtime/memory.hpp"
#include "cpp/runtime/model_file.hpp"

namespace gesda {

class Recognizer final : public MotionRecognizer {
 public:
  // Throws Error where the file describes no recogniser.
  Recognizer(const ModelFile& file, const InferenceKernels& kernels);

  int n_channels() const override { return features_.n_channels(); }
  int n_gestures() const override { return static_cast<int>(names_.size()); }
  double rate() const override { return rate_; }
  double threshold() const override;  // minus infinity where no gesture is known
  double shortest() const override { return shortest_; }
  double longest() const override { return longest_; }

  const std::string& gesture_name(int gesture) const { return names_[static_cast<std::size_t>(gesture)]; }
  int n_layers() const { return static_cast<int>(stack_shape_.layers.size()); }
  int n_hidden() const { return stack_shape_.n_hidden(); }
  WeightType weights() const { return committee_.type(); }
  std::size_t weight_bytes() const { return committee_.weight_bytes() + stack_.weight_bytes(); }

  // A motion of one sample or more, finite. probabilities: (n_gestures), or null.
  Answer recognize(const Motion<float>& motion, float* probabilities);
  Answer recognize(const Motion<double>& motion) override;

 private:
  Answer answer();

  std::vector<std::string> names_;
  MotionFeatures features_;
  NetworkShape stack_shape_;
  PretrainedStack stack_;
  Committee committee_;
  std::optional<Familiarity> familiarity_;  // none without gestures
  double rate_, shortest_ = 0.0, longest_ = 0.0;
  AlignedFloats row_;
};

}  // namespace gesda
