#include "cpp/motion/committee.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "cpp/runtime/error.hpp"

namespace gesda {
namespace {

// The network's part in a member's probabilities; the rest is the linear classifier's.
constexpr double kNetworkShare = 0.6;

Dense read_first_layers(const ModelFile& file, const InferenceKernels& kernels,
                        const std::vector<NetworkShape>& members) {
  std::vector<DensePart> parts;
  parts.reserve(members.size());
  for (const NetworkShape& member : members) parts.push_back(member.encoder(0));
  return {kernels, file, parts, members[0].layers[0].n_visible, kTanh};
}

Dense read_readers(const ModelFile& file, const InferenceKernels& kernels, int n_members, int n_features,
                   int n_gestures) {
  if (file.at("readers.weights").shape != std::vector<std::int64_t>{n_members, n_features, n_gestures} ||
      file.at("readers.bias").shape != std::vector<std::int64_t>{n_members, n_gestures}) {
    throw Error(GESDA_BAD_FILE, "the recogniser's linear classifiers do not fit its features and gestures");
  }
  std::vector<DensePart> parts;
  parts.reserve(static_cast<std::size_t>(n_members));
  for (int k = 0; k < n_members; ++k) parts.push_back({"readers.weights", "readers.bias", n_gestures, k});
  return {kernels, file, parts, n_features, kLinear};
}

}  // namespace

Committee::Committee(const ModelFile& file, const InferenceKernels& kernels, const std::vector<NetworkShape>& members,
                     const std::vector<int>& outputs)
    : n_members_(static_cast<int>(members.size())),
      outputs_(outputs),
      first_(read_first_layers(file, kernels, members)),
      logits_(outputs.size()),
      powers_(outputs.size()),
      probabilities_(outputs.size()) {
  const std::vector<LayerShape>& layers = members[0].layers;
  levels_.push_back({{}, static_cast<std::size_t>(layers[0].n_hidden), AlignedFloats(padded_width(first_.outputs()))});
  for (std::size_t k = 1; k < layers.size(); ++k) {
    const std::size_t stride = padded_width(layers[k].n_hidden);
    Level level{{}, stride, AlignedFloats(stride * members.size())};
    for (const NetworkShape& member : members) {
      level.layers.emplace_back(kernels, file, std::vector<DensePart>{member.encoder(k)}, layers[k].n_visible, kTanh);
    }
    levels_.push_back(std::move(level));
  }
  if (!outputs.empty()) {
    const int n_gestures = static_cast<int>(outputs.size());
    readers_ = read_readers(file, kernels, n_members_, layers[0].n_visible, n_gestures);
    reader_values_ = AlignedFloats(padded_width(readers_->outputs()));
    int widest = 0;
    for (const NetworkShape& member : members) {
      heads_.emplace_back(kernels, file, std::vector<DensePart>{member.head()}, member.n_hidden(), kLinear);
      widest = std::max(widest, member.n_outputs);
    }
    head_values_ = AlignedFloats(padded_width(widest));
  }
  std::size_t codes = std::max(first_.codes_size(), readers_ ? readers_->codes_size() : 0);
  for (const Level& level : levels_) {
    for (const Dense& layer : level.layers) codes = std::max(codes, layer.codes_size());
  }
  for (const Dense& head : heads_) codes = std::max(codes, head.codes_size());
  codes_ = Aligned<std::int16_t>(codes);
}

std::size_t Committee::weight_bytes() const {
  std::size_t bytes = first_.weight_bytes() + (readers_ ? readers_->weight_bytes() : 0);
  for (const Level& level : levels_) {
    for (const Dense& layer : level.layers) bytes += layer.weight_bytes();
  }
  for (const Dense& head : heads_) bytes += head.weight_bytes();
  return bytes;
}

void Committee::answer(const float* row) {
  encode(row);
  if (!readers_) return;
  readers_->forward(row, 0, 1, reader_values_.data(), 0, codes_.data());
  std::fill(probabilities_.begin(), probabilities_.end(), 0.0);
  for (int member = 0; member < n_members_; ++member) vote(member);
  for (double& probability : probabilities_) probability /= n_members_;
}

const float* Committee::encoding(int member) const {
  return levels_.back().values.data() + static_cast<std::size_t>(member) * levels_.back().stride;
}

void Committee::encode(const float* row) {
  first_.forward(row, 0, 1, levels_[0].values.data(), 0, codes_.data());
  for (std::size_t k = 1; k < levels_.size(); ++k) {
    const Level& below = levels_[k - 1];
    Level& level = levels_[k];
    for (std::size_t member = 0; member < level.layers.size(); ++member) {
      level.layers[member].forward(below.values.data() + member * below.stride, 0, 1,
                                   level.values.data() + member * level.stride, 0, codes_.data());
    }
  }
}

// Adds what a member's network and its linear classifier say.
void Committee::vote(int member) {
  heads_[static_cast<std::size_t>(member)].forward(encoding(member), 0, 1, head_values_.data(), 0, codes_.data());
  for (std::size_t g = 0; g < outputs_.size(); ++g) {
    logits_[g] = head_values_[static_cast<std::size_t>(outputs_[g])];
  }
  add_softmax(kNetworkShare);
  const float* reader = reader_values_.data() + static_cast<std::size_t>(member) * outputs_.size();
  std::copy(reader, reader + outputs_.size(), logits_.begin());
  add_softmax(1.0 - kNetworkShare);
}

void Committee::add_softmax(double share) {
  const float most = *std::max_element(logits_.begin(), logits_.end());
  double sum = 0.0;
  for (std::size_t g = 0; g < logits_.size(); ++g) {
    powers_[g] = std::exp(static_cast<double>(logits_[g] - most));
    sum += powers_[g];
  }
  for (std::size_t g = 0; g < logits_.size(); ++g) probabilities_[g] += share * (powers_[g] / sum);
}

}  // namespace gesda
