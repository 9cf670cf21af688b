// What a recogniser's file says of one of its networks: the pretrained stack, or a member of the committee.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "cpp/runtime/dense.hpp"
#include "cpp/runtime/model_file.hpp"

namespace gesda {

struct LayerShape {
  int n_visible, n_hidden;
  Activation output_activation;
  bool tied;
};

struct NetworkShape {
  std::string name;  // its arrays' names begin with it
  std::vector<LayerShape> layers;
  int n_outputs;  // of the softmax head

  int n_hidden() const { return layers.back().n_hidden; }
  DensePart encoder(std::size_t layer) const;
  DensePart untied_decoder(std::size_t layer) const;
  std::string decoder_bias(std::size_t layer) const;
  DensePart head() const;
};

// Throws Error unless layers are of tanh units, follow each other from `n_features` on, and have arrays of these
// shapes, so that whatever is made for them is bounded by the size of the file.
NetworkShape read_network(const ModelFile& file, const std::string& name, int n_features);

}  // namespace gesda
