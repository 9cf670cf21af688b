// The definitions of ARCHITECTURE.md in double precision and plain nested loops: what the core has to compute.
#pragma once

#include <cmath>
#include <map>

#include "cpp/tests/panels.hpp"
#include "gesda/network.hpp"

namespace gesda_test {

// The random decisions, each by itself.
struct Philox {
  u32 key0, key1, epoch;
  u32 word(u32 sample, u32 block, u32 stream, int index) const {
    u32 x[4] = {sample, block, epoch, stream};
    gesda::philox(x, key0, key1);
    return x[index];
  }
  u32 draw_16(u32 sample, u32 stream, int j) const {
    const int q = j % 64 / 8;
    const u32 both = word(sample, static_cast<u32>(j / 64 * 8 + j % 8), stream, q / 2);
    return q % 2 == 0 ? both & 0xFFFFu : both >> 16;
  }
  double normal(u32 sample, u32 stream, int j) const {
    const u32 block = static_cast<u32>(j / 32 * 8 + j % 8);
    const int w = j % 32 / 16 * 2;
    const double u1 = ((word(sample, block, stream, w) >> 8) + 1) * 0x1p-24;
    const double angle = 2.0 * M_PI * (word(sample, block, stream, w + 1) >> 8) * 0x1p-24;
    return std::sqrt(-2.0 * std::log(u1)) * (j % 16 < 8 ? std::cos(angle) : std::sin(angle));
  }
};

struct Table {
  int rows = 0, columns = 0;
  std::vector<double> values;
  Table() = default;
  Table(int n_rows, int n_columns) : rows(n_rows), columns(n_columns), values(size(n_rows) * size(n_columns), 0.0) {}
  double& operator()(int r, int c) { return values[size(r) * size(columns) + size(c)]; }
  double operator()(int r, int c) const { return values[size(r) * size(columns) + size(c)]; }
};
inline Table product(const Table& a, const Table& b) {
  Table out(a.rows, b.columns);
  for (int r = 0; r < a.rows; ++r)
    for (int k = 0; k < a.columns; ++k)
      for (int c = 0; c < b.columns; ++c) out(r, c) += a(r, k) * b(k, c);
  return out;
}
inline Table transposed(const Table& a) {
  Table out(a.columns, a.rows);
  for (int r = 0; r < a.rows; ++r)
    for (int c = 0; c < a.columns; ++c) out(c, r) = a(r, c);
  return out;
}

class Reference {
 public:
  gesda::NetworkSpec spec;
  std::map<std::string, Table> arrays;  // by the names of Network::set_array
  std::vector<std::int64_t> pretrain_steps;
  std::int64_t finetune_steps = 0;
  // A relu came so close to its corner that single precision may see the other side: compare nothing then.
  bool is_doubtful = false;
  static constexpr double kCorner = 4e-5;

  explicit Reference(gesda::NetworkSpec network) : spec(std::move(network)), pretrain_steps(spec.layers.size(), 0) {
    for (std::size_t k = 0; k < spec.layers.size(); ++k) {
      const gesda::LayerSpec& l = spec.layers[k];
      add(name(k, "W"), l.n_visible, l.n_hidden, true, spec.has_head);
      add(name(k, "b"), 1, l.n_hidden, true, spec.has_head);
      add(name(k, "c"), 1, l.n_visible, true, false);
      if (!l.tied) add(name(k, "V"), l.n_hidden, l.n_visible, true, false);
    }
    if (!spec.has_head) return;
    add("head.W", spec.layers.back().n_hidden, spec.head.n_outputs, false, true);
    add("head.b", 1, spec.head.n_outputs, false, true);
  }
  static std::string name(std::size_t layer, const char* array) {
    return "layers." + std::to_string(layer) + "." + array;
  }

  Table encode(const Table& x, std::size_t k) {
    return affine(x, arrays[name(k, "W")], arrays[name(k, "b")], spec.layers[k].activation);
  }
  Table decode(const Table& h, std::size_t k) {
    return affine(h, decoder(k), arrays[name(k, "c")], spec.layers[k].output);
  }
  Table predict(Table x) {
    for (std::size_t k = 0; k < spec.layers.size(); ++k) x = encode(x, k);
    Table out = affine(x, arrays["head.W"], arrays["head.b"], gesda::kLinear);
    if (spec.head.kind == gesda::kSoftmax) softmax(out);
    return out;
  }

