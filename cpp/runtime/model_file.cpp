#include "cpp/runtime/model_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <system_error>

#include "cpp/runtime/error.hpp"
#include "cpp/runtime/half.hpp"
#include "cpp/runtime/sha256.hpp"

namespace gesda {

namespace {

// As in gesda/model_io.py.
constexpr std::uint64_t kMostHeader = std::uint64_t{16} << 20;
constexpr std::size_t kMostTensors = 100000, kMostDimensions = 32, kMostName = 255;
constexpr std::int64_t kMostSize = std::int64_t{1} << 53;
constexpr std::size_t kChunk = std::size_t{1} << 16;

struct Type {
  const char* code;
  DType dtype;
  int bytes;
};
constexpr Type kTypes[] = {{"F64", DType::kF64, 8}, {"I64", DType::kI64, 8}, {"U64", DType::kU64, 8},
                           {"F32", DType::kF32, 4}, {"I32", DType::kI32, 4}, {"U32", DType::kU32, 4},
                           {"F16", DType::kF16, 2}, {"I16", DType::kI16, 2}, {"U16", DType::kU16, 2},
                           {"I8", DType::kI8, 1},   {"U8", DType::kU8, 1},   {"BOOL", DType::kBool, 1}};

int bytes_of(DType dtype) { return kTypes[static_cast<std::size_t>(dtype)].bytes; }

[[noreturn]] void refuse(const std::string& reason) {
  throw Error(GESDA_BAD_FILE, reason + "; the file is damaged or no GeSdA model");
}

[[noreturn]] void refuse_tensor(const std::string& name, const std::string& reason) {
  refuse("its array '" + name.substr(0, 80) + "' " + reason);
}

std::int64_t size_of(const Json& value) {
  const std::int64_t size = value.integer();
  if (size < 0 || size > kMostSize) refuse("it has an impossible size");
  return size;
}

bool is_name(const std::string& name) {
  const auto is_known = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::strchr("_.:/-", c) != nullptr;
  };
  return !name.empty() && name.size() <= kMostName && std::all_of(name.begin(), name.end(), is_known) &&
         std::strchr(".:/-", name[0]) == nullptr;
}

Tensor read_entry(const std::string& name, const Json& entry, std::uint64_t data_begin, std::uint64_t data_bytes) {
  if (!is_name(name)) refuse("it has an array whose name is none");
  Tensor tensor{name, DType::kF32, {}, 0, 0};
  const std::string& code = entry.at("dtype").text();
  const auto type = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const Type& t) { return code == t.code; });
  if (type == std::end(kTypes)) refuse_tensor(name, "is of an unknown type");
  tensor.dtype = type->dtype;
  std::uint64_t bytes = static_cast<std::uint64_t>(type->bytes);
  if (entry.at("shape").list().size() > kMostDimensions) refuse_tensor(name, "has too many dimensions");
  for (const Json& value : entry.at("shape").list()) {
    tensor.shape.push_back(size_of(value));
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(tensor.shape.back()), &bytes))
      refuse_tensor(name, "has an impossible shape");
  }
  const std::vector<Json>& offsets = entry.at("data_offsets").list();
  if (offsets.size() != 2 || entry.object().size() != 3) refuse_tensor(name, "is described in an unknown way");
  const auto begin = static_cast<std::uint64_t>(size_of(offsets[0])),
             end = static_cast<std::uint64_t>(size_of(offsets[1]));
  if (begin > end || end > data_bytes || end - begin != bytes) refuse_tensor(name, "does not fit the file");
  tensor.begin = data_begin + begin, tensor.end = data_begin + end;
  return tensor;
}

// The elements of one type as those of another.
template <class In, class Out>
void convert(const unsigned char* bytes, std::size_t n, Out* out) {
  for (std::size_t i = 0; i < n; ++i) {
    In value;
    std::memcpy(&value, bytes + i * sizeof(In), sizeof(In));
    out[i] = static_cast<Out>(value);  // NOLINT(bugprone-signed-char-misuse): they are numbers
  }
}

}  // namespace

std::int64_t Tensor::size() const {
  std::int64_t n = 1;
  for (const std::int64_t extent : shape) n *= extent;  // read_entry has seen that it fits
  return n;
}

