// bf16: rounding and packing against plain loops, products of pairs against the float32 kernels on the same numbers,
// and networks whose bits no number of threads changes.
#include <limits>
#include <stdexcept>

#include "cpp/tests/problem.hpp"

namespace {

using namespace gesda;
using namespace gesda_test;

// Every variant in bf16: avx512bf16 too where it runs.
std::vector<const Kernels*> pair_tables() {
  std::vector<const Kernels*> all = tables();
  const Kernels* fastest = runnable_kernels(kBf16).front();
  if (std::find(all.begin(), all.end(), fastest) == all.end()) all.push_back(fastest);
  return all;
}

// To the nearest number of 8 significant bits (fewer below 2^-126), ties to even; by arithmetic, not by bits.
float to_bf16(float x) {
  if (x == 0.0f || !std::isfinite(x)) return x;
  const int last = std::max(std::ilogb(x), -126) - 7;  // exponent of the last bit
  const double value = std::ldexp(std::nearbyint(std::ldexp(static_cast<double>(x), -last)), last);
  return std::fabs(value) >= std::ldexp(1.0, 128) ? std::copysign(std::numeric_limits<float>::infinity(), x)
                                                  : static_cast<float>(value);
}
Rows to_bf16(Rows rows) {
  for (float& value : rows.values) value = to_bf16(value);
  return rows;
}

// Words that nobody may write but `pack`, canaries around them.
class GuardedPairs {
 public:
  GuardedPairs(int lines, int panels, int words_per_line)
      : stride_(size(lines + 2) * size(words_per_line)),
        words_per_line_(words_per_line),
        lines_(lines),
        storage_(2 * kGuard + stride_ * size(panels)) {
    for (std::size_t i = 0; i < storage_.size(); ++i) storage_.data()[i] = gesda::floats(kCanary);
  }
  Pairs pairs() const { return {reinterpret_cast<u32*>(storage_.data()) + kGuard, stride_}; }
  u32 word(int panel, int line, int i) const {
    return gesda::bits(storage_.data()[kGuard + size(panel) * stride_ + size(line) * size(words_per_line_) + size(i)]);
  }
  bool canaries_live() const {
    for (std::size_t i = 0; i < storage_.size(); ++i) {
      const bool outside =
          i < kGuard || i >= storage_.size() - kGuard || (i - kGuard) % stride_ >= size(lines_) * size(words_per_line_);
      if (outside && gesda::bits(storage_.data()[i]) != kCanary) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t kGuard = 64;
  static constexpr u32 kCanary = 0x7FA5A5A5u;
  std::size_t stride_;
  int words_per_line_, lines_;
  Buffer storage_;
};

// A matrix in panels, with its copies in pairs.
struct Packed {
  Rows rows;
  Guarded panels;
  GuardedPairs by_columns, by_rows;
  Packed(std::mt19937_64& rng, const Kernels& kernels, const Rows& from)
      : rows(from),
        panels(from, kernels.panel_width),
        by_columns(from.rows, panels.panel_count(), kernels.panel_width / 2),
        by_rows((from.rows + 1) / 2, panels.panel_count(), kernels.panel_width) {
    const PackTask task{panels.panels(), rows.rows, rows.columns, by_columns.pairs(), by_rows.pairs()};
    in_pieces(rng, random_cuts(rng, rows.rows, 2, 20), {0, 0}, [&](Range range) { kernels.pack(task, range); });
    CHECK(panels.is_untouched() && by_columns.canaries_live() && by_rows.canaries_live());
  }
};

int draw_rows(std::mt19937_64& rng) {
  return draw_int(rng, 0, 3) == 0 ? draw_int(rng, 129, 460) : draw_int(rng, 1, 40);
}
int draw_width(std::mt19937_64& rng) {
  return draw_int(rng, 0, 5) == 0 ? draw_int(rng, 190, 1100) : draw_int(rng, 1, 70);
}

// A number whose rounding is worth a look: any bit pattern, a tie, a denormal one, NaN, or an everyday one.
float draw_number(std::mt19937_64& rng) {
  const u32 any = static_cast<u32>(rng());
  switch (draw_int(rng, 0, 4)) {
    case 0: return gesda::floats(any);
    case 1: return gesda::floats((any & 0xFFFF0000u) | 0x8000u);
    case 2: return gesda::floats(any & 0x807FFFFFu);  // denormal, or zero
    case 3:
      return gesda::floats((any & 1u) != 0 ? 0x7F800001u : 0xFFFFFFFFu);  // NaN that adding half a step would lose
    default: return draw_float(rng, -2.0f, 2.0f);
  }
}

// a: (rows, inputs), b: (inputs, outputs), stored as it is or transposed.
struct Operands {
  Rows a, b, stored;
  bool transposed;
  Operands(std::mt19937_64& rng, int rows, int inputs, int outputs)
      : a(rng, rows, inputs, -1.0f, 1.0f),
        b(to_bf16(Rows(rng, inputs, outputs, -1.0f, 1.0f))),
        stored(b),
        transposed(draw_bool(rng)) {
    a = to_bf16(a);
    if (!transposed) return;
    stored = Rows(outputs, inputs);
    for (int r = 0; r < outputs; ++r)
      for (int c = 0; c < inputs; ++c) stored(r, c) = b(c, r);
  }
  Weights weights(const Guarded& w) const { return {w.panels(), stored.rows, transposed}; }
  double tolerance() const { return 4e-7 * (1.0 + a.columns); }  // of a sum of products of numbers in [-1, 1]
};

void check_close(const Rows& a, const Rows& b, double tolerance) {
  for (std::size_t i = 0; i < a.values.size(); ++i) CHECK_CLOSE(a.values[i], b.values[i], tolerance);
}

// Calls the kernel in pieces on a workspace full of NaN.
template <class Task>
void run(std::mt19937_64& rng, const Kernels& kernels, void (*Kernels::*kernel)(const Task&, Range, float*),
         const Task& task, int rows, int unit, int panels) {
  const Workspace workspace(kernels);
  in_pieces(rng, random_cuts(rng, rows, unit, std::max(unit, kernels.row_block)), random_cuts(rng, panels, 1, 4),
            [&](Range range) { (kernels.*kernel)(task, range, workspace.data()); });
}

constexpr int kTrials = 12;

}  // namespace

TEST(pairs_reference_rounds_as_known) {
  CHECK(to_bf16(1.0f) == 1.0f);
  CHECK(to_bf16(1.0f + 0x1p-8f) == 1.0f);                // a tie: to even, down
  CHECK(to_bf16(1.0f + 3 * 0x1p-8f) == 1.0f + 0x1p-6f);  // a tie: to even, up
  CHECK(to_bf16(1.0f + 0x1p-8f + 0x1p-20f) == 1.0f + 0x1p-7f);
  CHECK(to_bf16(-3.4e38f) == -std::numeric_limits<float>::infinity());
}

TEST(pairs_pack_rounds_to_nearest_even_in_both_layouts) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < 4 * kTrials; ++trial) {
    Rows m(draw_int(rng, 1, 40), draw_int(rng, 1, 100));
    for (float& value : m.values) value = draw_number(rng);
    for (const Kernels* kernels : pair_tables()) {
      const Packed packed(rng, *kernels, m);
      const int width = kernels->panel_width;
      const auto check = [&](u32 half, int r, int c) {
        const float x = gesda::floats(half << 16);
        const float truth = r < m.rows && c < m.columns ? to_bf16(m(r, c)) : 0.0f;
        CHECK(std::isnan(truth) ? std::isnan(x) : same_bits(x, truth));
      };
      for (int panel = 0; panel < packed.panels.panel_count(); ++panel)
        for (int i = 0; i < width; ++i) {
          const int c = panel * width + i;
          for (int r = 0; r < m.rows; ++r)
            check(packed.by_columns.word(panel, r, i / 2) >> (i % 2 * 16) & 0xFFFFu, r, c);
          for (int r = 0; r < m.rows + m.rows % 2; ++r)
            check(packed.by_rows.word(panel, r / 2, i) >> (r % 2 * 16) & 0xFFFFu, r, c);
        }
    }
  }
}