  // One step of pretraining of the layers that train; the loss of each, summed over rows.
  std::vector<double> pretrain_step(const Table& data, const gesda::PretrainPlan& plan, const u32* ids, int rows) {
    std::vector<double> losses(spec.layers.size(), 0.0);
    Table x = gather(data, ids, rows);
    std::vector<Table> inputs, noisy_inputs;
    for (std::size_t k = size(plan.first_layer); k < spec.layers.size(); ++k) {  // all with the weights of before
      const Table noisy = plan.training[k] ? corrupt(x, k, plan.epoch, ids) : x;
      inputs.push_back(x);
      noisy_inputs.push_back(noisy);
      x = encode(plan.noisy_handoff && plan.training[k] ? noisy : x, k);
    }
    for (std::size_t k = size(plan.first_layer); k < spec.layers.size(); ++k) {
      const std::size_t i = k - size(plan.first_layer);
      if (plan.training[k])
        losses[k] = train_layer(k, inputs[i], noisy_inputs[i], plan.learning_rates[k], plan.epoch, ids);
    }
    return losses;
  }

  double finetune_step(const Table& data, const gesda::Targets& targets, const gesda::FinetunePlan& plan,
                       const u32* ids, int rows) {
    const std::size_t n = spec.layers.size();
    std::vector<Table> values = {gather(data, ids, rows)}, kept;
    kept.push_back(drop(values[0], 0, plan.epoch, ids));
    for (std::size_t k = 0; k < n; ++k) {
      values.push_back(encode(kept[k], k));
      kept.push_back(drop(values[k + 1], k + 1, plan.epoch, ids));
    }
    Table delta = affine(kept[n], arrays["head.W"], arrays["head.b"], gesda::kLinear);
    const double loss = head_loss(delta, targets, ids);
    ++finetune_steps;
    const Table head_w = arrays["head.W"];
    std::vector<Table> weights(n);
    for (std::size_t k = 0; k < n; ++k) weights[k] = arrays[name(k, "W")];
    finetune("head.", kept[n], delta, plan.learning_rate);
    for (std::size_t k = n; k-- > 0;) {
      const Table below = product(delta, transposed(k + 1 == n ? head_w : weights[k + 1]));
      delta = drop(below, k + 1, plan.epoch, ids);  // the same mask
      for (int r = 0; r < rows; ++r)
        for (int c = 0; c < delta.columns; ++c) delta(r, c) *= slope(spec.layers[k].activation, values[k + 1](r, c));
      finetune(name(k, ""), kept[k], delta, plan.learning_rate);
    }
    return loss;
  }

