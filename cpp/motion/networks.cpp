#include "cpp/motion/networks.hpp"

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

#include "cpp/runtime/error.hpp"

namespace gesda {
namespace {

constexpr std::size_t kMostLayers = 1000;

[[noreturn]] void refuse(const std::string& reason) { throw Error(GESDA_BAD_FILE, "the recogniser's " + reason); }

int read_width(const Json& json, const char* name) {
  const std::int64_t width = json.at(name).integer();
  if (width < 1 || width > kMostUnits) refuse("networks have an impossible width");
  return static_cast<int>(width);
}

Activation read_activation(const Json& json) {
  static constexpr std::array<std::pair<std::string_view, Activation>, 4> kKnown = {
      {{"sigmoid", kSigmoid}, {"tanh", kTanh}, {"relu", kRelu}, {"linear", kLinear}}};
  for (const auto& [name, activation] : kKnown) {
    if (json.text() == name) return activation;
  }
  refuse("networks have an unknown activation");
}

void check_matrix(const ModelFile& file, const std::string& name, int rows, int columns) {
  if (file.at(name).shape != std::vector<std::int64_t>{rows, columns}) {
    refuse("array '" + name + "' does not fit its network");
  }
}

std::string layer_name(const std::string& network, std::size_t layer) {
  return network + ".layers." + std::to_string(layer);
}

}  // namespace

DensePart NetworkShape::encoder(std::size_t layer) const {
  const std::string prefix = layer_name(name, layer);
  return {prefix + ".W", prefix + ".b", layers[layer].n_hidden};
}

DensePart NetworkShape::untied_decoder(std::size_t layer) const {
  return {layer_name(name, layer) + ".V", decoder_bias(layer), layers[layer].n_visible};
}

std::string NetworkShape::decoder_bias(std::size_t layer) const { return layer_name(name, layer) + ".c"; }

DensePart NetworkShape::head() const { return {name + ".head.W", name + ".head.b", n_outputs}; }

NetworkShape read_network(const ModelFile& file, const std::string& name, int n_features) {
  const Json& network = file.metadata().at("networks").at(name).at("network");
  const std::vector<Json>& layers = network.at("layers").list();
  if (layers.empty() || layers.size() > kMostLayers) refuse("networks have an impossible number of layers");
  NetworkShape shape{name, {}, 0};
  int width = n_features;
  for (const Json& layer : layers) {
    const int n_visible = read_width(layer, "n_visible"), n_hidden = read_width(layer, "n_hidden");
    if (n_visible != width) refuse("networks do not fit its features");
    if (read_activation(layer.at("activation")) != kTanh) refuse("networks have other units than tanh");
    width = n_hidden;
    shape.layers.push_back(
        {n_visible, n_hidden, read_activation(layer.at("output_activation")), layer.at("tied").boolean()});
    const std::size_t number = shape.layers.size() - 1;
    check_matrix(file, shape.encoder(number).weights, n_visible, n_hidden);
    if (!shape.layers.back().tied) check_matrix(file, shape.untied_decoder(number).weights, n_hidden, n_visible);
  }
  const Json& head = network.at("head");
  if (head.at("kind").text() != "softmax") refuse("networks tell no gestures apart");
  shape.n_outputs = read_width(head, "n_outputs");
  check_matrix(file, shape.head().weights, width, shape.n_outputs);
  return shape;
}

}  // namespace gesda
