#include "cpp/motion/recognizer.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>
#include <utility>

#include "cpp/runtime/error.hpp"

namespace gesda {
namespace {

constexpr std::size_t kMostMembers = 100;
constexpr std::size_t kLongestName = 4 * 200;  // bytes of 200 characters

[[noreturn]] void refuse(const std::string& reason) { throw Error(GESDA_BAD_FILE, "the recogniser's " + reason); }

// All text, or all whole numbers.
std::vector<std::string> read_names(const ModelFile& file) {
  const std::vector<Json>& list = file.metadata().at("state").at("names").list();
  if (list.size() > static_cast<std::size_t>(kMostUnits)) refuse("gestures are too many");
  std::vector<std::string> names;
  for (const Json& name : list) {
    const bool is_text = name.kind() == Json::kText;
    if (name.kind() != list[0].kind()) refuse("gestures have names of different kinds");
    names.push_back(is_text ? name.text() : std::to_string(name.integer()));
    const std::string& text = names.back();
    // The number -1 is none of a gesture: it means unlabelled.
    if (text.empty() || text.size() > kLongestName || (!is_text && text == "-1")) {
      refuse("gestures have an impossible name");
    }
  }
  if (std::set<std::string>(names.begin(), names.end()).size() != names.size()) refuse("gestures are not distinct");
  return names;
}

// As many members as there are networks besides the stack, all like it.
std::vector<NetworkShape> read_members(const ModelFile& file, const NetworkShape& stack) {
  const std::size_t n_networks = file.metadata().at("networks").object().size();
  if (n_networks < 2 || n_networks > 1 + kMostMembers) refuse("networks are too few or too many");
  std::vector<NetworkShape> members;
  for (std::size_t k = 0; k + 1 < n_networks; ++k) {
    members.push_back(read_network(file, "member" + std::to_string(k), stack.layers[0].n_visible));
    const std::vector<LayerShape>& layers = members.back().layers;
    const auto same_width = [](const LayerShape& a, const LayerShape& b) { return a.n_hidden == b.n_hidden; };
    if (!std::equal(layers.begin(), layers.end(), stack.layers.begin(), stack.layers.end(), same_width)) {
      refuse("networks are of different widths");
    }
  }
  return members;
}

// Which output of the members' heads each gesture has.
std::vector<int> read_outputs(const ModelFile& file, const std::vector<NetworkShape>& members, std::size_t n_gestures) {
  int n_outputs = members[0].n_outputs;
  for (const NetworkShape& member : members) n_outputs = std::min(n_outputs, member.n_outputs);
  std::vector<int> outputs;
  for (const Json& output : file.metadata().at("state").at("outputs").list()) {
    const std::int64_t number = output.integer();
    if (number < 0 || number >= n_outputs) refuse("outputs are not those of its networks");
    outputs.push_back(static_cast<int>(number));
  }
  if (outputs.size() != n_gestures || std::set<int>(outputs.begin(), outputs.end()).size() != n_gestures) {
    refuse("outputs are not one for each gesture");
  }
  return outputs;
}

Committee read_committee(const ModelFile& file, const InferenceKernels& kernels, const NetworkShape& stack,
                         std::size_t n_gestures) {
  const std::vector<NetworkShape> members = read_members(file, stack);
  return {file, kernels, members, read_outputs(file, members, n_gestures)};
}

double read_rate(const ModelFile& file) {
  const Json& rate = file.metadata().at("state").at("rate");
  if (rate.is_null()) return 0.0;
  if (!(rate.number() > 0.0 && rate.number() <= std::numeric_limits<double>::max())) refuse("rate is not positive");
  return rate.number();
}

// Lengths of the shortest and the longest example, in samples; 0 without examples.
std::pair<double, double> read_durations(const ModelFile& file) {
  const std::vector<double> durations = file.doubles("memory.durations", {ModelFile::kAny});
  if (durations.empty()) return {0.0, 0.0};
  const auto [shortest, longest] = std::minmax_element(durations.begin(), durations.end());
  if (*shortest < 1.0) refuse("examples have impossible durations");
  return {*shortest, *longest};
}

}  // namespace

Recognizer::Recognizer(const ModelFile& file, const InferenceKernels& kernels)
    : names_(read_names(file)),
      features_(file),
      stack_shape_(read_network(file, "stack", features_.n_features())),
      stack_(file, kernels, stack_shape_),
      committee_(read_committee(file, kernels, stack_shape_, names_.size())),
      rate_(read_rate(file)),
      row_(padded_width(features_.n_features())) {
  if (!names_.empty()) familiarity_.emplace(file, committee_.n_members(), n_gestures(), n_hidden());
  const double unit = rate_ > 0.0 ? rate_ : 1.0;
  const auto [shortest, longest] = read_durations(file);
  shortest_ = shortest / unit;
  longest_ = longest / unit;
}

double Recognizer::threshold() const {
  return familiarity_ ? familiarity_->threshold() : -std::numeric_limits<double>::infinity();
}

Answer Recognizer::recognize(const Motion<float>& motion, float* probabilities) {
  features_.describe(motion, row_.data());
  const Answer found = answer();
  if (probabilities != nullptr) {
    for (const double probability : committee_.probabilities()) *probabilities++ = static_cast<float>(probability);
  }
  return found;
}

Answer Recognizer::recognize(const Motion<double>& motion) {
  features_.describe(motion, row_.data());
  return answer();
}

// What is said of row_.
Answer Recognizer::answer() {
  const double error = stack_.error(row_.data());
  committee_.answer(row_.data());
  if (!familiarity_) return {-1, -1, 0.0, Familiarity::score_alone(error)};
  const std::vector<double>& probabilities = committee_.probabilities();
  const auto most = std::max_element(probabilities.begin(), probabilities.end());
  const int best = static_cast<int>(most - probabilities.begin());
  const double familiarity = familiarity_->score(committee_, best, error);
  return {familiarity >= familiarity_->threshold() ? best : -1, best, *most, familiarity};
}

}  // namespace gesda
