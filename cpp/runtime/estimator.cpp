#include "cpp/runtime/estimator.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "cpp/runtime/error.hpp"

namespace gesda {

namespace {

// Rows at a time: so many that weights serve several, fewer where rows are wide.
constexpr std::size_t kMostRows = 64, kFewestRows = 4, kMostValues = std::size_t{1} << 16;
constexpr std::size_t kMostLayers = 1000;

[[noreturn]] void refuse(const std::string& reason) {
  throw Error(GESDA_BAD_FILE, reason + "; restore the file from a copy or save the model again");
}

int width_of(const Json& layer, const char* name) {
  const std::int64_t width = layer.at(name).integer();
  if (width < 1 || width > kMostUnits) refuse("a layer has an impossible width");
  return static_cast<int>(width);
}

gesda_kind kind_of(const std::string& name) {
  if (name == "StackedDenoisingAutoencoder") return GESDA_AUTOENCODER;
  if (name == "SdAClassifier") return GESDA_CLASSIFIER;
  if (name == "SdARegressor") return GESDA_REGRESSOR;
  refuse("it holds '" + name.substr(0, 60) + "', which this GeSdA does not know");
}

// The shortest text that reads back as the same number; whole numbers without a fraction. (std::to_chars would bring
// tables of a hundred kilobytes.)
std::string text_of(double value) {
  char text[32];
  if (value == std::floor(value) && std::fabs(value) < 1e15) {
    std::snprintf(text, sizeof text, "%.0f", value);
    return text;
  }
  for (int digits = 1; digits <= 17; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, value);
    if (std::strtod(text, nullptr) == value) break;
  }
  std::replace(text, text + sizeof text, ',', '.');  // some locales' decimal point
  return text;
}

std::vector<std::string> texts_of(const Json& list) {
  std::vector<std::string> texts;
  for (const Json& entry : list.list()) texts.push_back(entry.text());
  return texts;
}

}  // namespace

Activation activation_of(const std::string& name) {
  if (name == "sigmoid") return kSigmoid;
  if (name == "tanh") return kTanh;
  if (name == "relu") return kRelu;
  if (name == "linear") return kLinear;
  refuse("it has the unknown activation '" + name.substr(0, 60) + "'");
}

std::string label_of(const Json& value) {
  switch (value.kind()) {
    case Json::kText: return value.text();
    case Json::kBool: return value.boolean() ? "True" : "False";
    default: return text_of(value.number());
  }
}

Estimator::Estimator(const ModelFile& file, const InferenceKernels& kernels)
    : kind_(kind_of(file.metadata().at("estimator").text())) {
  const Json& network = file.metadata().at("network");
  const std::vector<Json>& layers = network.at("layers").list();
  if (layers.empty() || layers.size() > kMostLayers) refuse("it has an impossible number of layers");
  for (std::size_t k = 0; k < layers.size(); ++k) {
    const Json& layer = layers[k];
    const int n_visible = width_of(layer, "n_visible"), n_hidden = width_of(layer, "n_hidden");
    if (k > 0 && n_visible != encoders_.back().outputs()) refuse("its layers do not follow one another");
    const std::string name = "layers." + std::to_string(k);
    encoders_.emplace_back(kernels, file, std::vector<DensePart>{{name + ".W", name + ".b", n_hidden}}, n_visible,
                           activation_of(layer.at("activation").text()));
    Decoder decoder{activation_of(layer.at("output_activation").text()), {}, {}};
    if (layer.at("tied").boolean()) {
      const std::vector<float> bias = file.floats(name + ".c", {n_visible});
      decoder.bias = AlignedFloats(padded_width(n_visible));
      std::copy(bias.begin(), bias.end(), decoder.bias.data());
    } else {
      decoder.own.emplace_back(kernels, file, std::vector<DensePart>{{name + ".V", name + ".c", n_visible}}, n_hidden,
                               decoder.activation);
    }
    decoders_.push_back(std::move(decoder));
  }
  const Json& head = network.at("head");
  if (head.is_null() != (kind_ == GESDA_AUTOENCODER)) refuse("its head does not fit its kind");
  if (!head.is_null()) {
    if (head.at("kind").text() != (kind_ == GESDA_CLASSIFIER ? "softmax" : "linear"))
      refuse("its head does not fit its kind");
    head_.emplace_back(kernels, file, std::vector<DensePart>{{"head.W", "head.b", width_of(head, "n_outputs")}},
                       n_hidden(), kLinear);
  }
  read_names(file);

  int widest = std::max(n_features(), n_outputs());
  std::size_t codes = 0;
  const auto look_at = [&](const Dense& layer) {
    widest = std::max({widest, layer.inputs(), layer.outputs()});
    codes = std::max(codes, layer.codes_size());
  };
  std::for_each(encoders_.begin(), encoders_.end(), look_at);
  std::for_each(head_.begin(), head_.end(), look_at);
  for (const Decoder& decoder : decoders_) std::for_each(decoder.own.begin(), decoder.own.end(), look_at);
  stride_ = padded_width(widest);
  chunk_ = std::clamp(kMostValues / stride_, kFewestRows, kMostRows);
  for (AlignedFloats& buffer : buffers_) buffer = AlignedFloats(chunk_ * stride_);
  codes_ = Aligned<std::int16_t>(codes);
}