TEST(pairs_encode_decode_and_backprop_as_float32_does_on_bf16_numbers) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < kTrials; ++trial) {
    const int rows = draw_rows(rng), inputs = draw_width(rng), outputs = draw_width(rng);
    const Operands operands(rng, rows, inputs, outputs);
    const Rows bias(rng, 1, outputs, -1.0f, 1.0f), x(rng, rows, outputs, 0.0f, 1.0f);
    const Activation kind = draw_bool(rng) ? kSigmoid : kLinear;
    for (const Kernels* kernels : pair_tables()) {
      const int width = kernels->panel_width;
      const Packed in(rng, *kernels, operands.a);
      const Guarded w(operands.stored, width), b = Guarded::vector(bias, width), h(x, width, true);
      const auto both = [&](auto member, auto task, auto& result) {
        Rows found[2] = {Rows(0, 0), Rows(0, 0)};
        for (int precision = 0; precision < 2; ++precision) {
          if (precision == kBf16) task.pairs = in.by_columns.pairs();
          found[precision] = result(task, member);
        }
        check_close(found[kFp32], found[kBf16], operands.tolerance());
        CHECK(in.by_columns.canaries_live() && w.is_untouched() && b.is_untouched() && in.panels.is_untouched());
      };
      const auto encoded = [&](EncodeTask task, auto member) {
        const Guarded out = Guarded::empty(rows, outputs, width);
        task.out = out.panels();
        run(rng, *kernels, member, task, rows, 1, out.panel_count());
        return out.read();
      };
      both(&Kernels::encode,
           EncodeTask{in.panels.panels(), inputs, outputs, operands.weights(w), b.data(), kind, {}, {}, {}, 1.0f},
           encoded);
      const auto backpropagated = [&](BackpropTask task, auto member) {
        const Guarded out = Guarded::empty(rows, outputs, width, true);
        task.out = out.panels();
        run(rng, *kernels, member, task, rows, 1, out.panel_count());
        CHECK(out.padding_is_zero(0, rows));
        return out.read();
      };
      both(&Kernels::backprop,
           BackpropTask{in.panels.panels(),
                        inputs,
                        outputs,
                        operands.weights(w),
                        kind,
                        h.panels(),
                        {},
                        {},
                        1.0f,
                        nullptr,
                        nullptr},
           backpropagated);
      const auto decoded = [&](DecodeTask task, auto member) {
        const Guarded d(x, width);
        std::vector<double> slots(size(d.panel_count()) * size(rows), 0.0);
        task.clean = d.panels();
        task.loss_slots = slots.data();
        const Workspace workspace(*kernels);
        for (int r = 0; r < rows; r += kernels->row_block)
          (kernels->*member)(task, {r, std::min(rows, r + kernels->row_block), 0, d.panel_count()}, workspace.data());
        return d.read();
      };
      both(&Kernels::decode,
           DecodeTask{in.panels.panels(),
                      inputs,
                      outputs,
                      operands.weights(w),
                      b.data(),
                      kSigmoid,
                      kCrossEntropy,
                      {},
                      {},
                      1.0f,
                      1.0f,
                      nullptr,
                      kernels->row_block},
           decoded);
    }
  }
}

