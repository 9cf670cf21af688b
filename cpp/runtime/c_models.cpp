// The C ABI of models (gesda/gesda.h): checks of what callers hand in, and nothing else.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "cpp/runtime/failure.hpp"
#include "cpp/runtime/model.hpp"

namespace gesda {

char* last_error() {
  thread_local char text[kErrorBytes] = "";
  return text;
}

namespace {

bool all_finite(const float* values, std::size_t n) {
  bool finite = true;
  for (std::size_t i = 0; i < n; ++i) {
    std::uint32_t word;
    std::memcpy(&word, values + i, sizeof word);
    finite &= (word & 0x7F800000u) != 0x7F800000u;
  }
  return finite;
}

gesda_status check_rows(const float* rows, std::size_t n, int width) {
  const auto columns = static_cast<std::size_t>(width);
  if (n > SIZE_MAX / sizeof(float) / columns) return fail(GESDA_INVALID_ARGUMENT, "%s", "There are too many rows.");
  if (all_finite(rows, n * columns)) return GESDA_OK;
  const std::size_t place = static_cast<std::size_t>(
      std::find_if_not(rows, rows + n * columns, [](float value) { return std::isfinite(value); }) - rows);
  return fail(GESDA_INVALID_ARGUMENT, "Row %zu, column %zu is not finite.", place / columns, place % columns);
}

// Runs a method of the estimator over rows, if it has it.
template <class Output>
gesda_status apply(gesda_model* model, const float* rows, std::size_t n, Output* out, const char* what,
                   bool (*can)(gesda_kind), void (Estimator::*method)(const float*, std::size_t, Output*)) {
  if (model == nullptr || (n > 0 && (rows == nullptr || out == nullptr)))
    return fail(GESDA_INVALID_ARGUMENT, "%s", "The model, the rows or the place for the results is a null pointer.");
  if (model->estimator == nullptr)
    return fail(GESDA_UNSUPPORTED, "The model is a gesture recogniser, which does not %s rows; use gesda_recognize.",
                what);
  Estimator& estimator = *model->estimator;
  if (!can(estimator.kind())) return fail(GESDA_UNSUPPORTED, "A model of this kind does not %s.", what);
  const gesda_status status = check_rows(rows, n, estimator.n_features());
  if (status == GESDA_OK) (estimator.*method)(rows, n, out);
  return status;
}

bool any_can(gesda_kind) { return true; }
bool classifiers_can(gesda_kind kind) { return kind == GESDA_CLASSIFIER; }
bool regressors_can(gesda_kind kind) { return kind == GESDA_REGRESSOR; }

template <class Open>
gesda_status open_model(const gesda_options* given, gesda_model** model, const Open& open) {
  if (model == nullptr) return fail(GESDA_INVALID_ARGUMENT, "%s", "The place for the model is a null pointer.");
  *model = nullptr;
  gesda_options options;
  gesda_options_init(&options);
  if (given != nullptr) std::memcpy(&options, given, std::min(given->size, sizeof options));
  return guarded([&] {
    const InferenceKernels* kernels = find_inference_kernels(options.variant);
    if (kernels == nullptr)
      throw Error(GESDA_NO_DEVICE, std::string("the SIMD variant '") + options.variant + "' cannot run here");
    const ModelFile file = open(options.verify != 0);
    auto made = std::make_unique<gesda_model>();
    made->kernels = kernels;
    if (file.metadata().at("estimator").text() == "GestureRecognizer")
      made->recognizer = std::make_unique<Recognizer>(file, *kernels);
    else
      made->estimator = std::make_unique<Estimator>(file, *kernels);
    *model = made.release();
  });
}

gesda_weights weights_of(WeightType type) {
  return type == WeightType::kFloat32 ? GESDA_FLOAT32 : type == WeightType::kFloat16 ? GESDA_FLOAT16 : GESDA_INT8;
}

}  // namespace
}  // namespace gesda

using namespace gesda;

const char* gesda_version(void) { return GESDA_VERSION; }

const char* gesda_last_error(void) { return last_error(); }

void gesda_options_init(gesda_options* options) { *options = {sizeof *options, 0, nullptr}; }

gesda_status gesda_open(const char* path, const gesda_options* options, gesda_model** model) {
  if (path == nullptr) return fail(GESDA_INVALID_ARGUMENT, "%s", "The path is a null pointer.");
  return open_model(options, model, [path](bool verify) { return ModelFile::open(path, verify); });
}

gesda_status gesda_open_memory(const void* data, size_t size, const gesda_options* options, gesda_model** model) {
  if (data == nullptr) return fail(GESDA_INVALID_ARGUMENT, "%s", "The data are a null pointer.");
  return open_model(options, model, [=](bool verify) { return ModelFile::view(data, size, verify); });
}