void Estimator::read_names(const ModelFile& file) {
  const Json& fitted = file.metadata().at("fitted");
  if (!fitted.at("feature_names_in").is_null()) {
    feature_names_ = texts_of(fitted.at("feature_names_in"));
    if (feature_names_.size() != static_cast<std::size_t>(n_features())) refuse("it has not one name for each feature");
  }
  if (kind_ != GESDA_CLASSIFIER) return;
  if (!fitted.at("classes").is_null()) {
    class_names_ = texts_of(fitted.at("classes"));
  } else {
    const Tensor& classes = file.at("classes");
    if (classes.shape.size() != 1 || classes.size() != n_outputs()) refuse("it has not one class for each output");
    const bool is_float = classes.dtype == DType::kF64 || classes.dtype == DType::kF32 || classes.dtype == DType::kF16;
    if (is_float) {
      for (const double value : file.doubles("classes", classes.shape)) class_names_.push_back(text_of(value));
    } else {
      for (const std::int64_t value : file.integers("classes", classes.shape))
        class_names_.push_back(classes.dtype == DType::kBool ? (value != 0 ? "True" : "False") : std::to_string(value));
    }
  }
  if (class_names_.size() != outputs()) refuse("it has not one class for each output");
}

std::size_t Estimator::weight_bytes() const {
  std::size_t bytes = 0;
  for (const Dense& layer : encoders_) bytes += layer.weight_bytes();
  for (const Dense& layer : head_) bytes += layer.weight_bytes();
  for (const Decoder& decoder : decoders_) {
    bytes += decoder.bias.size() * sizeof(float);
    for (const Dense& layer : decoder.own) bytes += layer.weight_bytes();
  }
  return bytes;
}

// ---- a chunk of rows -----------------------------------------------------------------------------------
const float* Estimator::encode_chunk(const float* rows, int n) {
  const float* in = rows;
  std::size_t in_stride = static_cast<std::size_t>(n_features());
  for (const Dense& layer : encoders_) {
    float* out = other(in);
    layer.forward(in, in_stride, n, out, stride_, codes_.data());
    in = out, in_stride = stride_;
  }
  return in;
}

const float* Estimator::reconstruct_chunk(const float* rows, int n) {
  float* in = const_cast<float*>(encode_chunk(rows, n));  // one of our own buffers
  for (std::size_t k = encoders_.size(); k-- > 0;) {
    const Decoder& decoder = decoders_[k];
    float* out = other(in);
    if (decoder.own.empty())
      encoders_[k].transposed(in, stride_, n, decoder.bias.data(), decoder.activation, out, stride_, codes_.data());
    else
      decoder.own[0].forward(in, stride_, n, out, stride_, codes_.data());
    in = out;
  }
  return in;
}