TEST(pairs_products_round_the_weights) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < kTrials; ++trial) {
    const int rows = draw_int(rng, 1, 30), inputs = draw_width(rng), outputs = draw_width(rng);
    Operands operands(rng, rows, inputs, outputs);
    for (float& value : operands.stored.values) value = draw_float(rng, -1.0f, 1.0f);
    if (draw_int(rng, 0, 3) == 0)
      operands.stored.values[0] = gesda::floats(0x7FFFFFFFu);  // must not be lost in rounding
    const Rows bias(1, outputs);
    for (const Kernels* kernels : pair_tables()) {
      const int width = kernels->panel_width;
      const Packed in(rng, *kernels, operands.a);
      const Guarded master(operands.stored, width), round(to_bf16(operands.stored), width);
      const Guarded b = Guarded::vector(bias, width);
      std::vector<Rows> results;
      for (const Guarded* w : {&master, &round}) {
        const Guarded out = Guarded::empty(rows, outputs, width);
        EncodeTask task{{}, inputs, outputs, operands.weights(*w), b.data(), kLinear, out.panels(), {}, {}, 1.0f};
        task.pairs = in.by_columns.pairs();
        run(rng, *kernels, &Kernels::encode, task, rows, 1, out.panel_count());
        results.push_back(out.read());
      }
      CHECK(std::isnan(operands.stored.values[0]) == std::isnan(results[0](0, 0)));
      for (std::size_t i = 0; i < results[0].values.size(); ++i) {
        const float one = results[0].values[i], other = results[1].values[i];
        CHECK(same_bits(one, other) || (std::isnan(one) && std::isnan(other)));
      }
    }
  }
}

