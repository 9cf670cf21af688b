// Products, backward passes and updates of every SIMD variant, against plain loops in double precision. Shapes and the
// pieces that a job is cut into are random; around every buffer stand canaries (panels.hpp).
#include "cpp/tests/panels.hpp"
#include "harness.hpp"

namespace {

using namespace gesda;
using namespace gesda_test;

// Random sizes: mostly small and odd, now and then past a variant's blocks of rows (128) and depth (256).
int draw_rows(std::mt19937_64& rng) {
  return draw_int(rng, 0, 3) == 0 ? draw_int(rng, 129, 230) : draw_int(rng, 1, 40);
}
int draw_width(std::mt19937_64& rng) {
  return draw_int(rng, 0, 5) == 0 ? draw_int(rng, 190, 530) : draw_int(rng, 1, 70);
}

// A matrix (inputs, outputs) as an operand, stored as it is or transposed.
struct Operand {
  Rows values;
  bool transposed;
  Operand(std::mt19937_64& rng, int inputs, int outputs)
      : values(rng, inputs, outputs, -1.0f, 1.0f), transposed(draw_bool(rng)) {}
  Guarded store(int width) const {
    if (!transposed) return Guarded(values, width);
    Rows turned(values.columns, values.rows);
    for (int r = 0; r < values.rows; ++r)
      for (int c = 0; c < values.columns; ++c) turned(c, r) = values(r, c);
    return Guarded(turned, width);
  }
  Weights weights(const Guarded& stored) const {
    return {stored.panels(), transposed ? values.columns : values.rows, transposed};
  }
};

// A product in double precision, and what its float sum may be off by.
struct Product {
  Rows a;
  const Rows& b;
  struct Sum {
    double value, tolerance;
  };
  Sum at(int r, int c, double start = 0.0) const {
    double sum = start, magnitudes = std::fabs(start);
    for (int k = 0; k < b.rows; ++k) {
      sum += static_cast<double>(a(r, k)) * b(k, c);
      magnitudes += std::fabs(static_cast<double>(a(r, k)) * b(k, c));
    }
    return {sum, 1e-6 * (1.0 + magnitudes)};
  }
};

// Compares the outputs of all fused variants bit by bit.
struct SameBits {
  std::vector<std::vector<float>> first;
  void note(const Kernels& kernels, const std::vector<Rows>& outputs) {
    if (!is_fused(kernels)) return;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (first.size() == i) first.push_back(outputs[i].values);
      CHECK(same_bits(first[i], outputs[i].values));
    }
    CHECK(first.size() == outputs.size());
  }
};

constexpr int kTrials = 12;

}  // namespace

TEST(kernels_encode_is_the_activation_of_the_product) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < kTrials; ++trial) {
    const int rows = draw_rows(rng), inputs = draw_width(rng), outputs = draw_width(rng);
    const Activation kind = draw_of(rng, kActivations);
    const Rows x(rng, rows, inputs, -1.0f, 1.0f), bias(rng, 1, outputs, -1.0f, 1.0f);
    const Operand operand(rng, inputs, outputs);
    const bool drops = draw_bool(rng), copies = draw_bool(rng);
    Bits dropped(rng, rows, outputs);
    SameBits same_bits;
    for (const Kernels* kernels : tables()) {
      const int width = kernels->panel_width;
      const Guarded in(x, width), w = operand.store(width), b = Guarded::vector(bias, width);
      Guarded out = Guarded::empty(rows, outputs, width), copy = Guarded::empty(rows, outputs, width);
      const EncodeTask task{in.panels(),
                            inputs,
                            outputs,
                            operand.weights(w),
                            b.data(),
                            kind,
                            out.panels(),
                            copies ? copy.panels() : Panels{},
                            drops ? dropped.view() : BitMatrix{},
                            drops ? 1.25f : 1.0f};
      const Workspace workspace(*kernels);
      in_pieces(rng, random_cuts(rng, rows, 1, kernels->row_block), random_cuts(rng, out.panel_count(), 1, 4),
                [&](Range range) {
                  out.watch();
                  copy.watch();
                  kernels->encode(task, range, workspace.data());
                  CHECK(out.only_wrote(range));
                  CHECK(copies ? copy.only_wrote(range) : copy.is_untouched());
                });
      CHECK(in.is_untouched() && w.is_untouched() && b.is_untouched());
      const Rows h = out.read();
      const Product product{x, operand.values};
      for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < outputs; ++c) {
          const Product::Sum a = product.at(r, c, bias(0, c));
          const bool gone = drops && dropped(r, c);
          CHECK_CLOSE(h(r, c), gone ? 0.0 : activation(kind, a.value) * (drops ? 1.25 : 1.0), 1.3 * a.tolerance);
          if (gone) CHECK(h(r, c) == 0.0f);
        }
      }
      if (copies) CHECK(gesda_test::same_bits(copy.read().values, h.values));
      same_bits.note(*kernels, {h});
    }
  }
}

