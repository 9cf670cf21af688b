// What the tests of the kernels share: the variants to test, matrices in panels amid canaries, random numbers.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cpp/src/dispatch.hpp"
#include "cpp/src/matrix.hpp"

#if defined(GESDA_HAVE_WIDE)
namespace gesda {
namespace wide {
extern const Kernels kTable;
}
}  // namespace gesda
#endif

namespace gesda_test {

using gesda::Kernels;
using gesda::Panels;
using gesda::Range;
using gesda::u32;

// Every variant that this machine runs, and the AVX-512 shape on AVX2 where it was built.
inline std::vector<const Kernels*> tables() {
  std::vector<const Kernels*> all = gesda::runnable_kernels();
#if defined(GESDA_HAVE_WIDE)
  const bool has_avx2 =
      std::any_of(all.begin(), all.end(), [](const Kernels* k) { return std::string(k->name) == "avx2"; });
  if (has_avx2) all.push_back(&gesda::wide::kTable);
#endif
  return all;
}

// Whether the variant's products and sums fuse, which gives it the bits of every other one that does, and of the scalar
// formulas. Of aarch64 every machine can.
inline bool is_fused(const Kernels& kernels) {
#if defined(__aarch64__)
  static_cast<void>(kernels);
  return true;
#else
  return std::string(kernels.name) != "baseline";
#endif
}

inline int draw_int(std::mt19937_64& rng, int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(rng);
}
inline bool draw_bool(std::mt19937_64& rng) { return draw_int(rng, 0, 1) == 1; }
inline float draw_float(std::mt19937_64& rng, float low, float high) {
  return std::uniform_real_distribution<float>(low, high)(rng);
}
template <class T, std::size_t N>
T draw_of(std::mt19937_64& rng, const T (&all)[N]) {
  return all[static_cast<std::size_t>(draw_int(rng, 0, static_cast<int>(N) - 1))];
}
inline std::size_t size(int n) { return static_cast<std::size_t>(n); }
inline bool same_bits(float a, float b) { return gesda::bits(a) == gesda::bits(b); }
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// A row-major matrix, the form in which the tests compare.
struct Rows {
  int rows, columns;
  std::vector<float> values;
  Rows(int n_rows, int n_columns) : rows(n_rows), columns(n_columns), values(size(n_rows) * size(n_columns)) {}
  Rows(std::mt19937_64& rng, int n_rows, int n_columns, float low, float high) : Rows(n_rows, n_columns) {
    for (float& value : values) value = draw_float(rng, low, high);
  }
  float& operator()(int r, int c) { return values[size(r) * size(columns) + size(c)]; }
  float operator()(int r, int c) const { return values[size(r) * size(columns) + size(c)]; }
};

// A matrix in panels (kernel_table.hpp) with canaries, NaNs of a pattern that no arithmetic makes, everywhere but in
// its elements: before and after it, in spare rows, and in the padding unless that is asked to be zero. So what reads
// where it should not gives NaN, and what writes where it should not is caught by `watch` and `only_wrote`.
class Guarded {
 public:
  Guarded(const Rows& from, int width, bool zero_padding = false, int spare_rows = 3)
      : rows_(from.rows),
        columns_(from.columns),
        width_(width),
        stride_(size(from.rows + spare_rows) * size(width)),
        storage_(2 * kGuard + stride_ * size(panel_count())) {
    std::fill_n(storage_.data(), storage_.size(), gesda::floats(kCanary));
    for (int r = 0; r < rows_; ++r)
      for (int c = 0; c < panel_count() * width; ++c)
        if (c < columns_ || zero_padding) *place(r, c) = c < columns_ ? from(r, c) : 0.0f;
    watch();
  }
  static Guarded empty(int rows, int columns, int width, bool zero_padding = false) {
    Rows canaries(rows, columns);
    std::fill(canaries.values.begin(), canaries.values.end(), gesda::floats(kCanary));
    return Guarded(canaries, width, zero_padding);
  }
  static Guarded vector(const Rows& from, int width) { return Guarded(from, width, true, 0); }

  int panel_count() const { return gesda::panel_count(columns_, width_); }
  Panels panels() const { return {storage_.data() + kGuard, stride_}; }
  float* data() const { return storage_.data() + kGuard; }
  Rows read() const {
    Rows out(rows_, columns_);
    for (int r = 0; r < rows_; ++r)
      for (int c = 0; c < columns_; ++c) out(r, c) = *place(r, c);
    return out;
  }
  bool padding_is_zero(int row_begin, int row_end) const {
    for (int r = row_begin; r < row_end; ++r)
      for (int c = columns_; c < panel_count() * width_; ++c)
        if (*place(r, c) != 0.0f) return false;
    return true;
  }

  void watch() { before_.assign(storage_.data(), storage_.data() + storage_.size()); }
  // Whether nothing has changed since `watch` but in these rows of these panels.
  bool only_wrote(Range range) const {
    for (std::size_t i = 0; i < storage_.size(); ++i) {
      if (same_bits(storage_.data()[i], before_[i])) continue;
      if (i < kGuard || i >= storage_.size() - kGuard) return false;
      const int panel = static_cast<int>((i - kGuard) / stride_);
      const int row = static_cast<int>((i - kGuard) % stride_ / size(width_));
      if (panel < range.panel_begin || panel >= range.panel_end) return false;
      if (row < range.row_begin || row >= range.row_end) return false;
    }
    return true;
  }
  bool is_untouched() const { return only_wrote({0, 0, 0, 0}); }

