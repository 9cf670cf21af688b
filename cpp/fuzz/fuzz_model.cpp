// libFuzzer on the model reader: whatever the bytes, opening them ends in a model that answers or in one error.
//
// Most of a model file is weights, of which any are right, and most changes to its header make it no JSON: so the
// mutator changes one or the other and writes the header's length anew.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "gesda/gesda.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most, unsigned seed);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

constexpr std::size_t kMostNumbers = std::size_t{1} << 20;  // of a row: a file of a kilobyte may tell of wide layers

void expect(bool holds) {
  if (!holds) std::abort();
}

// Everything that a model of this kind can be asked.
void ask(gesda_model* model) {
  gesda_info info;
  gesda_info_init(&info);
  expect(gesda_describe(model, &info) == GESDA_OK);
  expect(info.n_features >= 1 && info.n_outputs >= 0);
  const auto widest = static_cast<std::size_t>(std::max({info.n_features, info.n_hidden, info.n_outputs}));
  if (widest > kMostNumbers) return;
  constexpr std::size_t kRows = 3;
  std::vector<float> rows(kRows * static_cast<std::size_t>(info.n_features)), out(kRows * widest);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i % 7) - 3.0f;
  for (std::int32_t i = -1; i <= info.n_outputs; ++i) {
    const char* name = gesda_class_name(model, i);
    expect(name == nullptr || std::strlen(name) < (std::size_t{1} << 26));
  }
  if (info.kind == GESDA_RECOGNIZER) {
    gesda_recognition answer;
    expect(gesda_recognize(model, rows.data(), kRows, &answer, out.data()) == GESDA_OK);
    expect(answer.gesture >= -1 && answer.gesture < std::max(info.n_outputs, 0) && answer.best < info.n_outputs);
    return;
  }
  std::int32_t classes[kRows];
  expect(gesda_encode(model, rows.data(), kRows, out.data()) == GESDA_OK);
  expect(gesda_reconstruct(model, rows.data(), kRows, out.data()) == GESDA_OK);
  expect(gesda_score(model, rows.data(), kRows, out.data()) == GESDA_OK);
  const bool classifies = info.kind == GESDA_CLASSIFIER;
  expect((gesda_probabilities(model, rows.data(), kRows, out.data()) == GESDA_OK) == classifies);
  expect((gesda_classify(model, rows.data(), kRows, classes) == GESDA_OK) == classifies);
  if (classifies) expect(classes[0] >= 0 && classes[0] < info.n_outputs);
  expect((gesda_predict(model, rows.data(), kRows, out.data()) == GESDA_OK) == (info.kind == GESDA_REGRESSOR));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  gesda_model* model = nullptr;
  gesda_options options;
  gesda_options_init(&options);
  options.variant = size % 2 == 0 ? nullptr : "baseline";
  const gesda_status status = gesda_open_memory(data, size, &options, &model);
  expect((status == GESDA_OK) == (model != nullptr));
  if (status == GESDA_OK)
    ask(model);
  else
    expect(std::strlen(gesda_last_error()) > 5 && status != GESDA_INTERNAL_ERROR);
  gesda_close(model);
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most, unsigned seed) {
  std::uint64_t length = 0;
  if (size < 8 || seed % 16 == 0) return LLVMFuzzerMutate(data, size, most);
  std::memcpy(&length, data, 8);
  if (length > size - 8) return LLVMFuzzerMutate(data, size, most);
  std::string header(reinterpret_cast<const char*>(data) + 8, length);
  std::string rest(reinterpret_cast<const char*>(data) + 8 + length, size - 8 - length);
  std::string& changed = seed % 4 == 0 && !rest.empty() ? rest : header;
  const std::size_t room = std::max(changed.size(), most - std::min(most, size - changed.size()));
  const std::size_t before = changed.size();
  changed.resize(room);
  changed.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(changed.data()), before, room));
  length = header.size();
  const std::size_t total = std::min(most, 8 + header.size() + rest.size());
  std::string file(reinterpret_cast<const char*>(&length), 8);
  file += header + rest;
  std::memcpy(data, file.data(), total);
  return total;
}
