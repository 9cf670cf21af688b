// What a gesda_model is: an estimator or a recogniser.
#pragma once

#include <memory>

#include "cpp/motion/recognizer.hpp"
#include "cpp/runtime/estimator.hpp"

struct gesda_model {
  const gesda::InferenceKernels* kernels;
  std::unique_ptr<gesda::Estimator> estimator;  // one of the two
  std::unique_ptr<gesda::Recognizer> recognizer;
};
