// The parts of a training step: products with what follows them while the sums are still in the cache.
#pragma once

#include "cpp/src/variants/noise.hpp"

namespace gesda {
namespace GESDA_VARIANT {

// Lanes of vector v of a panel whose bits are set in row `row`.
GESDA_FN Mask lanes_set(const BitMatrix& m, int row, int column) {
  return lanes_of_bits(m.words[static_cast<std::size_t>(column / 32) * m.rows + row] >> (column % 32));
}

// For every panel of the range: the sums of its rows into `work`, then finish(panel, vectors).
template <class Finish>
GESDA_FN void for_each_panel(Panels in, int inputs, const Weights& weights, int outputs, Range range, Workspace& work,
                             const Finish& finish) {
  for (int panel = range.panel_begin; panel < range.panel_end; ++panel) {
    multiply_rows(in, range.row_begin, range.row_end - range.row_begin, inputs, weights, panel, outputs, work);
    finish(panel, vectors_of(outputs - panel * kPanel));
  }
}

// h = s(x W + b), where dropout has struck 0, else scaled.
inline void encode(const EncodeTask& task, Range range, float* workspace) {
  Workspace& work = *reinterpret_cast<Workspace*>(workspace);
  for_each_panel(task.in, task.inputs, task.weights, task.outputs, range, work, [&](int panel, int vectors) {
    for (int v = 0; v < vectors; ++v) {
      const int column = panel * kPanel + v * kLanes;
      const F bias = load(task.bias + column);
      for (int row = range.row_begin; row < range.row_end; ++row) {
        F h = activate(task.activation, load(work.sums + (row - range.row_begin) * kPanel + v * kLanes) + bias);
        if (task.dropped.words != nullptr)
          h = pick(lanes_set(task.dropped, row, column), F(0.0f), h * F(task.dropout_scale));
        store(at(task.out, row, column), h);
        if (task.copy.data != nullptr) store(at(task.copy, row, column), h);
      }
    }
  });
}

// d = dLoss/da for a = h W' + c, over x; returns the loss of the rows.
inline double reconstruct(const DecodeTask& task, const Workspace& work, Range range, int panel, int vectors) {
  double loss = 0.0;
  for (int v = 0; v < vectors; ++v) {
    const int column = panel * kPanel + v * kLanes;
    const F bias = load(task.bias + column);
    const Mask real = first_lanes(task.outputs - column);
    constexpr int kFactors = 64;  // each at most 2: their product stays below 2^64
    for (int begin = range.row_begin; begin < range.row_end; begin += kFactors) {
      F total(0.0f), factors(1.0f);
      for (int row = begin; row < smaller(begin + kFactors, range.row_end); ++row) {
        const F a = load(work.sums + (row - range.row_begin) * kPanel + v * kLanes) + bias;
        float* place = at(task.clean, row, column);
        const F x = load(place);
        F value, factor(1.0f);
        F d = task.loss == kCrossEntropy ? cross_entropy(a, x, value, factor)
                                         : squared_error(task.output, a, x, value);
        if (task.corrupted.words != nullptr) {
          const F weight = pick(lanes_set(task.corrupted, row, column), F(task.emphasis_corrupted),
                                F(task.emphasis_clean));
          d = d * weight;
          value = weight * (task.loss == kCrossEntropy ? value + logarithm(factor) : value);
          factor = F(1.0f);
        }
        total = total + value;
        factors = factors * factor;
        store(place, pick(real, d, F(0.0f)));
      }
      loss += sum(pick(real, total + logarithm(factors), F(0.0f)));
    }
  }
  return loss;
}

inline void decode(const DecodeTask& task, Range range, float* workspace) {
  Workspace& work = *reinterpret_cast<Workspace*>(workspace);
  const int block = range.row_begin / task.rows_per_block;
  for_each_panel(task.in, task.inputs, task.weights, task.outputs, range, work, [&](int panel, int vectors) {
    task.loss_slots[block * panels_of(task.outputs) + panel] = reconstruct(task, work, range, panel, vectors);
  });
}

// e = (d W' + penalties) * s'(h)
inline void backprop(const BackpropTask& task, Range range, float* workspace) {
  Workspace& work = *reinterpret_cast<Workspace*>(workspace);
  const float keep = 1.0f / task.dropout_scale;
  for_each_panel(task.in, task.inputs, task.weights, task.outputs, range, work, [&](int panel, int vectors) {
    for (int v = 0; v < vectors; ++v) {
      const int column = panel * kPanel + v * kLanes;
      const Mask real = first_lanes(task.outputs - column);
      const F slope = task.slope ? load(task.slope + column) : F(0.0f);
      for (int row = range.row_begin; row < range.row_end; ++row) {
        F h = load(at(task.values, row, column));
        F e = load(work.sums + (row - range.row_begin) * kPanel + v * kLanes) + slope;
        if (task.dropped.words != nullptr) {
          h = h * F(keep);
          e = pick(lanes_set(task.dropped, row, column), F(0.0f), e * F(task.dropout_scale));
        }
        if (task.contraction != nullptr)
          e = mad(load(task.contraction + column), second_derivative(task.activation, h), e);
        store(at(task.out, row, column), pick(real, e * derivative(task.activation, h), F(0.0f)));
      }
    }
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

// W -= optimiser(gradient), a tile of kPanel rows of W at a time.
inline void update(const UpdateTask& task, Range range, float* workspace) {
  Workspace& work = *reinterpret_cast<Workspace*>(workspace);
  const UpdateRule rule = *task.rule;
  for (int panel = range.panel_begin; panel < range.panel_end; ++panel) {
    const int vectors = vectors_of(task.outputs - panel * kPanel);
    for (int i0 = range.row_begin; i0 < range.row_end; i0 += kPanel) {
      const int rows = smaller(kPanel, range.row_end - i0);
      multiply_gradient(task, i0 / kPanel, rows, panel, work.sums);
      for (int i = 0; i < rows; ++i) {
        for (int v = 0; v < vectors; ++v) {
          const int column = panel * kPanel + v * kLanes;
          float* place = at(task.weights, i0 + i, column);
          const F w = load(place);
          F g = load(work.sums + i * kPanel + v * kLanes) * F(task.inverse_rows);
          if (task.decay != nullptr)
            g = mad(F(task.l2) + load(task.decay + column), w, g);
          else if (task.l2 != 0.0f)
            g = mad(F(task.l2), w, g);
          F s0(0.0f), s1(0.0f);
          if (rule.kind != kSgd) s0 = load(at(task.state0, i0 + i, column));
          if (rule.kind == kAdam) s1 = load(at(task.state1, i0 + i, column));
          store(place, updated(rule, w, g, s0, s1));
          if (rule.kind != kSgd) store(at(task.state0, i0 + i, column), s0);
          if (rule.kind == kAdam) store(at(task.state1, i0 + i, column), s1);
        }
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
