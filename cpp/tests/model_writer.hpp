// Model files in memory, with random weights of any type, as gesda/model_io.py and the estimators write them.
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "cpp/runtime/half.hpp"
#include "cpp/runtime/model_file.hpp"
#include "cpp/runtime/sha256.hpp"
#include "cpp/tests/reference.hpp"

namespace gesda_test {

class ModelWriter {
 public:
  ModelWriter(std::mt19937_64& rng, gesda::DType type) : rng_(rng), type_(type) {}

  // Adds a matrix of the writer's type (int8: with scales); returns what it stands for.
  Table add_matrix(const std::string& name, int rows, int columns) {
    Table table(rows, columns);
    std::string data;
    const float unit = 1.0f / 256.0f;
    for (double& value : table.values) {
      if (type_ == gesda::DType::kI8) {
        const auto code = static_cast<std::int8_t>(draw_int(rng_, -127, 127));
        append(data, code);
        value = static_cast<double>(code) * static_cast<double>(unit);
      } else if (type_ == gesda::DType::kF16) {  // of exponents from 2^-13 to 1, and subnormal ones
        const auto bits = static_cast<std::uint16_t>(draw_int(rng_, 0, 1) << 15 | draw_int(rng_, 0, 0x3BFF));
        append(data, bits);
        value = static_cast<double>(static_cast<float>(gesda::Half{bits}));
      } else {
        const float number = draw_float(rng_, -1.0f, 1.0f);
        append(data, number);
        value = static_cast<double>(number);
      }
    }
    const char* code = type_ == gesda::DType::kI8 ? "I8" : type_ == gesda::DType::kF16 ? "F16" : "F32";
    add(name, code, {rows, columns}, data);
    if (type_ == gesda::DType::kI8) {
      std::string scales;
      for (int c = 0; c < columns; ++c) append(scales, unit);
      add(name + ".scales", "F32", {columns}, scales);
    }
    return table;
  }

  Table add_vector(const std::string& name, int n) {
    Table table(1, n);
    std::string data;
    for (double& value : table.values) {
      const float number = draw_float(rng_, -1.0f, 1.0f);
      append(data, number);
      value = static_cast<double>(number);
    }
    add(name, "F32", {n}, data);
    return table;
  }

  void add_layer(int n_visible, int n_hidden, const std::string& activation, bool tied) {
    const std::string name = "layers." + std::to_string(n_layers_++);
    add_matrix(name + ".W", n_visible, n_hidden);
    add_vector(name + ".b", n_hidden);
    add_vector(name + ".c", n_visible);
    if (!tied) add_matrix(name + ".V", n_hidden, n_visible);
    layers_ += std::string(layers_.empty() ? "" : ",") + "{\"n_visible\":" + std::to_string(n_visible) +
               ",\"n_hidden\":" + std::to_string(n_hidden) + ",\"activation\":\"" + activation +
               "\",\"output_activation\":\"linear\",\"tied\":" + (tied ? "true" : "false") + "}";
  }

  void add_head(const std::string& kind, int n_hidden, int n_outputs) {
    add_matrix("head.W", n_hidden, n_outputs);
    add_vector("head.b", n_outputs);
    head_ = "{\"kind\":\"" + kind + "\",\"n_outputs\":" + std::to_string(n_outputs) + "}";
    for (int i = 0; i < n_outputs; ++i) classes_ += (i == 0 ? "\"class " : ",\"class ") + std::to_string(i) + "\"";
  }

  // The file of an estimator of this name.
  std::string bytes(const std::string& estimator) const {
    const std::string metadata = "{\"estimator\":\"" + estimator + "\",\"network\":{\"layers\":[" + layers_ +
                                 "],\"head\":" + head_ + "},\"fitted\":{\"feature_names_in\":null,\"classes\":[" +
                                 classes_ + "]}}";
    std::string quoted;
    for (const char c : metadata) quoted += c == '"' ? "\\\"" : std::string(1, c);
    const auto header = [&](const std::string& digest) {
      return "{\"__metadata__\":{\"format\":\"gesda\",\"format_version\":\"1\",\"sha256\":\"" + digest +
             "\",\"metadata\":\"" + quoted + "\"}" + entries_ + "}";
    };
    const auto whole = [&](const std::string& digest) {
      const std::string text = header(digest);
      std::string file;
      append(file, static_cast<std::uint64_t>(text.size()));
      return file + text + data_;
    };
    const std::string blank = whole(std::string(64, '0'));
    gesda::Sha256 sum;
    sum.update(blank.data(), blank.size());
    return whole(sum.hex_digest());
  }

 private:
  template <class T>
  static void append(std::string& data, T value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    data.append(bytes, sizeof value);
  }
  void add(const std::string& name, const std::string& code, const std::vector<int>& shape, const std::string& data) {
    std::string extents;
    for (const int extent : shape) extents += (extents.empty() ? "" : ",") + std::to_string(extent);
    entries_ += ",\"" + name + "\":{\"dtype\":\"" + code + "\",\"shape\":[" + extents + "],\"data_offsets\":[" +
                std::to_string(data_.size()) + "," + std::to_string(data_.size() + data.size()) + "]}";
    data_ += data;
  }

  std::mt19937_64& rng_;
  gesda::DType type_;
  int n_layers_ = 0;
  std::string layers_, head_ = "null", classes_, entries_, data_;
};

}  // namespace gesda_test