const float* Estimator::predict_chunk(const float* rows, int n) {
  const float* codes = encode_chunk(rows, n);
  float* out = other(codes);
  head_[0].forward(codes, stride_, n, out, stride_, codes_.data());
  if (kind_ != GESDA_CLASSIFIER) return out;
  for (int i = 0; i < n; ++i) {
    float* logits = out + static_cast<std::size_t>(i) * stride_;
    const float most = *std::max_element(logits, logits + outputs());
    float total = 0.0f;
    for (std::size_t c = 0; c < outputs(); ++c) total += logits[c] = std::exp(logits[c] - most);
    for (std::size_t c = 0; c < outputs(); ++c) logits[c] /= total;
  }
  return out;
}

template <class Function>
void Estimator::for_each_chunk(std::size_t n, const Function& chunk) const {
  for (std::size_t first = 0; first < n; first += chunk_) chunk(first, static_cast<int>(std::min(chunk_, n - first)));
}

// ---- all rows ------------------------------------------------------------------------------------------
namespace {

// (n, width), `stride` floats from row to row, without gaps.
void copy_rows(const float* rows, std::size_t stride, int n, std::size_t width, float* out) {
  for (int i = 0; i < n; ++i)
    std::copy_n(rows + static_cast<std::size_t>(i) * stride, width, out + static_cast<std::size_t>(i) * width);
}

}  // namespace

void Estimator::encode(const float* rows, std::size_t n, float* codes) {
  const auto features = static_cast<std::size_t>(n_features()), width = static_cast<std::size_t>(n_hidden());
  for_each_chunk(n, [&](std::size_t first, int count) {
    copy_rows(encode_chunk(rows + first * features, count), stride_, count, width, codes + first * width);
  });
}

void Estimator::reconstruct(const float* rows, std::size_t n, float* reconstructions) {
  const auto features = static_cast<std::size_t>(n_features());
  for_each_chunk(n, [&](std::size_t first, int count) {
    copy_rows(reconstruct_chunk(rows + first * features, count), stride_, count, features,
              reconstructions + first * features);
  });
}

void Estimator::score(const float* rows, std::size_t n, float* scores) {
  const auto features = static_cast<std::size_t>(n_features());
  for_each_chunk(n, [&](std::size_t first, int count) {
    const float* restored = reconstruct_chunk(rows + first * features, count);
    for (int i = 0; i < count; ++i) {
      const std::size_t row = first + static_cast<std::size_t>(i);
      double total = 0.0;
      for (std::size_t c = 0; c < features; ++c) {
        const double difference = static_cast<double>(restored[static_cast<std::size_t>(i) * stride_ + c]) -
                                  static_cast<double>(rows[row * features + c]);
        total += difference * difference;
      }
      scores[row] = static_cast<float>(-total / static_cast<double>(features));
    }
  });
}

void Estimator::predict(const float* rows, std::size_t n, float* outputs_of_rows) {
  const auto features = static_cast<std::size_t>(n_features());
  for_each_chunk(n, [&](std::size_t first, int count) {
    copy_rows(predict_chunk(rows + first * features, count), stride_, count, outputs(),
              outputs_of_rows + first * outputs());
  });
}

void Estimator::classify(const float* rows, std::size_t n, std::int32_t* classes) {
  const auto features = static_cast<std::size_t>(n_features());
  for_each_chunk(n, [&](std::size_t first, int count) {
    const float* probabilities = predict_chunk(rows + first * features, count);
    for (int i = 0; i < count; ++i) {
      const float* row = probabilities + static_cast<std::size_t>(i) * stride_;
      classes[first + static_cast<std::size_t>(i)] =
          static_cast<std::int32_t>(std::max_element(row, row + outputs()) - row);
    }
  });
}

}  // namespace gesda