TEST(kernels_decode_is_the_loss_and_its_slope) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < 2 * kTrials; ++trial) {
    const int rows = draw_rows(rng), hidden = draw_width(rng), visible = draw_width(rng);
    const Loss loss = draw_bool(rng) ? kCrossEntropy : kSquaredError;
    const Activation output = loss == kCrossEntropy ? kSigmoid : draw_of(rng, kActivations);
    const Rows h(rng, rows, hidden, -1.0f, 1.0f), x(rng, rows, visible, 0.0f, 1.0f), bias(rng, 1, visible, -1.0f, 1.0f);
    const Operand operand(rng, hidden, visible);
    const bool emphasises = draw_bool(rng);
    const float on_corrupted = emphasises ? 1.5f : 1.0f, on_clean = emphasises ? 0.25f : 1.0f;
    Bits corrupted(rng, rows, visible);
    const int rows_per_block = draw_int(rng, 1, 128);
    SameBits same_bits;
    for (const Kernels* kernels : tables()) {
      const int width = kernels->panel_width;
      const Guarded in(h, width), w = operand.store(width), b = Guarded::vector(bias, width);
      Guarded clean(x, width, true);
      std::vector<int> row_cuts;
      for (int r = 0; r < rows + rows_per_block; r += rows_per_block) row_cuts.push_back(std::min(r, rows));
      const std::size_t n_slots = (row_cuts.size() - 1) * size(clean.panel_count());
      std::vector<double> slots(n_slots + 2, -7.0);  // one on either side that nobody may touch
      const DecodeTask task{in.panels(),
                            hidden,
                            visible,
                            operand.weights(w),
                            b.data(),
                            output,
                            loss,
                            clean.panels(),
                            emphasises ? corrupted.view() : BitMatrix{},
                            on_corrupted,
                            on_clean,
                            slots.data() + 1,
                            rows_per_block};
      const Workspace workspace(*kernels);
      in_pieces(rng, row_cuts, random_cuts(rng, clean.panel_count(), 1, 4), [&](Range range) {
        clean.watch();
        kernels->decode(task, range, workspace.data());
        CHECK(clean.only_wrote(range));
      });
      CHECK(in.is_untouched() && w.is_untouched() && b.is_untouched());
      CHECK(clean.padding_is_zero(0, rows));
      CHECK(slots.front() == -7.0 && slots.back() == -7.0);
      const Rows d = clean.read();
      const Product product{h, operand.values};
      std::vector<double> losses(n_slots, 0.0), tolerances(n_slots, 1e-6);
      for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < visible; ++c) {
          const Product::Sum a = product.at(r, c, bias(0, c));
          const double weight = corrupted(r, c) ? on_corrupted : on_clean, target = x(r, c);
          const std::size_t slot = size(r / rows_per_block * clean.panel_count() + c / width);
          if (loss == kCrossEntropy) {
            CHECK_CLOSE(d(r, c), weight * (activation(kSigmoid, a.value) - target), 2.0 * a.tolerance);
            losses[slot] += weight * (log_one_plus_exp(a.value) - a.value * target);
            tolerances[slot] += 2.0 * a.tolerance + 1e-6 * std::fabs(a.value);
          } else if (output != kRelu || std::fabs(a.value) > a.tolerance) {
            const double z = activation(output, a.value), residual = z - target;
            CHECK_CLOSE(d(r, c), weight * residual * slope(output, z), 4.0 * a.tolerance * (1.0 + std::fabs(residual)));
            losses[slot] += weight * 0.5 * residual * residual;
            tolerances[slot] += 2.0 * a.tolerance * (1.0 + std::fabs(residual)) + 2e-6 * residual * residual;
          } else {
            losses[slot] += weight * 0.5 * target * target;
            tolerances[slot] += 1e-3;
          }
        }
      }
      for (std::size_t i = 0; i < n_slots; ++i) CHECK_CLOSE(slots[i + 1], losses[i], tolerances[i]);
      same_bits.note(*kernels, {d});
    }
  }
}