void gesda_close(gesda_model* model) { delete model; }

void gesda_info_init(gesda_info* info) {
  *info = gesda_info{};
  info->size = sizeof *info;
}

gesda_status gesda_describe(const gesda_model* model, gesda_info* info) {
  if (model == nullptr || info == nullptr)
    return fail(GESDA_INVALID_ARGUMENT, "%s", "The model or the place for its description is a null pointer.");
  gesda_info facts;
  gesda_info_init(&facts);
  facts.size = std::min(info->size, sizeof facts);
  if (model->estimator != nullptr) {
    const Estimator& estimator = *model->estimator;
    facts.kind = estimator.kind();
    facts.weights = weights_of(estimator.weights());
    facts.n_features = estimator.n_features();
    facts.n_layers = estimator.n_layers();
    facts.n_hidden = estimator.n_hidden();
    facts.n_outputs = estimator.n_outputs();
    facts.weight_bytes = estimator.weight_bytes();
  } else {
    const Recognizer& recognizer = *model->recognizer;
    facts.kind = GESDA_RECOGNIZER;
    facts.weights = weights_of(recognizer.weights());
    facts.n_features = recognizer.n_channels();
    facts.n_layers = recognizer.n_layers();
    facts.n_hidden = recognizer.n_hidden();
    facts.n_outputs = recognizer.n_gestures();
    facts.weight_bytes = recognizer.weight_bytes();
    facts.rate = recognizer.rate();
    facts.threshold = recognizer.threshold();
  }
  std::snprintf(facts.variant, sizeof facts.variant, "%s", model->kernels->name);
  std::memcpy(info, &facts, facts.size);
  return GESDA_OK;
}

const char* gesda_class_name(const gesda_model* model, int32_t number) {
  if (model == nullptr || number < 0) return nullptr;
  if (model->recognizer != nullptr)
    return number < model->recognizer->n_gestures() ? model->recognizer->gesture_name(number).c_str() : nullptr;
  const std::vector<std::string>& names = model->estimator->class_names();
  const auto i = static_cast<std::size_t>(number);
  return i < names.size() ? names[i].c_str() : nullptr;
}

const char* gesda_feature_name(const gesda_model* model, int32_t number) {
  if (model == nullptr || model->estimator == nullptr || number < 0) return nullptr;
  const std::vector<std::string>& names = model->estimator->feature_names();
  const auto i = static_cast<std::size_t>(number);
  return i < names.size() ? names[i].c_str() : nullptr;
}

gesda_status gesda_encode(gesda_model* model, const float* rows, size_t n, float* codes) {
  return apply(model, rows, n, codes, "encode", any_can, &Estimator::encode);
}

gesda_status gesda_reconstruct(gesda_model* model, const float* rows, size_t n, float* reconstructions) {
  return apply(model, rows, n, reconstructions, "reconstruct", any_can, &Estimator::reconstruct);
}

gesda_status gesda_score(gesda_model* model, const float* rows, size_t n, float* scores) {
  return apply(model, rows, n, scores, "score", any_can, &Estimator::score);
}

gesda_status gesda_probabilities(gesda_model* model, const float* rows, size_t n, float* probabilities) {
  return apply(model, rows, n, probabilities, "classify", classifiers_can, &Estimator::predict);
}

gesda_status gesda_classify(gesda_model* model, const float* rows, size_t n, int32_t* classes) {
  return apply(model, rows, n, classes, "classify", classifiers_can, &Estimator::classify);
}

gesda_status gesda_predict(gesda_model* model, const float* rows, size_t n, float* values) {
  return apply(model, rows, n, values, "predict numbers", regressors_can, &Estimator::predict);
}

gesda_status gesda_recognize(gesda_model* model, const float* samples, size_t n_samples, gesda_recognition* recognition,
                             float* probabilities) {
  if (model == nullptr || samples == nullptr || recognition == nullptr)
    return fail(GESDA_INVALID_ARGUMENT, "%s", "The model, the samples or the place for the answer is a null pointer.");
  if (model->recognizer == nullptr)
    return fail(GESDA_UNSUPPORTED, "%s", "The model is no gesture recogniser; use gesda_classify.");
  Recognizer& recognizer = *model->recognizer;
  if (n_samples == 0) return fail(GESDA_INVALID_ARGUMENT, "%s", "A motion needs at least one sample.");
  const gesda_status status = check_rows(samples, n_samples, recognizer.n_channels());
  if (status != GESDA_OK) return status;
  const Motion<float> motion{samples, n_samples, static_cast<std::size_t>(recognizer.n_channels())};
  const Answer answer = recognizer.recognize(motion, probabilities);
  *recognition = {answer.gesture, answer.best, static_cast<float>(answer.confidence),
                  static_cast<float>(answer.familiarity)};
  return GESDA_OK;
}
