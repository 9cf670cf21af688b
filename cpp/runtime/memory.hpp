// Aligned memory that is made once, when a model is opened.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace gesda {

// Zero-filled, aligned to 64 bytes; moves, does not copy. Large pieces are mapped: what nobody touches takes no memory,
// and the system clears the rest.
template <class T>
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(std::size_t size) : size_(size) {
    if (size == 0) return;
    if (size > PTRDIFF_MAX / sizeof(T) - 64) throw std::bad_alloc();
    const std::size_t bytes = (size * sizeof(T) + 63) / 64 * 64;
    if (bytes >= kMapped) {
      void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
      madvise(memory, bytes, MADV_HUGEPAGE);  // fewer page faults now, fewer misses of the TLB later; if not, not
#endif
      data_ = {static_cast<T*>(memory), Free{bytes}};
    } else {
      void* memory = std::aligned_alloc(64, bytes);
      if (memory == nullptr) throw std::bad_alloc();
      std::memset(memory, 0, bytes);
      data_ = {static_cast<T*>(memory), Free{bytes}};
    }
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data_.get()[i]; }
  const T& operator[](std::size_t i) const { return data_.get()[i]; }

 private:
  static constexpr std::size_t kMapped = std::size_t{1} << 17;  // bytes
  struct Free {
    std::size_t bytes = 0;
    void operator()(T* data) const {
      if (bytes >= kMapped)
        munmap(data, bytes);
      else
        std::free(data);
    }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t size_ = 0;
};

using AlignedBytes = Aligned<unsigned char>;
using AlignedFloats = Aligned<float>;

}  // namespace gesda