TEST(kernels_backprop_is_the_slope_at_the_logits_below) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < 2 * kTrials; ++trial) {
    const int rows = draw_rows(rng), inputs = draw_width(rng), outputs = draw_width(rng);
    const Activation kind = draw_of(rng, kActivations);
    const Operand operand(rng, inputs, outputs);
    const Rows d(rng, rows, inputs, -1.0f, 1.0f), sparsity(rng, 1, outputs, -1.0f, 1.0f),
        contraction(rng, 1, outputs, 0.0f, 1.0f);
    const bool drops = draw_bool(rng), in_place = draw_bool(rng), sparse = draw_bool(rng), contracts = draw_bool(rng);
    const float scale = drops ? 1.5f : 1.0f;
    Bits dropped(rng, rows, outputs);
    Rows values(rows, outputs), kept(rows, outputs);  // h before and after dropout
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < outputs; ++c) {
        values(r, c) = static_cast<float>(activation(kind, draw_float(rng, -3.0f, 3.0f)));
        kept(r, c) = drops && dropped(r, c) ? 0.0f : values(r, c) * scale;
      }
    SameBits same_bits;
    for (const Kernels* kernels : tables()) {
      const int width = kernels->panel_width;
      const Guarded in(d, width), w = operand.store(width), beta = Guarded::vector(sparsity, width),
                                  lambda = Guarded::vector(contraction, width);
      Guarded h(kept, width, true), e = Guarded::empty(rows, outputs, width, true);
      Guarded& out = in_place ? h : e;
      const BackpropTask task{in.panels(),
                              inputs,
                              outputs,
                              operand.weights(w),
                              kind,
                              h.panels(),
                              out.panels(),
                              drops ? dropped.view() : BitMatrix{},
                              scale,
                              sparse ? beta.data() : nullptr,
                              contracts ? lambda.data() : nullptr};
      const Workspace workspace(*kernels);
      in_pieces(rng, random_cuts(rng, rows, 1, kernels->row_block), random_cuts(rng, out.panel_count(), 1, 4),
                [&](Range range) {
                  out.watch();
                  kernels->backprop(task, range, workspace.data());
                  CHECK(out.only_wrote(range));
                });
      CHECK(in.is_untouched() && w.is_untouched() && (in_place || h.is_untouched()));
      CHECK(out.padding_is_zero(0, rows));
      const Rows result = out.read();
      const Product product{d, operand.values};
      for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < outputs; ++c) {
          const Product::Sum sum = product.at(r, c, sparse ? sparsity(0, c) : 0.0);
          const bool gone = drops && dropped(r, c);
          const double value = gone ? 0.0 : values(r, c);
          double truth = gone ? 0.0 : sum.value * scale;
          if (contracts) truth += contraction(0, c) * curvature(kind, value);
          CHECK_CLOSE(result(r, c), truth * slope(kind, value), 2.0 * sum.tolerance + 1e-6 * std::fabs(truth));
        }
      }
      same_bits.note(*kernels, {result});
    }
  }
}

