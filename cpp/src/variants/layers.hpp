// The parts of a training step: products with what follows them while the sums are still in the cache.
#pragma once

#include "cpp/src/variants/noise.hpp"
#include "cpp/src/variants/pairs.hpp"

namespace gesda {
namespace GESDA_VARIANT {

// Lanes of vector v of a panel whose bits are set in row `row`.
GESDA_FN Mask lanes_set(const BitMatrix& m, int row, int column) {
  return lanes_of_bits(m.words[static_cast<std::size_t>(column / 32) * m.rows + row] >> (column % 32));
}

// For every panel of the range: the sums of its rows' product into `work`, then finish(panel, vectors).
template <class Task, class Finish>
GESDA_FN void for_each_panel(const Task& task, Range range, Workspace& work, const Finish& finish) {
  const int rows = range.row_end - range.row_begin;
  for (int panel = range.panel_begin; panel < range.panel_end; ++panel) {
    if (task.pairs.data != nullptr)
      multiply_row_pairs(task.pairs, range.row_begin, rows, task.inputs, task.weights, panel, task.outputs, work);
    else
      multiply_rows(task.in, range.row_begin, rows, task.inputs, task.weights, panel, task.outputs, work);
    finish(panel, vectors_of(task.outputs - panel * kPanel));
  }
}

// h = s(x W + b), where dropout has struck 0, else scaled.
inline void encode(const EncodeTask& task, Range range, float* workspace) {
  Workspace& work = *reinterpret_cast<Workspace*>(workspace);
  const int rows = range.row_end - range.row_begin;
  for_each_panel(task, range, work, [&](int panel, int vectors) {
    with_activation(task.activation, [&](auto activation) {
      for (int v = 0; v < vectors; ++v) {
        const int column = panel * kPanel + v * kLanes;
        const F bias = load(task.bias + column), scale(task.dropout_scale);
        float* out = at(task.out, range.row_begin, column);
        float* copy = task.copy.data ? at(task.copy, range.row_begin, column) : nullptr;
        for (int i = 0; i < rows; ++i) {
          F h = activate(decltype(activation)::value, load(work.sums + i * kPanel + v * kLanes) + bias);
          if (task.dropped.words != nullptr)
            h = pick(lanes_set(task.dropped, range.row_begin + i, column), F(0.0f), h * scale);
          store(out + i * kPanel, h);
          if (copy != nullptr) store(copy + i * kPanel, h);
        }
      }
    });
  });
}

// d = dLoss/da for a = h W' + c, over x; returns the loss of the rows.
template <Loss kind, bool emphasis>
double reconstruct(const DecodeTask& task, const Workspace& work, Range range, int panel, int vectors) {
  constexpr int kFactors = 64;  // each at most 2: their product stays below 2^64
  const F on_corrupted(task.emphasis_corrupted), on_clean(task.emphasis_clean);
  double loss = 0.0;
  for (int v = 0; v < vectors; ++v) {
    const int column = panel * kPanel + v * kLanes;
    const F bias = load(task.bias + column);
    const Mask real = first_lanes(task.outputs - column);
    for (int begin = range.row_begin; begin < range.row_end; begin += kFactors) {
      const int rows = smaller(kFactors, range.row_end - begin);
      const float* sums = work.sums + (begin - range.row_begin) * kPanel + v * kLanes;
      float* place = at(task.clean, begin, column);
      F total(0.0f), factors(1.0f);
      for (int i = 0; i < rows; ++i) {
        const F a = load(sums + i * kPanel) + bias;
        const F x = load(place + i * kPanel);
        F value, factor(1.0f);
        F d = kind == kCrossEntropy ? cross_entropy(a, x, value, factor) : squared_error(task.output, a, x, value);
        if (emphasis) {
          const F weight = pick(lanes_set(task.corrupted, begin + i, column), on_corrupted, on_clean);
          d = d * weight;
          value = weight * (kind == kCrossEntropy ? value + logarithm(factor) : value);
        } else {
          factors = factors * factor;
        }
        total = total + value;
        store(place + i * kPanel, pick(real, d, F(0.0f)));
      }
      loss += sum(pick(real, total + logarithm(factors), F(0.0f)));
    }
  }
  return loss;
}

inline void decode(const DecodeTask& task, Range range, float* workspace) {
  Workspace& work = *reinterpret_cast<Workspace*>(workspace);
  const int block = range.row_begin / task.rows_per_block;
  const bool entropy = task.loss == kCrossEntropy, emphasis = task.corrupted.words != nullptr;
  const auto finish = entropy ? (emphasis ? reconstruct<kCrossEntropy, true> : reconstruct<kCrossEntropy, false>)
                              : (emphasis ? reconstruct<kSquaredError, true> : reconstruct<kSquaredError, false>);
  for_each_panel(task, range, work, [&](int panel, int vectors) {
    task.loss_slots[block * panels_of(task.outputs) + panel] = finish(task, work, range, panel, vectors);
  });
}

// e = (d W' + penalties) * s'(h)
inline void backprop(const BackpropTask& task, Range range, float* workspace) {
  Workspace& work = *reinterpret_cast<Workspace*>(workspace);
  const int rows = range.row_end - range.row_begin;
  const F keep(1.0f / task.dropout_scale), scale(task.dropout_scale);
  for_each_panel(task, range, work, [&](int panel, int vectors) {
    with_activation(task.activation, [&](auto activation) {
      for (int v = 0; v < vectors; ++v) {
        const int column = panel * kPanel + v * kLanes;
        const Mask real = first_lanes(task.outputs - column);
        const F slope = task.slope ? load(task.slope + column) : F(0.0f);
        const F contraction = task.contraction ? load(task.contraction + column) : F(0.0f);
        const float* values = at(task.values, range.row_begin, column);
        float* out = at(task.out, range.row_begin, column);
        for (int i = 0; i < rows; ++i) {
          F h = load(values + i * kPanel);
          F e = load(work.sums + i * kPanel + v * kLanes) + slope;
          if (task.dropped.words != nullptr) {
            h = h * keep;
            e = pick(lanes_set(task.dropped, range.row_begin + i, column), F(0.0f), e * scale);
          }
          if (task.contraction != nullptr) e = mad(contraction, second_derivative(decltype(activation)::value, h), e);
          store(out + i * kPanel, pick(real, e * derivative(decltype(activation)::value, h), F(0.0f)));
        }
      }
    });
  });
}

inline void statistics(const StatisticsTask& task, Range range) {
  for (int panel = range.panel_begin; panel < range.panel_end; ++panel) {
    for (int v = 0; v < kVectors; ++v) {
      const int column = panel * kPanel + v * kLanes;
      F mean(0.0f), slopes(0.0f), squares(0.0f);
      for (int row = 0; row < task.rows; ++row) {
        const F h = load(at(task.values, row, column));
        const F s = derivative(task.activation, h);
        mean = mean + h;
        slopes = mad(s, s, slopes);
      }
      if (task.contractive != 0.0f)
        for (int i = 0; i < task.weight_rows; ++i) {
          const F w = load(at(task.weights, i, column));
          squares = mad(w, w, squares);
        }
      const F inverse(1.0f / static_cast<float>(task.rows));
      store(task.slope + column, F(task.sparsity) * sparsity_slope(mean * inverse, F(task.sparsity_target)));
      store(task.contraction + column, F(2.0f * task.contractive) * squares);
      store(task.decay + column, F(2.0f * task.contractive) * slopes * inverse);
    }
  }
}

// The optimiser on `rows` rows of a panel, whose gradients stand in `sums`. The arrays start at the tile's first row.
template <Optimizer kind>
GESDA_FN void update_tile(const UpdateTask& task, int panel, int vectors, int rows, const float* sums, float* w,
                          float* state0, float* state1) {
  UpdateRule rule = *task.rule;
  rule.kind = kind;
  for (int v = 0; v < vectors * kLanes; v += kLanes) {
    const F decay = F(task.l2) + (task.decay ? load(task.decay + panel * kPanel + v) : F(0.0f));
    const F inverse_rows(task.inverse_rows);
    for (int i = v; i < rows * kPanel + v; i += kPanel) {
      const F old = load(w + i);
      const F g = mad(decay, old, load(sums + i) * inverse_rows);
      F s0(0.0f), s1(0.0f);
      if (kind != kSgd) s0 = load(state0 + i);
      if (kind == kAdam) s1 = load(state1 + i);
      store(w + i, updated(rule, old, g, s0, s1));
      if (kind != kSgd) store(state0 + i, s0);
      if (kind == kAdam) store(state1 + i, s1);
    }
  }
}

GESDA_FN void prefetch_tile(const float* tile, int rows) {
  for (int i = 0; tile != nullptr && i < rows * kPanel; i += 16) __builtin_prefetch(tile + i, 1);
}

// W -= optimiser(gradient), a tile of kPanel rows of W at a time.
inline void update(const UpdateTask& task, Range range, float* workspace) {
  Workspace& work = *reinterpret_cast<Workspace*>(workspace);
  for (int panel = range.panel_begin; panel < range.panel_end; ++panel) {
    const int vectors = vectors_of(task.outputs - panel * kPanel);
    for (int i0 = range.row_begin; i0 < range.row_end; i0 += kPanel) {
      const int rows = smaller(kPanel, range.row_end - i0);
      float* w = at(task.weights, i0, panel * kPanel);
      float* s0 = task.rule->kind != kSgd ? at(task.state0, i0, panel * kPanel) : nullptr;
      float* s1 = task.rule->kind == kAdam ? at(task.state1, i0, panel * kPanel) : nullptr;
      prefetch_tile(w, rows);  // to arrive while the gradient is summed
      prefetch_tile(s0, rows);
      prefetch_tile(s1, rows);
      if (task.pairs.a1.data != nullptr)
        multiply_gradient_pairs(task, i0 / kPanel, rows, panel, work.sums);
      else
        multiply_gradient(task, i0 / kPanel, rows, panel, work.sums);
      switch (task.rule->kind) {
        case kSgd: update_tile<kSgd>(task, panel, vectors, rows, work.sums, w, s0, s1); break;
        case kMomentum: update_tile<kMomentum>(task, panel, vectors, rows, work.sums, w, s0, s1); break;
        case kAdam: update_tile<kAdam>(task, panel, vectors, rows, work.sums, w, s0, s1); break;
      }
    }
  }
}

inline void update_bias(const BiasTask& task, Range range) {
  const UpdateRule rule = *task.rule;
  for (int panel = range.panel_begin; panel < range.panel_end; ++panel) {
    for (int v = 0; v < vectors_of(task.columns - panel * kPanel); ++v) {
      const int column = panel * kPanel + v * kLanes;
      F total(0.0f);
      for (int row = 0; row < task.rows; ++row) total = total + load(at(task.deltas, row, column));
      F s0(0.0f), s1(0.0f);
      if (rule.kind != kSgd) s0 = load(task.state0 + column);
      if (rule.kind == kAdam) s1 = load(task.state1 + column);
      const F b = updated(rule, load(task.bias + column), total * F(task.inverse_rows), s0, s1);
      store(task.bias + column, pick(first_lanes(task.columns - column), b, F(0.0f)));
      if (rule.kind != kSgd) store(task.state0 + column, s0);
      if (rule.kind == kAdam) store(task.state1 + column, s1);
    }
  }
}

// Softmax of one row in place; returns -ln p[target].
inline float softmax_row(const HeadTask& task, int row, int target) {
  float top = *at(task.logits, row, 0), total = 0.0f;
  for (int c = 1; c < task.columns; ++c) {
    const float a = *at(task.logits, row, c);
    top = a > top ? a : top;
  }
  const float at_target = target >= 0 ? *at(task.logits, row, target) - top : 0.0f;
  for (int c = 0; c < task.columns; ++c) {
    float* place = at(task.logits, row, c);
    *place = exponential(*place - top);
    total += *place;
  }
  for (int c = 0; c < task.columns; ++c) *at(task.logits, row, c) /= total;
  return logarithm(total) - at_target;
}

inline void head(const HeadTask& task, Range range, float*) {
  const bool training = task.loss_slots != nullptr;
  for (int row = range.row_begin; row < range.row_end; ++row) {
    const std::size_t sample = training ? task.ids[row] : 0;
    const float weight = training && task.weights != nullptr ? task.weights[sample] : 1.0f;
    float loss = 0.0f;
    if (task.kind == kSoftmax) {
      const int target = training ? task.classes[sample] : -1;
      loss = softmax_row(task, row, target);
      if (!training) continue;
      *at(task.logits, row, target) -= 1.0f;
      for (int c = 0; c < task.columns; ++c) *at(task.logits, row, c) *= weight;
    } else {
      if (!training) return;
      const float* targets = task.targets + sample * static_cast<std::size_t>(task.columns);
      for (int c = 0; c < task.columns; ++c) {
        float* place = at(task.logits, row, c);
        const float residual = *place - targets[c];
        loss += 0.5f * residual * residual;
        *place = weight * residual;
      }
    }
    task.loss_slots[row] = static_cast<double>(weight) * static_cast<double>(loss);
  }
}

}  // namespace GESDA_VARIANT
}  // namespace gesda