 private:
  static constexpr std::size_t kGuard = 64;
  static constexpr u32 kCanary = 0x7FA5A5A5u;

  float* place(int r, int c) const {
    return storage_.data() + kGuard + size(c / width_) * stride_ + size(r) * size(width_) + size(c % width_);
  }

  int rows_, columns_, width_;
  std::size_t stride_;
  gesda::Buffer storage_;
  std::vector<float> before_;
};

// Random bits, one for each element, as kernels keep them; padding and rows after the last are random too.
class Bits {
 public:
  Bits(std::mt19937_64& rng, int rows, int columns)
      : rows_(rows + 2), words_(size(rows_) * size(gesda::panel_count(columns, 32))) {
    for (u32& word : words_) word = static_cast<u32>(rng());
  }
  gesda::BitMatrix view() { return {words_.data(), rows_}; }
  bool operator()(int r, int c) const { return (words_[size(c / 32) * size(rows_) + size(r)] >> (c % 32) & 1u) != 0; }

 private:
  int rows_;
  std::vector<u32> words_;
};

// [0, n) cut at random multiples of `unit` into pieces of at most `most`.
inline std::vector<int> random_cuts(std::mt19937_64& rng, int n, int unit, int most) {
  std::vector<int> cuts = {0};
  while (cuts.back() < n) cuts.push_back(std::min(n, cuts.back() + unit * draw_int(rng, 1, std::max(1, most / unit))));
  return cuts;
}

// Calls `call` for every piece of rows and panels, in random order.
inline void in_pieces(std::mt19937_64& rng, const std::vector<int>& row_cuts, const std::vector<int>& panel_cuts,
                      const std::function<void(Range)>& call) {
  std::vector<Range> pieces;
  for (std::size_t r = 0; r + 1 < row_cuts.size(); ++r)
    for (std::size_t p = 0; p + 1 < panel_cuts.size(); ++p)
      pieces.push_back({row_cuts[r], row_cuts[r + 1], panel_cuts[p], panel_cuts[p + 1]});
  std::shuffle(pieces.begin(), pieces.end(), rng);
  for (const Range& piece : pieces) call(piece);
}

// A thread's workspace, full of NaN: what a kernel needs of it, it has to write first.
class Workspace {
 public:
  explicit Workspace(const Kernels& kernels) : storage_(kernels.workspace_floats) {
    std::fill_n(storage_.data(), storage_.size(), std::nanf(""));
  }
  float* data() const { return storage_.data(); }

 private:
  gesda::Buffer storage_;
};

// The formulas in double precision, written again.
inline double activation(gesda::Activation kind, double x) {
  switch (kind) {
    case gesda::kSigmoid: return 1.0 / (1.0 + std::exp(-x));
    case gesda::kTanh: return std::tanh(x);
    case gesda::kRelu: return x > 0.0 ? x : 0.0;
    default: return x;
  }
}
inline double slope(gesda::Activation kind, double h) {  // s' from h = s(a)
  switch (kind) {
    case gesda::kSigmoid: return h * (1.0 - h);
    case gesda::kTanh: return 1.0 - h * h;
    case gesda::kRelu: return h > 0.0 ? 1.0 : 0.0;
    default: return 1.0;
  }
}
inline double curvature(gesda::Activation kind, double h) {  // s''
  switch (kind) {
    case gesda::kSigmoid: return h * (1.0 - h) * (1.0 - 2.0 * h);
    case gesda::kTanh: return -2.0 * h * (1.0 - h * h);
    default: return 0.0;
  }
}
inline double log_one_plus_exp(double a) { return std::max(a, 0.0) + std::log1p(std::exp(-std::fabs(a))); }
// p, s0 and s1 after a step of size `rate` along the gradient g; adam's rate is the corrected one.
inline void optimize(const gesda::UpdateRule& rule, double& p, double g, double& s0, double& s1) {
  if (rule.kind == gesda::kSgd) {
    p -= rule.rate * g;
  } else if (rule.kind == gesda::kMomentum) {
    s0 = rule.momentum * s0 - rule.rate * g;
    p += rule.nesterov != 0.0f ? rule.momentum * s0 - rule.rate * g : s0;
  } else {
    s0 = rule.beta1 * s0 + (1.0 - rule.beta1) * g;
    s1 = rule.beta2 * s1 + (1.0 - rule.beta2) * g * g;
    p -= rule.rate * s0 / (std::sqrt(s1 * rule.inverse_variance) + rule.epsilon);
  }
}

constexpr gesda::Activation kActivations[] = {gesda::kSigmoid, gesda::kTanh, gesda::kRelu, gesda::kLinear};
constexpr gesda::Optimizer kOptimizers[] = {gesda::kSgd, gesda::kMomentum, gesda::kAdam};

}  // namespace gesda_test
