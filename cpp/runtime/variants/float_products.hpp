// Products with weights of 32 or 16 bits. Of a single row, every weight is read once: what counts is that loads never
// wait, so several panels and several independent sums go side by side. Of more rows, a weight serves all of them.
#pragma once

#include "cpp/runtime/variants/weights.hpp"

namespace gesda {
namespace GESDA_VARIANT {

constexpr int kFloatRows = 4;     // rows at a time, at most
constexpr int kAheadBytes = 512;  // a weight is fetched so long before it is needed

// out[Rows][Panels * kPanel] = in[Rows][inputs] * the panels from `panel` on; without bias.
template <class Weights, int Rows, int Panels, int Chains>
GESDA_FN void multiply_panels(const DenseTask& task, const float* in, int panel, float* out) {
  constexpr int kSums = Panels * kVectors;
  typedef typename Weights::Stored Stored;
  const std::size_t panel_size = static_cast<std::size_t>(task.inputs) * kPanel;
  const Stored* w = static_cast<const Stored*>(task.weights) + static_cast<std::size_t>(panel) * panel_size;
  FloatVector sums[Chains][Rows][kSums] = {};
  const auto add = [&](int k, int chain) {
    FloatVector weights[kSums];
#pragma GCC unroll 8
    for (int s = 0; s < kSums; ++s) {
      const Stored* place = w + static_cast<std::size_t>(s / kVectors) * panel_size +
                            static_cast<std::size_t>(k) * kPanel + s % kVectors * kLanes;
      if (s % kVectors == 0) __builtin_prefetch(reinterpret_cast<const char*>(place) + kAheadBytes);
      weights[s] = Weights::load_weights(place).v;
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const F x(in[static_cast<std::size_t>(r) * task.in_stride + static_cast<std::size_t>(k)]);
#pragma GCC unroll 8
      for (int s = 0; s < kSums; ++s) sums[chain][r][s] = mad(x, F(weights[s]), F(sums[chain][r][s])).v;
    }
  };
  int k = 0;
  for (; k + Chains <= task.inputs; k += Chains)
#pragma GCC unroll 8
    for (int chain = 0; chain < Chains; ++chain) add(k + chain, chain);
  for (; k < task.inputs; ++k) add(k, 0);
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
    for (int s = 0; s < kSums; ++s) {
      F total(sums[0][r][s]);
#pragma GCC unroll 8
      for (int chain = 1; chain < Chains; ++chain) total = total + F(sums[chain][r][s]);
      store(out + static_cast<std::size_t>(r) * task.out_stride + panel * kPanel + s * kLanes, total);
    }
}

// out = activation(out + bias), for all rows: whole panels of `columns`.
inline void finish_rows(const DenseTask& task, int columns) {
  with_activation(task.activation, [&](auto activation) {
    for (int row = 0; row < task.rows; ++row) {
      float* out = task.out + static_cast<std::size_t>(row) * task.out_stride;
      for (int c = 0; c < columns; c += kLanes)
        store(out + c, activate(decltype(activation)::value, load(out + c) + load(task.bias + c)));
    }
  });
}

template <class Weights>
void dense_floats(const DenseTask& task) {
  constexpr int kTogether = kVectors == 2 ? 2 : 1;  // panels of a single row: eight sums with two chains
  constexpr int kChains = 8 / (kTogether * kVectors);
  const int panels = panels_for(task.outputs);
  for (int row = 0; row < task.rows; row += kFloatRows) {
    const int rows = task.rows - row < kFloatRows ? task.rows - row : kFloatRows;
    const float* in = task.in + static_cast<std::size_t>(row) * task.in_stride;
    float* out = task.out + static_cast<std::size_t>(row) * task.out_stride;
    if (rows == 1) {
      int panel = 0;
      for (; panel + kTogether <= panels; panel += kTogether)
        multiply_panels<Weights, 1, kTogether, kChains>(task, in, panel, out);
      if (panel < panels) multiply_panels<Weights, 1, 1, 8 / kVectors>(task, in, panel, out);
    } else {
      for (int panel = 0; panel < panels; ++panel)
        with_count<kFloatRows>(
            rows, [&](auto count) { multiply_panels<Weights, decltype(count)::value, 1, 1>(task, in, panel, out); });
    }
  }
  finish_rows(task, task.outputs);
}

// out[Rows][Columns] = in[Rows][outputs] * rows [first, first + Columns) of W, transposed; without bias.
template <class Weights, int Rows, int Columns>
GESDA_FN void multiply_transposed(const DenseTask& task, const float* in, int first, float* out) {
  typedef typename Weights::Stored Stored;
  const std::size_t panel_size = static_cast<std::size_t>(task.inputs) * kPanel;
  const Stored* w = static_cast<const Stored*>(task.weights) + static_cast<std::size_t>(first) * kPanel;
  FloatVector sums[Rows][Columns] = {};
  const int panels = panels_for(task.outputs);
  for (int panel = 0; panel < panels; ++panel, w += panel_size) {
    const float* x = in + panel * kPanel;
#pragma GCC unroll 8
    for (int c = 0; c < Columns; ++c) {
      __builtin_prefetch(w + (Columns + c) * kPanel);  // what comes next in this panel, after a jump through all
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const F weights = Weights::load_weights(w + c * kPanel + v * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
          const F values = load(x + static_cast<std::size_t>(r) * task.in_stride + v * kLanes);
          sums[r][c] = mad(values, weights, F(sums[r][c])).v;
        }
      }
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int c = 0; c < Columns; ++c) {
      float total = 0.0f;
      for (int i = 0; i < kLanes; ++i) total += sums[r][c][i];
      out[static_cast<std::size_t>(r) * task.out_stride + static_cast<std::size_t>(first + c)] = total;
    }
}

template <class Weights, int Rows, int Columns>
GESDA_FN void multiply_all_transposed(const DenseTask& task, const float* in, float* out) {
  int first = 0;
  for (; first + Columns <= task.inputs; first += Columns)
    multiply_transposed<Weights, Rows, Columns>(task, in, first, out);
  for (; first < task.inputs; ++first) multiply_transposed<Weights, Rows, 1>(task, in, first, out);
}

template <class Weights>
void transposed_floats(const DenseTask& task) {
  int row = 0;
  for (; row + kFloatRows <= task.rows; row += kFloatRows)
    multiply_all_transposed<Weights, kFloatRows, 2>(task, task.in + static_cast<std::size_t>(row) * task.in_stride,
                                                    task.out + static_cast<std::size_t>(row) * task.out_stride);
  for (; row < task.rows; ++row)
    multiply_all_transposed<Weights, 1, 8>(task, task.in + static_cast<std::size_t>(row) * task.in_stride,
                                           task.out + static_cast<std::size_t>(row) * task.out_stride);
  finish_rows(task, task.inputs);
}

}  // namespace GESDA_VARIANT
}  // namespace gesda
