// Storage in panels: aligned memory, matrices, and vectors padded to whole panels.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "cpp/src/kernel_table.hpp"

namespace gesda {

// Zero-filled floats, aligned for every variant; moves, does not copy. Large ones are mapped on their own, so that the
// system has them back when they are freed: malloc would keep up to twice the largest.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t size) : size_(size) {
    if (size == 0) return;
    const std::size_t bytes = (size * sizeof(float) + 63) / 64 * 64;
    void* memory = nullptr;
    if (bytes >= kMapped) {
      memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory == MAP_FAILED) throw std::bad_alloc();
    } else {
      memory = std::aligned_alloc(64, bytes);
      if (memory == nullptr) throw std::bad_alloc();
      std::memset(memory, 0, bytes);
    }
    data_ = {static_cast<float*>(memory), Free{bytes}};
  }

  float* data() const { return data_.get(); }
  std::size_t size() const { return data_ ? size_ : 0; }
  bool empty() const { return size() == 0; }

 private:
  static constexpr std::size_t kMapped = std::size_t{1} << 20;  // bytes
  struct Free {
    std::size_t bytes;
    void operator()(float* data) const {
      if (bytes >= kMapped)
        munmap(data, bytes);
      else
        std::free(data);
    }
  };
  std::unique_ptr<float, Free> data_;
  std::size_t size_ = 0;  // of what `data_` had before it was moved away
};

inline int panel_count(int columns, int width) { return (columns + width - 1) / width; }

// A matrix in panels (kernel_table.hpp). `spare_rows` pad each panel, so that panels of activations, which are read
// side by side, do not compete for the same cache sets.
class Matrix {
 public:
  Matrix() = default;
  Matrix(int rows, int columns, int width, int spare_rows = 0)
      : rows_(rows),
        columns_(columns),
        width_(width),
        stride_(static_cast<std::size_t>(rows + spare_rows) * static_cast<std::size_t>(width)),
        storage_(stride_ * static_cast<std::size_t>(panel_count(columns, width))) {}

  int rows() const { return rows_; }
  int columns() const { return columns_; }
  bool empty() const { return storage_.empty(); }
  Panels panels() const { return {storage_.data(), stride_}; }

  void read(const float* row_major) {
    for (int r = 0; r < rows_; ++r)
      for (int c = 0; c < columns_; ++c) *element(r, c) = row_major[index(r, c)];
  }
  void write(float* row_major) const {
    for (int r = 0; r < rows_; ++r)
      for (int c = 0; c < columns_; ++c) row_major[index(r, c)] = *element(r, c);
  }

  bool all_finite() const {
    bool finite = true;
    for (int c = 0; c < columns_; c += width_)
      for (int r = 0; r < rows_; ++r)
        for (int i = 0; i < std::min(width_, columns_ - c); ++i) finite &= std::isfinite(element(r, c)[i]);
    return finite;
  }

 private:
  std::size_t index(int r, int c) const {
    return static_cast<std::size_t>(r) * static_cast<std::size_t>(columns_) + static_cast<std::size_t>(c);
  }
  float* element(int r, int c) const {
    return storage_.data() + static_cast<std::size_t>(c / width_) * stride_ +
           static_cast<std::size_t>(r) * static_cast<std::size_t>(width_) + c % width_;
  }

  int rows_ = 0, columns_ = 0, width_ = 1;
  std::size_t stride_ = 0;
  Buffer storage_;
};

// The bf16 copies of a minibatch's activations (kernel_table.hpp), those of them that are wanted.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  PackedMatrix(int rows, int columns, int width, bool by_columns, bool by_rows)
      : by_columns_(by_columns ? Matrix(rows, (columns + 1) / 2, width / 2, 3) : Matrix()),
        by_rows_(by_rows ? Matrix((rows + 1) / 2, columns, width, 3) : Matrix()) {}

  Pairs by_columns() const { return pairs(by_columns_); }
  Pairs by_rows() const { return pairs(by_rows_); }
  bool empty() const { return by_columns_.empty() && by_rows_.empty(); }

 private:
  static Pairs pairs(const Matrix& m) { return {reinterpret_cast<u32*>(m.panels().data), m.panels().stride}; }

  Matrix by_columns_, by_rows_;  // for their memory only: words of pairs stand in it
};

// Activations of a minibatch.
inline Matrix minibatch_matrix(int rows, int columns, int width) { return Matrix(rows, columns, width, 3); }

}  // namespace gesda
