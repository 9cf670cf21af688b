// Model files, read without trust: gesda/model_io.py describes the layout. Nothing is kept in memory but the header;
// arrays are read from the file when they are asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cpp/runtime/json.hpp"

namespace gesda {

enum class DType : std::uint8_t { kF64, kI64, kU64, kF32, kI32, kU32, kF16, kI16, kU16, kI8, kU8, kBool };

struct Tensor {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t begin, end;  // bytes from the start of the file

  std::int64_t size() const;  // elements
};

// Throws Error(GESDA_BAD_FILE) for whatever a correct file of this model cannot contain, and Error(GESDA_FILE_ERROR)
// where the system refuses.
class ModelFile {
 public:
  // Opens a file, or looks at `size` bytes in memory that outlive this object. verify: the checksum of the whole file.
  static ModelFile open(const std::string& path, bool verify);
  static ModelFile view(const void* data, std::size_t size, bool verify);
  ModelFile(ModelFile&& other) noexcept;
  ModelFile(const ModelFile&) = delete;
  ModelFile& operator=(const ModelFile&) = delete;
  ~ModelFile();

  const Json& metadata() const { return metadata_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const Tensor* find(std::string_view name) const;
  const Tensor& at(std::string_view name) const;

  // The elements of a tensor, converted; shape: what it has to be (kAny for a free dimension). Floats must be finite.
  static constexpr std::int64_t kAny = -1;
  std::vector<float> floats(std::string_view name, const std::vector<std::int64_t>& shape) const;
  std::vector<double> doubles(std::string_view name, const std::vector<std::int64_t>& shape) const;
  std::vector<std::int64_t> integers(std::string_view name, const std::vector<std::int64_t>& shape) const;  // or bool
  // Bytes [offset, offset + size) of a tensor.
  void read(const Tensor& tensor, std::uint64_t offset, std::size_t size, void* out) const;

 private:
  ModelFile() = default;
  void load(bool verify);
  void verify_digest(const std::string& header, const std::string& digest) const;
  void read_at(std::uint64_t begin, std::size_t size, void* out) const;
  const Tensor& shaped(std::string_view name, const std::vector<std::int64_t>& shape) const;
  template <class Out>
  std::vector<Out> elements(const Tensor& tensor) const;
  template <class Out>
  std::vector<Out> numbers(std::string_view name, const std::vector<std::int64_t>& shape) const;

  int descriptor_ = -1;
  const unsigned char* data_ = nullptr;  // of a view
  std::uint64_t size_ = 0;
  Json metadata_;
  std::vector<Tensor> tensors_;  // by name
};

}  // namespace gesda
