#include "cpp/runtime/dense.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpp/runtime/error.hpp"

namespace gesda {

namespace {

constexpr std::size_t kChunk = std::size_t{1} << 18;  // bytes of a file that are looked at together
// Weights of 8 bits leave the row fewer bits the more inputs there are; from here on too few.
constexpr int kMostInt8Inputs = 1 << 16;

std::size_t index(int i) { return static_cast<std::size_t>(i); }

WeightType type_of(const Tensor& tensor) {
  switch (tensor.dtype) {
    case DType::kF32: return WeightType::kFloat32;
    case DType::kF16: return WeightType::kFloat16;
    case DType::kI8: return WeightType::kInt8;
    default: throw Error(GESDA_BAD_FILE, "its array '" + tensor.name + "' is of no type that weights have");
  }
}

std::size_t bytes_of(WeightType type) {
  return type == WeightType::kFloat32 ? 4 : type == WeightType::kFloat16 ? 2 : 1;
}

// Whether no exponent is all ones, as those of NaN and infinity are: one more would carry into the sign's bit. All
// words first, then the question: so the loop has no branch and fits vectors.
template <class Word>
bool all_finite(const unsigned char* data, std::size_t n, Word least_exponent) {
  constexpr Word kSign = Word{1} << (8 * sizeof(Word) - 1);
  Word carried = 0;
  for (std::size_t i = 0; i < n; ++i) {
    Word word;
    std::memcpy(&word, data + i * sizeof word, sizeof word);
    carried = static_cast<Word>(carried | ((word & (kSign - 1)) + least_exponent));
  }
  return (carried & kSign) == 0;
}

bool all_finite(const unsigned char* data, std::size_t n, WeightType type) {
  if (type == WeightType::kFloat32) return all_finite<std::uint32_t>(data, n, 1u << 23);
  if (type == WeightType::kFloat16) return all_finite<std::uint16_t>(data, n, 1u << 10);
  return true;
}

// The numbers of a part's bias or scales.
std::vector<float> vector_of(const ModelFile& file, const std::string& name, const DensePart& part) {
  if (part.slice < 0) return file.floats(name, {part.columns});
  const std::vector<float> all = file.floats(name, {ModelFile::kAny, part.columns});
  const std::size_t begin = index(part.slice) * index(part.columns);
  if (begin + index(part.columns) > all.size()) throw Error(GESDA_BAD_FILE, "its array '" + name + "' is too short");
  return {all.begin() + static_cast<std::ptrdiff_t>(begin),
          all.begin() + static_cast<std::ptrdiff_t>(begin + index(part.columns))};
}

}  // namespace

Dense::Dense(const InferenceKernels& kernels, const ModelFile& file, const std::vector<DensePart>& parts, int inputs,
             Activation activation)
    : kernels_(&kernels),
      inputs_(inputs),
      outputs_(0),
      activation_(activation),
      type_(type_of(file.at(parts.at(0).weights))) {
  for (const DensePart& part : parts) {  // before memory is asked for
    if (part.columns < 0 || part.columns > kMostUnits - outputs_) throw Error(GESDA_BAD_FILE, "a layer is too wide");
    check_part(file, part);
    outputs_ += part.columns;
  }
  if (inputs < 1 || inputs > kMostUnits) throw Error(GESDA_BAD_FILE, "a layer has an impossible width");
  if (type_ == WeightType::kInt8 && inputs > kMostInt8Inputs)
    throw Error(GESDA_BAD_FILE, "a layer has too many inputs for weights of 8 bits");
  const std::size_t panel = index(kernels.panel_width), panels = (index(outputs_) + panel - 1) / panel;
  const std::size_t depth = type_ == WeightType::kInt8 ? (index(inputs) + 1) / 2 * 2 : index(inputs);
  // The products fetch ahead of what they read, never what is not there: a prefetch of no address is no access.
  weights_ = AlignedBytes(panels * depth * panel * bytes_of(type_));
  bias_ = AlignedFloats(padded_width(outputs_));
  if (type_ == WeightType::kInt8) scales_ = AlignedFloats(padded_width(outputs_));
  int first_column = 0;
  for (const DensePart& part : parts) {
    read_part(file, part, first_column);
    first_column += part.columns;
  }
}

void Dense::check_part(const ModelFile& file, const DensePart& part) const {
  const Tensor& tensor = file.at(part.weights);
  const bool is_stack = part.slice >= 0;
  const std::size_t offset = is_stack ? 1 : 0;
  if (type_of(tensor) != type_ || tensor.shape.size() != 2 + offset || tensor.shape[offset] != inputs_ ||
      tensor.shape[offset + 1] != part.columns || (is_stack && part.slice >= tensor.shape[0]))
    throw Error(GESDA_BAD_FILE, "its array '" + tensor.name + "' does not fit the network");
}

void Dense::read_part(const ModelFile& file, const DensePart& part, int first_column) {
  const Tensor& tensor = file.at(part.weights);
  const std::vector<float> bias = vector_of(file, part.bias, part);
  std::copy(bias.begin(), bias.end(), bias_.data() + first_column);
  if (type_ == WeightType::kInt8) {
    const std::vector<float> scales = vector_of(file, part.weights + ".scales", part);
    std::copy(scales.begin(), scales.end(), scales_.data() + first_column);
  }
  if (part.columns == 0) return;

  const std::size_t row_bytes = index(part.columns) * bytes_of(type_);
  const std::size_t begin = part.slice >= 0 ? index(part.slice) * index(inputs_) * row_bytes : 0;
  // An even number of rows: int8 stands in pairs.
  const int together = static_cast<int>(std::max<std::size_t>(2, kChunk / row_bytes / 2 * 2));
  std::vector<unsigned char> chunk(row_bytes * index(std::min(together, inputs_)));
  for (int first = 0; first < inputs_; first += together) {
    const int rows = std::min(together, inputs_ - first);
    file.read(tensor, begin + index(first) * row_bytes, index(rows) * row_bytes, chunk.data());
    if (!all_finite(chunk.data(), index(rows) * index(part.columns), type_))
      throw Error(GESDA_BAD_FILE, "its array '" + tensor.name + "' holds NaN or infinity");
    switch (type_) {
      case WeightType::kFloat32: pack_rows<4>(chunk.data(), first, rows, first_column, part.columns); break;
      case WeightType::kFloat16: pack_rows<2>(chunk.data(), first, rows, first_column, part.columns); break;
      case WeightType::kInt8: pack_pairs(chunk.data(), first, rows, first_column, part.columns); break;
    }
  }
}

// Rows of a part into their panels, a panel at a time: writes to one place before the next.
template <int Bytes>
void Dense::pack_rows(const unsigned char* rows, int first, int n, int first_column, int columns) {
  const std::size_t panel = index(kernels_->panel_width), row_bytes = index(columns) * Bytes;
  for (std::size_t c = index(first_column), end = c + index(columns); c < end;) {
    const std::size_t stretch = std::min(end - c, panel - c % panel);
    const unsigned char* in = rows + (c - index(first_column)) * Bytes;
    unsigned char* out =
        weights_.data() + (c / panel * index(inputs_) * panel + index(first) * panel + c % panel) * Bytes;
    for (int r = 0; r < n; ++r, in += row_bytes, out += panel * Bytes) std::memcpy(out, in, stretch * Bytes);
    c += stretch;
  }
}

void Dense::pack_pairs(const unsigned char* rows, int first, int n, int first_column, int columns) {
  const std::size_t panel = index(kernels_->panel_width), depth = (index(inputs_) + 1) / 2 * 2;
  for (std::size_t c = index(first_column), end = c + index(columns); c < end;) {
    const std::size_t stretch = std::min(end - c, panel - c % panel);
    const unsigned char* in = rows + (c - index(first_column));
    unsigned char* out = weights_.data() + (c / panel * depth + index(first)) * panel + c % panel * 2;
    for (int r = 0; r < n; ++r, in += columns) {
      unsigned char* place = out + index(r / 2) * 2 * panel + r % 2;
      for (std::size_t i = 0; i < stretch; ++i) place[2 * i] = in[i];
    }
    c += stretch;
  }
}

void Dense::forward(const float* in, std::size_t in_stride, int rows, float* out, std::size_t out_stride,
                    std::int16_t* codes) const {
  kernels_->dense({in, in_stride, rows, inputs_, outputs_, type_, weights_.data(), scales_.data(), bias_.data(),
                   activation_, out, out_stride, codes});
}

void Dense::transposed(float* in, std::size_t in_stride, int rows, const float* bias, Activation activation, float* out,
                       std::size_t out_stride, std::int16_t* codes) const {
  for (int row = 0; row < rows; ++row)
    std::fill(in + index(row) * in_stride + outputs_, in + index(row) * in_stride + padded_width(outputs_), 0.0f);
  kernels_->transposed({in, in_stride, rows, inputs_, outputs_, type_, weights_.data(), scales_.data(), bias,
                        activation, out, out_stride, codes});
}

std::size_t Dense::codes_size() const {
  return type_ == WeightType::kInt8 ? std::max(padded_width(inputs_), padded_width(outputs_)) : 0;
}

}  // namespace gesda