TEST(kernels_statistics_of_hidden_units) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < kTrials; ++trial) {
    const int rows = draw_rows(rng), columns = draw_width(rng), weight_rows = draw_width(rng);
    const Activation kind = draw_of(rng, kActivations);
    const Rows h(rng, rows, columns, 0.01f, 0.99f), weights(rng, weight_rows, columns, -1.0f, 1.0f);
    const float sparsity = 0.3f, target = 0.1f, contractive = draw_bool(rng) ? 0.2f : 0.0f;
    SameBits same_bits;
    for (const Kernels* kernels : tables()) {
      const int width = kernels->panel_width;
      const Guarded values(h, width), w(weights, width);
      Guarded out[3] = {Guarded::vector(Rows(1, columns), width), Guarded::vector(Rows(1, columns), width),
                        Guarded::vector(Rows(1, columns), width)};
      const StatisticsTask task{values.panels(), rows,   columns,     w.panels(),    weight_rows,   kind,
                                sparsity,        target, contractive, out[0].data(), out[1].data(), out[2].data()};
      in_pieces(rng, {0, rows}, random_cuts(rng, values.panel_count(), 1, 3), [&](Range range) {
        for (Guarded& vector : out) vector.watch();
        kernels->statistics(task, range);
        for (const Guarded& vector : out) CHECK(vector.only_wrote({0, 1, range.panel_begin, range.panel_end}));
      });
      CHECK(values.is_untouched() && w.is_untouched());
      for (int c = 0; c < columns; ++c) {
        double mean = 0.0, slopes = 0.0, squares = 0.0;
        for (int r = 0; r < rows; ++r) {
          mean += h(r, c) / static_cast<double>(rows);
          slopes += std::pow(slope(kind, h(r, c)), 2) / rows;
        }
        for (int r = 0; r < weight_rows; ++r) squares += static_cast<double>(weights(r, c)) * weights(r, c);
        const double divergence = sparsity * ((1.0 - target) / (1.0 - mean) - target / mean);
        CHECK_CLOSE(out[0].read()(0, c), divergence, 1e-5 * (1.0 + 1.0 / mean + 1.0 / (1.0 - mean)));
        CHECK_CLOSE(out[1].read()(0, c), 2.0 * contractive * squares, 1e-5 * squares);
        CHECK_CLOSE(out[2].read()(0, c), 2.0 * contractive * slopes, 1e-5 * slopes);
      }
      same_bits.note(*kernels, {out[0].read(), out[1].read(), out[2].read()});
    }
  }
}

namespace {

UpdateRule draw_rule(std::mt19937_64& rng) {
  return {draw_of(rng, kOptimizers), 0.1f, 0.9f, draw_bool(rng) ? 1.0f : 0.0f, 0.9f, 0.99f, 1e-3f, 2.5f};
}

}  // namespace