// ---- opening -------------------------------------------------------------------------------------------
ModelFile ModelFile::open(const std::string& path, bool verify) {
  ModelFile file;
  const auto fail = [&path](const char* what, int error) -> Error {
    return {GESDA_FILE_ERROR,
            "'" + path + "' " + what + (error != 0 ? " (" + std::generic_category().message(error) + ")" : "")};
  };
  struct stat facts{};
  // Before opening: a pipe would block, a device has no end.
  if (stat(path.c_str(), &facts) != 0) throw fail("cannot be opened", errno);
  if (!S_ISREG(facts.st_mode)) throw fail("is no regular file", 0);
  file.descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.descriptor_ < 0 || fstat(file.descriptor_, &facts) != 0) throw fail("cannot be opened", errno);
  file.size_ = static_cast<std::uint64_t>(facts.st_size);
  file.load(verify);
  return file;
}

ModelFile ModelFile::view(const void* data, std::size_t size, bool verify) {
  ModelFile file;
  file.data_ = static_cast<const unsigned char*>(data);
  file.size_ = size;
  file.load(verify);
  return file;
}

ModelFile::ModelFile(ModelFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      data_(other.data_),
      size_(other.size_),
      metadata_(std::move(other.metadata_)),
      tensors_(std::move(other.tensors_)) {}

ModelFile::~ModelFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

void ModelFile::load(bool verify) {
  if (size_ < 8) refuse("it has fewer bytes than a model file");
  unsigned char length[8];
  read_at(0, 8, length);
  std::uint64_t n_header = 0;
  for (int i = 7; i >= 0; --i) n_header = n_header << 8 | length[i];
  if (n_header < 2 || n_header > std::min(size_ - 8, kMostHeader)) refuse("its header does not fit the file");
  std::string header(n_header, '\0');
  read_at(8, header.size(), header.data());

  const Json content = Json::parse(header);
  const Json* fields = content.find("__metadata__");
  if (fields == nullptr || fields->find("format") == nullptr || fields->at("format").text() != "gesda")
    refuse("it does not say that it is a GeSdA model");
  if (fields->at("format_version").text() != "1")
    throw Error(GESDA_BAD_FILE, "its format is of version '" + fields->at("format_version").text().substr(0, 40) +
                                    "', this GeSdA reads version 1; upgrade GeSdA or save the model again");
  if (content.object().size() > kMostTensors) refuse("it lists too many arrays");
  const std::uint64_t data_begin = 8 + n_header, data_bytes = size_ - data_begin;
  for (const auto& [name, entry] : content.object())
    if (name != "__metadata__") tensors_.push_back(read_entry(name, entry, data_begin, data_bytes));

  std::sort(tensors_.begin(), tensors_.end(),
            [](const Tensor& a, const Tensor& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
  std::uint64_t place = data_begin;
  for (const Tensor& tensor : tensors_) {
    if (tensor.begin != place) refuse("its arrays overlap or leave gaps");
    place = tensor.end;
  }
  if (place != size_) refuse("its arrays do not fill it");
  std::sort(tensors_.begin(), tensors_.end(), [](const Tensor& a, const Tensor& b) { return a.name < b.name; });
  if (std::adjacent_find(tensors_.begin(), tensors_.end(),
                         [](const Tensor& a, const Tensor& b) { return a.name == b.name; }) != tensors_.end())
    refuse("it has two arrays of one name");

  if (verify) verify_digest(header, fields->at("sha256").text());
  metadata_ = Json::parse(fields->at("metadata").text());
  metadata_.object();
}

void ModelFile::verify_digest(const std::string& header, const std::string& digest) const {
  const std::size_t place = header.find(digest);
  if (digest.size() != 64 || place == std::string::npos || header.find(digest, place + 1) != std::string::npos)
    refuse("its checksum is malformed");
  unsigned char length[8];
  read_at(0, 8, length);
  std::string blank = header;
  blank.replace(place, 64, 64, '0');
  Sha256 sum;
  sum.update(length, 8);
  sum.update(blank.data(), blank.size());
  std::vector<unsigned char> chunk(kChunk);
  for (std::uint64_t at = 8 + header.size(); at < size_; at += kChunk) {
    const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(kChunk, size_ - at));
    read_at(at, size, chunk.data());
    sum.update(chunk.data(), size);
  }
  if (sum.hex_digest() != digest) refuse("its checksum does not fit its content");
}

// ---- reading -------------------------------------------------------------------------------------------
void ModelFile::read_at(std::uint64_t begin, std::size_t size, void* out) const {
  if (begin > size_ || size > size_ - begin) refuse("it ends too early");
  if (data_ != nullptr) {
    std::memcpy(out, data_ + begin, size);
    return;
  }
  char* place = static_cast<char*>(out);
  while (size > 0) {
    const ssize_t got = pread(descriptor_, place, size, static_cast<off_t>(begin));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      throw Error(GESDA_FILE_ERROR, "the model file cannot be read (" + std::generic_category().message(errno) + ")");
    if (got == 0) refuse("it has become shorter while it was read");
    place += got, begin += static_cast<std::uint64_t>(got), size -= static_cast<std::size_t>(got);
  }
}

void ModelFile::read(const Tensor& tensor, std::uint64_t offset, std::size_t size, void* out) const {
  if (offset > tensor.end - tensor.begin || size > tensor.end - tensor.begin - offset)
    refuse_tensor(tensor.name, "is too short");
  read_at(tensor.begin + offset, size, out);
}

const Tensor* ModelFile::find(std::string_view name) const {
  const auto found =
      std::lower_bound(tensors_.begin(), tensors_.end(), name,
                       [](const Tensor& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

const Tensor& ModelFile::at(std::string_view name) const {
  const Tensor* tensor = find(name);
  if (tensor == nullptr) refuse("it lacks the array '" + std::string(name) + "'");
  return *tensor;
}

const Tensor& ModelFile::shaped(std::string_view name, const std::vector<std::int64_t>& shape) const {
  const Tensor& tensor = at(name);
  bool fits = tensor.shape.size() == shape.size();
  for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] == kAny || shape[i] == tensor.shape[i];
  if (!fits) refuse_tensor(tensor.name, "is of another shape than the model needs");
  return tensor;
}

template <class Out>
std::vector<Out> ModelFile::elements(const Tensor& tensor) const {
  std::vector<Out> out(static_cast<std::size_t>(tensor.size()));
  const auto bytes = static_cast<std::size_t>(bytes_of(tensor.dtype));
  std::vector<unsigned char> chunk(std::min(kChunk, out.size() * bytes));
  for (std::size_t begin = 0; begin < out.size(); begin += kChunk / bytes) {
    const std::size_t n = std::min(kChunk / bytes, out.size() - begin);
    read(tensor, begin * bytes, n * bytes, chunk.data());
    Out* place = out.data() + begin;
    switch (tensor.dtype) {
      case DType::kF64: convert<double>(chunk.data(), n, place); break;
      case DType::kF32: convert<float>(chunk.data(), n, place); break;
      case DType::kF16: convert<Half>(chunk.data(), n, place); break;
      case DType::kI64: convert<std::int64_t>(chunk.data(), n, place); break;
      case DType::kU64: convert<std::uint64_t>(chunk.data(), n, place); break;
      case DType::kI32: convert<std::int32_t>(chunk.data(), n, place); break;
      case DType::kU32: convert<std::uint32_t>(chunk.data(), n, place); break;
      case DType::kI16: convert<std::int16_t>(chunk.data(), n, place); break;
      case DType::kU16: convert<std::uint16_t>(chunk.data(), n, place); break;
      case DType::kI8: convert<std::int8_t>(chunk.data(), n, place); break;
      case DType::kU8:
      case DType::kBool: convert<std::uint8_t>(chunk.data(), n, place); break;
    }
  }
  return out;
}

template <class Out>
std::vector<Out> ModelFile::numbers(std::string_view name, const std::vector<std::int64_t>& shape) const {
  const Tensor& tensor = shaped(name, shape);
  if (tensor.dtype != DType::kF64 && tensor.dtype != DType::kF32 && tensor.dtype != DType::kF16)
    refuse_tensor(tensor.name, "is of another type than the model needs");
  std::vector<Out> out = elements<Out>(tensor);
  if (!std::all_of(out.begin(), out.end(), [](Out value) { return std::isfinite(value); }))
    refuse_tensor(tensor.name, "holds NaN or infinity");
  return out;
}

std::vector<float> ModelFile::floats(std::string_view name, const std::vector<std::int64_t>& shape) const {
  return numbers<float>(name, shape);
}

std::vector<double> ModelFile::doubles(std::string_view name, const std::vector<std::int64_t>& shape) const {
  return numbers<double>(name, shape);
}

std::vector<std::int64_t> ModelFile::integers(std::string_view name, const std::vector<std::int64_t>& shape) const {
  const Tensor& tensor = shaped(name, shape);
  if (tensor.dtype == DType::kF64 || tensor.dtype == DType::kF32 || tensor.dtype == DType::kF16)
    refuse_tensor(tensor.name, "is of another type than the model needs");
  return elements<std::int64_t>(tensor);
}

}  // namespace gesda