 private:
  void add(const std::string& key, int rows, int columns, bool pretrains, bool finetunes) {
    arrays[key] = Table(rows, columns);
    if (pretrains) add_slots("pretrain." + key, rows, columns, spec.optimizer.kind);
    if (finetunes) add_slots("finetune." + key, rows, columns, spec.head.optimizer.kind);
  }
  void add_slots(const std::string& key, int rows, int columns, gesda::Optimizer kind) {
    if (kind == gesda::kMomentum) arrays[key + ".velocity"] = Table(rows, columns);
    if (kind == gesda::kAdam) arrays[key + ".mean"] = arrays[key + ".variance"] = Table(rows, columns);
  }
  Table decoder(std::size_t k) { return spec.layers[k].tied ? transposed(arrays[name(k, "W")]) : arrays[name(k, "V")]; }
  Table affine(const Table& x, const Table& w, const Table& bias, gesda::Activation kind) {
    Table out = product(x, w);
    for (int r = 0; r < out.rows; ++r) {
      for (int c = 0; c < out.columns; ++c) {
        const double a = out(r, c) + bias(0, c);
        if (kind == gesda::kRelu && a != 0.0 && std::fabs(a) < kCorner) is_doubtful = true;
        out(r, c) = activation(kind, a);
      }
    }
    return out;
  }
  static Table gather(const Table& data, const u32* ids, int rows) {
    Table x(rows, data.columns);
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < data.columns; ++c) x(r, c) = data(static_cast<int>(ids[r]), c);
    return x;
  }
  Philox random(std::uint32_t epoch) const {
    return {static_cast<u32>(spec.seed), static_cast<u32>(spec.seed >> 32), epoch};
  }
  bool is_corrupted(std::size_t k, std::uint32_t epoch, u32 id, int c) const {
    const gesda::LayerSpec& l = spec.layers[k];
    return random(epoch).draw_16(id, static_cast<u32>(k), c) < gesda::noise_threshold(l.noise, l.noise_level);
  }
  Table corrupt(const Table& x, std::size_t k, std::uint32_t epoch, const u32* ids) const {
    const gesda::LayerSpec& l = spec.layers[k];
    const Philox draws = random(epoch);
    Table out = x;
    for (int r = 0; r < x.rows; ++r) {
      for (int c = 0; c < x.columns; ++c) {
        if (l.noise == gesda::kNone) continue;
        if (l.noise == gesda::kGaussian) out(r, c) += l.noise_level * draws.normal(ids[r], static_cast<u32>(k), c);
        if (l.noise == gesda::kGaussian || !is_corrupted(k, epoch, ids[r], c)) continue;
        const u32 u = draws.draw_16(ids[r], static_cast<u32>(k), c);
        const u32 v = draws.draw_16(ids[r], 1u << 16 | static_cast<u32>(k), c);
        const int from = (r + 1 + static_cast<int>(v * static_cast<u32>(x.rows - 1) >> 16)) % x.rows;
        out(r, c) = l.noise == gesda::kMasking ? 0.0
                    : l.noise == gesda::kSwap  ? x(from, c)
                    : u % 2 == 1               ? l.noise_high
                                               : l.noise_low;
      }
    }
    return out;
  }
  Table drop(const Table& x, std::size_t position, std::uint32_t epoch, const u32* ids) const {
    const double rate = spec.head.dropout.empty() ? 0.0 : spec.head.dropout[position];
    Table out = x;
    for (int r = 0; r < x.rows && rate > 0.0; ++r)
      for (int c = 0; c < x.columns; ++c)
        out(r, c) *= random(epoch).draw_16(ids[r], 2u << 16 | static_cast<u32>(position), c) <
                             static_cast<u32>(std::floor(rate * 65536.0 + 0.5))
                         ? 0.0
                         : 1.0 / (1.0 - rate);
    return out;
  }

  double train_layer(std::size_t k, const Table& x, const Table& noisy, double rate, std::uint32_t epoch,
                     const u32* ids) {
    const gesda::LayerSpec& l = spec.layers[k];
    const int rows = x.rows;
    const Table h = encode(noisy, k), a = affine(h, decoder(k), arrays[name(k, "c")], gesda::kLinear);
    Table d(rows, x.columns);
    double loss = 0.0;
    for (int r = 0; r < rows; ++r) {
      for (int i = 0; i < x.columns; ++i) {
        const double weight = is_corrupted(k, epoch, ids[r], i) ? l.emphasis_corrupted : l.emphasis_clean;
        const double z = activation(l.output, a(r, i)), residual = z - x(r, i);
        if (l.output == gesda::kRelu && std::fabs(a(r, i)) < kCorner) is_doubtful = true;
        const bool entropy = l.loss == gesda::kCrossEntropy;
        loss += weight * (entropy ? log_one_plus_exp(a(r, i)) - a(r, i) * x(r, i) : 0.5 * residual * residual);
        d(r, i) = weight * residual * (entropy ? 1.0 : slope(l.output, z));
      }
    }
    Table& w = arrays[name(k, "W")];
    Table e = product(d, transposed(decoder(k))), dw(w.rows, w.columns);
    for (int j = 0; j < h.columns; ++j) {
      double mean = 0.0, squares = 0.0, q = 0.0;
      for (int r = 0; r < rows; ++r) {
        mean += h(r, j) / rows;
        q += std::pow(slope(l.activation, h(r, j)), 2) / rows;
      }
      for (int i = 0; i < w.rows; ++i) squares += w(i, j) * w(i, j);
      mean = std::min(1.0 - 1e-6, std::max(1e-6, mean));
      const double rho = l.sparsity_target;
      for (int r = 0; r < rows; ++r) {
        if (l.sparsity != 0.0f) e(r, j) += l.sparsity * ((1.0 - rho) / (1.0 - mean) - rho / mean);
        e(r, j) += 2.0 * l.contractive * curvature(l.activation, h(r, j)) * squares;
        e(r, j) *= slope(l.activation, h(r, j));
      }
      for (int i = 0; i < w.rows; ++i) dw(i, j) = (l.l2 + 2.0 * l.contractive * q) * w(i, j);
    }
    add_mean_product(dw, noisy, e);
    if (l.tied) add_mean_product(dw, d, h);
    ++pretrain_steps[k];
    if (!l.tied) {
      Table dv = arrays[name(k, "V")];
      for (double& value : dv.values) value *= l.l2;
      add_mean_product(dv, h, d);
      update("pretrain.", name(k, "V"), dv, spec.optimizer, rate, pretrain_steps[k]);
    }
    update("pretrain.", name(k, "W"), dw, spec.optimizer, rate, pretrain_steps[k]);
    update("pretrain.", name(k, "b"), column_means(e), spec.optimizer, rate, pretrain_steps[k]);
    update("pretrain.", name(k, "c"), column_means(d), spec.optimizer, rate, pretrain_steps[k]);
    return loss;
  }