TEST(kernels_update_follows_the_optimiser_along_the_gradient) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < 2 * kTrials; ++trial) {
    const int rows = draw_rows(rng), inputs = draw_width(rng), outputs = draw_width(rng);
    const UpdateRule rule = draw_rule(rng);
    const bool twice = draw_bool(rng), decays = draw_bool(rng);
    const float l2 = draw_bool(rng) ? 0.05f : 0.0f;
    const Rows a1(rng, rows, inputs, -1.0f, 1.0f), b1(rng, rows, outputs, -1.0f, 1.0f),
        a2(rng, rows, inputs, -1.0f, 1.0f), b2(rng, rows, outputs, -1.0f, 1.0f), old(rng, inputs, outputs, -1.0f, 1.0f),
        mean(rng, inputs, outputs, -1.0f, 1.0f), variance(rng, inputs, outputs, 0.1f, 1.0f),
        decay(rng, 1, outputs, 0.0f, 0.1f);
    SameBits same_bits;
    for (const Kernels* kernels : tables()) {
      const int width = kernels->panel_width;
      const Guarded pa1(a1, width), pb1(b1, width), pa2(a2, width), pb2(b2, width), pd = Guarded::vector(decay, width);
      Guarded state[3] = {Guarded(old, width, true), Guarded(mean, width, true), Guarded(variance, width, true)};
      const UpdateTask task{pa1.panels(),
                            pb1.panels(),
                            twice ? pa2.panels() : Panels{},
                            twice ? pb2.panels() : Panels{},
                            rows,
                            inputs,
                            outputs,
                            state[0].panels(),
                            state[1].panels(),
                            state[2].panels(),
                            &rule,
                            1.0f / static_cast<float>(rows),
                            l2,
                            decays ? pd.data() : nullptr};
      const Workspace workspace(*kernels);
      in_pieces(rng, random_cuts(rng, inputs, width, 4 * width), random_cuts(rng, state[0].panel_count(), 1, 3),
                [&](Range range) {
                  for (Guarded& array : state) array.watch();
                  kernels->update(task, range, workspace.data());
                  for (const Guarded& array : state) CHECK(array.only_wrote(range));
                });
      CHECK(pa1.is_untouched() && pb1.is_untouched() && pa2.is_untouched() && pb2.is_untouched() && pd.is_untouched());
      const Rows result[3] = {state[0].read(), state[1].read(), state[2].read()};
      for (int i = 0; i < inputs; ++i) {
        for (int j = 0; j < outputs; ++j) {
          double sum = 0.0;
          for (int r = 0; r < rows; ++r) {
            sum += static_cast<double>(a1(r, i)) * b1(r, j);
            if (twice) sum += static_cast<double>(a2(r, i)) * b2(r, j);
          }
          double p = old(i, j), s0 = mean(i, j), s1 = variance(i, j);
          optimize(rule, p, sum / rows + (l2 + (decays ? decay(0, j) : 0.0)) * p, s0, s1);
          CHECK_CLOSE(result[0](i, j), p, 4e-6);
          CHECK_CLOSE(result[1](i, j), s0, 4e-6);
          CHECK_CLOSE(result[2](i, j), s1, 4e-6);
        }
      }
      same_bits.note(*kernels, {result[0], result[1], result[2]});
    }
  }
}

TEST(kernels_update_bias_follows_the_optimiser_along_the_mean) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < 2 * kTrials; ++trial) {
    const int rows = draw_rows(rng), columns = draw_width(rng);
    const UpdateRule rule = draw_rule(rng);
    const Rows delta(rng, rows, columns, -1.0f, 1.0f), old(rng, 1, columns, -1.0f, 1.0f),
        mean(rng, 1, columns, -1.0f, 1.0f), variance(rng, 1, columns, 0.1f, 1.0f);
    SameBits same_bits;
    for (const Kernels* kernels : tables()) {
      const int width = kernels->panel_width;
      const Guarded deltas(delta, width, true);
      Guarded state[3] = {Guarded::vector(old, width), Guarded::vector(mean, width), Guarded::vector(variance, width)};
      const BiasTask task{deltas.panels(), rows,
                          columns,         state[0].data(),
                          state[1].data(), state[2].data(),
                          &rule,           1.0f / static_cast<float>(rows)};
      in_pieces(rng, {0, rows}, random_cuts(rng, deltas.panel_count(), 1, 3), [&](Range range) {
        for (Guarded& array : state) array.watch();
        kernels->update_bias(task, range);
        for (const Guarded& array : state) CHECK(array.only_wrote({0, 1, range.panel_begin, range.panel_end}));
      });
      CHECK(deltas.is_untouched());
      CHECK(state[0].padding_is_zero(0, 1));
      const Rows result[3] = {state[0].read(), state[1].read(), state[2].read()};
      for (int c = 0; c < columns; ++c) {
        double sum = 0.0, p = old(0, c), s0 = mean(0, c), s1 = variance(0, c);
        for (int r = 0; r < rows; ++r) sum += delta(r, c);
        optimize(rule, p, sum / rows, s0, s1);
        CHECK_CLOSE(result[0](0, c), p, 4e-6);
        CHECK_CLOSE(result[1](0, c), s0, 4e-6);
        CHECK_CLOSE(result[2](0, c), s1, 4e-6);
      }
      same_bits.note(*kernels, {result[0], result[1], result[2]});
    }
  }
}

TEST(kernels_measure_a_rate) {
  for (const Kernels* kernels : tables()) {
    const double rate = kernels->fma_rate(0.002);
    CHECK(std::isfinite(rate) && rate > 1e6);
  }
}