TEST(pairs_update_as_float32_does_on_bf16_numbers) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < kTrials; ++trial) {
    const int rows = draw_rows(rng), inputs = draw_width(rng), outputs = draw_width(rng);
    const bool twice = draw_bool(rng);
    const auto draw = [&](int columns) { return to_bf16(Rows(rng, rows, columns, -1.0f, 1.0f)); };
    const Rows a1 = draw(inputs), b1 = draw(outputs), a2 = draw(inputs), b2 = draw(outputs);
    const Rows start(rng, inputs, outputs, -1.0f, 1.0f);
    UpdateRule rule{};
    rule.kind = kSgd;
    rule.rate = 1.0f;
    for (const Kernels* kernels : pair_tables()) {
      const int width = kernels->panel_width;
      const Packed pa1(rng, *kernels, a1), pb1(rng, *kernels, b1), pa2(rng, *kernels, a2), pb2(rng, *kernels, b2);
      std::vector<Rows> results;
      for (const Precision precision : {kFp32, kBf16}) {
        const Guarded w(start, width);
        UpdateTask task{};
        task.a1 = pa1.panels.panels(), task.b1 = pb1.panels.panels();
        if (twice) task.a2 = pa2.panels.panels(), task.b2 = pb2.panels.panels();
        task.rows = rows, task.inputs = inputs, task.outputs = outputs;
        task.weights = w.panels();
        task.rule = &rule;
        task.inverse_rows = 1.0f / static_cast<float>(rows);
        if (precision == kBf16) {
          task.pairs = {pa1.by_rows.pairs(), pb1.by_rows.pairs(), {}, {}};
          if (twice) task.pairs.a2 = pa2.by_rows.pairs(), task.pairs.b2 = pb2.by_rows.pairs();
        }
        run(rng, *kernels, &Kernels::update, task, inputs, width, w.panel_count());
        results.push_back(w.read());
      }
      check_close(results[0], results[1], 2e-6);
    }
  }
}

TEST(pairs_networks_have_the_same_bits_on_any_number_of_threads) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < 6; ++trial) {
    const Problem problem(rng, draw_int(rng, 1, 3), 90, draw_int(rng, 2, 70), draw_int(rng, 1, 40));
    for (const std::string& variant : available_variants(kBf16)) {
      std::map<std::string, std::vector<float>> first;
      std::vector<double> first_losses;
      std::vector<float> first_predictions;
      for (int n_threads = 1; n_threads <= 3; ++n_threads) {
        Network network(problem.spec, variant, n_threads, kBf16);
        CHECK(network.variant() == variant);
        for (const auto& [name, values] : problem.start) network.set_array(name, values.data());
        const std::vector<double> losses = problem.train(network);
        std::vector<float> predictions(size(problem.data.rows) * size(problem.spec.head.n_outputs));
        network.predict(problem.samples(), predictions.data());
        if (n_threads == 1) first = problem.state(network), first_losses = losses, first_predictions = predictions;
        CHECK(same_states(first, problem.state(network)));
        CHECK(same_numbers(first_losses, losses));
        CHECK(same_bits(first_predictions, predictions));
      }
    }
  }
}

TEST(pairs_variants_are_listed_by_precision) {
  const std::vector<std::string> fp32 = available_variants(kFp32), bf16 = available_variants(kBf16);
  CHECK(std::find(fp32.begin(), fp32.end(), "avx512bf16") == fp32.end());
  CHECK(has_bf16() == (bf16[0] == "avx512bf16"));
  CHECK(std::vector<std::string>(bf16.begin() + (has_bf16() ? 1 : 0), bf16.end()) == fp32);
  bool refused = false;
  try {
    static_cast<void>(find_kernels("avx512bf16", kFp32));
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  CHECK(refused);
}