  static void softmax(Table& logits) {
    for (int r = 0; r < logits.rows; ++r) {
      double total = 0.0;
      for (int c = 0; c < logits.columns; ++c) total += logits(r, c) = std::exp(logits(r, c));
      for (int c = 0; c < logits.columns; ++c) logits(r, c) /= total;
    }
  }
  // Logits become dLoss/dlogits.
  double head_loss(Table& logits, const gesda::Targets& targets, const u32* ids) const {
    double loss = 0.0;
    if (spec.head.kind == gesda::kSoftmax) softmax(logits);
    for (int r = 0; r < logits.rows; ++r) {
      const double weight = targets.weights ? targets.weights[ids[r]] : 1.0;
      for (int c = 0; c < logits.columns; ++c) {
        const bool softmax = spec.head.kind == gesda::kSoftmax, is_target = softmax && targets.classes[ids[r]] == c;
        const double t = softmax ? (is_target ? 1.0 : 0.0) : targets.values[ids[r] * size(logits.columns) + size(c)];
        if (is_target) loss -= weight * std::log(logits(r, c));
        if (!softmax) loss += weight * 0.5 * std::pow(logits(r, c) - t, 2);
        logits(r, c) = weight * (logits(r, c) - t);
      }
    }
    return loss;
  }

  static void add_mean_product(Table& gradient, const Table& a, const Table& b) {  // a.T b / rows
    const Table sum = product(transposed(a), b);
    for (std::size_t i = 0; i < sum.values.size(); ++i) gradient.values[i] += sum.values[i] / a.rows;
  }
  static Table column_means(const Table& deltas) {
    Table means(1, deltas.columns);
    for (int r = 0; r < deltas.rows; ++r)
      for (int c = 0; c < deltas.columns; ++c) means(0, c) += deltas(r, c) / deltas.rows;
    return means;
  }
  void finetune(const std::string& prefix, const Table& input, const Table& delta, double rate) {
    Table dw = arrays[prefix + "W"];
    for (double& value : dw.values) value *= spec.head.l2;
    add_mean_product(dw, input, delta);
    update("finetune.", prefix + "W", dw, spec.head.optimizer, rate, finetune_steps);
    update("finetune.", prefix + "b", column_means(delta), spec.head.optimizer, rate, finetune_steps);
  }
  void update(const std::string& phase, const std::string& key, const Table& gradient, const gesda::OptimizerSpec& how,
              double rate, std::int64_t step) {
    const double t = static_cast<double>(step);
    gesda::UpdateRule rule{
        how.kind, static_cast<float>(rate), how.momentum, how.nesterov ? 1.0f : 0.0f, how.beta1, how.beta2, how.epsilon,
        1.0f};
    if (how.kind == gesda::kAdam) {
      rule.rate = static_cast<float>(rate / (1.0 - std::pow(static_cast<double>(how.beta1), t)));
      rule.inverse_variance = static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(how.beta2), t)));
    }
    Table none(gradient.rows, gradient.columns);
    const std::string slots = phase + key;
    Table& s0 = how.kind == gesda::kSgd ? none : arrays[slots + (how.kind == gesda::kAdam ? ".mean" : ".velocity")];
    Table& s1 = how.kind == gesda::kAdam ? arrays[slots + ".variance"] : none;
    Table& p = arrays[key];
    for (std::size_t i = 0; i < p.values.size(); ++i)
      optimize(rule, p.values[i], gradient.values[i], s0.values[i], s1.values[i]);
  }
};

}  // namespace gesda_test
