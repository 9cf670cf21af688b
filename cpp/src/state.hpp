// What a Network keeps between epochs: parameters, optimiser state, and how arrays are found by name.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cpp/src/dispatch.hpp"
#include "cpp/src/jobs.hpp"

namespace gesda {

// One parameter array; a vector is a matrix of one row. The optimiser's state is made when it is first needed.
struct Parameter {
  Matrix values;
  Matrix pretrain_slots[2], finetune_slots[2];

  float* vector() const { return values.panels().data; }
};

struct LayerParameters {
  Parameter w, b, c, v;  // v: untied only
};

// An array that callers know by name: a parameter's values, or a slot of one of its optimisers.
struct NamedArray {
  Matrix* array;         // empty while a slot has not been needed
  const Matrix* values;  // the parameter: gives the shape
};

struct Network::State {
  NetworkSpec spec;
  const Kernels* kernels;
  int n_threads;
  Precision precision;
  std::vector<LayerParameters> layers;
  Parameter head_w, head_b;
  std::vector<std::int64_t> pretrain_steps;
  std::int64_t finetune_steps = 0;
  std::map<std::string, NamedArray> arrays;  // but for the step counters

  State(NetworkSpec network, const Kernels& table, int threads, Precision of_products);

  int width() const { return kernels->panel_width; }
  bool is_bf16() const { return precision == kBf16; }
  // bf16 copies of a minibatch's matrix, as asked; nothing in fp32.
  PackedMatrix packed(int rows, int columns, bool by_columns, bool by_rows) const {
    return is_bf16() ? PackedMatrix(rows, columns, width(), by_columns, by_rows) : PackedMatrix();
  }
  void name_arrays(const std::string& name, Parameter& parameter, bool pretrains, bool finetunes);
  // Layer weights as operands of products.
  Weights encoder(std::size_t layer) const;             // x -> h
  Weights decoder(std::size_t layer) const;             // h -> a
  Weights decoder_transposed(std::size_t layer) const;  // d -> e
};

// Number of state arrays of an optimiser, and their names.
int slot_count(Optimizer kind);
const char* slot_name(Optimizer kind, int slot);
// Makes the slots that the optimiser needs.
void prepare_slots(Matrix (&slots)[2], const Matrix& values, Optimizer kind, int width);
// The rule of update number `step` (from 1).
UpdateRule update_rule(const OptimizerSpec& optimizer, float rate, std::int64_t step);

DataRows data_rows(const Samples& samples);
// The threshold and the stream of a layer's corruption, or of a dropout mask.
CorruptTask corrupt_task(const NetworkSpec& spec, std::size_t layer, std::uint32_t epoch);
CorruptTask dropout_task(const NetworkSpec& spec, double rate, int layer, int columns, std::uint32_t epoch);

PackTask pack_task(Panels in, int columns, const PackedMatrix& out);  // but for the rows
UpdateTask weight_update(const Parameter& parameter, const Matrix (&slots)[2]);
BiasTask bias_update(const Parameter& parameter, const Matrix (&slots)[2]);

// Bits for `rows` rows of `columns` columns.
struct BitStorage {
  std::vector<u32> words;
  int rows = 0;
  BitStorage() = default;
  BitStorage(int n_rows, int columns)
      : words(static_cast<std::size_t>(panel_count(columns, 32)) * static_cast<std::size_t>(n_rows)), rows(n_rows) {}
  BitMatrix view() { return {words.empty() ? nullptr : words.data(), rows}; }
};

}  // namespace gesda
