// kernels/math.hpp: the formulas against double precision over their whole ranges, the published vectors of Philox, and
// the lanes of every SIMD variant against the scalar lane, reached through the kernels.
#include <limits>

#include "cpp/tests/panels.hpp"
#include "harness.hpp"

namespace {

using namespace gesda;
using gesda_test::draw_float;
using gesda_test::Guarded;
using gesda_test::kActivations;
using gesda_test::Rows;
using gesda_test::same_bits;

// Random numbers of all magnitudes and both signs, and the edges.
std::vector<float> many_numbers(int n) {
  std::mt19937_64 rng = gesda_test::rng();
  std::vector<float> numbers = {0.0f,   -0.0f,   1.0f,    -1.0f, 0.625f, -0.625f, std::nextafter(0.625f, 0.0f),
                                86.0f,  -86.0f,  87.336f, 88.0f, -88.0f, 88.01f,  -88.01f,
                                1e-45f, -1e-38f, 1e-30f,  1e30f, -1e30f, 3.4e38f, -3.4e38f};
  for (int i = 0; i < n; ++i) {
    numbers.push_back(draw_float(rng, -1.0f, 1.0f));
    numbers.push_back(draw_float(rng, -20.0f, 20.0f));
    numbers.push_back(draw_float(rng, -100.0f, 100.0f));
    const float tiny = std::ldexp(draw_float(rng, 1.0f, 2.0f), gesda_test::draw_int(rng, -126, 0));
    numbers.push_back(gesda_test::draw_bool(rng) ? tiny : -tiny);
  }
  return numbers;
}

struct Error {
  double absolute = 0.0, relative = 0.0;
  void note(double value, double truth) {
    absolute = std::max(absolute, std::isfinite(value) ? std::fabs(value - truth) : HUGE_VAL);
    relative = std::max(relative, value == truth ? 0.0 : std::fabs(value - truth) / std::fabs(truth));
  }
};

constexpr int kNumbers = 20000;

}  // namespace

TEST(math_exponential_is_good_to_2e_7_of_itself) {
  Error error;
  for (const float x : many_numbers(kNumbers))
    if (x <= 88.0f) error.note(exponential(x), std::exp(std::max(-86.0, static_cast<double>(x))));
  CHECK_CLOSE(error.relative, 0.0, 2e-7);
  CHECK(exponential(0.0f) == 1.0f);
  CHECK(exponential(-HUGE_VALF) == exponential(-86.0f));
}

TEST(math_logarithm_is_good_to_3e_7_of_itself) {
  Error error;
  for (const float x : many_numbers(kNumbers)) {
    const float positive = std::fabs(x);
    if (positive < 1.2e-38f) continue;  // subnormal
    error.note(logarithm(positive), std::log(static_cast<double>(positive)));
  }
  std::mt19937_64 rng = gesda_test::rng();
  for (int i = 0; i < kNumbers; ++i) {  // where the mantissa's stretch ends, and around 1
    for (const float center : {0.70710678f, 1.0f, 1.41421356f, 2.0f, 64.0f}) {
      const float x = center * (1.0f + std::ldexp(draw_float(rng, -1.0f, 1.0f), gesda_test::draw_int(rng, -24, -3)));
      error.note(logarithm(x), std::log(static_cast<double>(x)));
    }
  }
  CHECK_CLOSE(error.relative, 0.0, 3e-7);
  CHECK(logarithm(1.0f) == 0.0f);
}

TEST(math_activations_are_good_to_3e_7) {
  for (const float x : many_numbers(kNumbers)) {
    for (const Activation kind : kActivations) {
      const double truth = gesda_test::activation(kind, x);
      CHECK_CLOSE(activate(kind, x), truth, 3e-7 * std::min(1.0, std::fabs(truth)) + 1e-37);
    }
  }
  CHECK(sigmoid(100.0f) == 1.0f);
  CHECK(hyperbolic_tangent(30.0f) == 1.0f && hyperbolic_tangent(-30.0f) == -1.0f);
}

TEST(math_cos_sin_turn_is_good_to_2e_7) {
  std::mt19937_64 rng = gesda_test::rng();
  Error error;
  const auto compare = [&error](float t) {
    float cosine, sine;
    cos_sin_turn(t, cosine, sine);
    const double angle = 2.0 * M_PI * static_cast<double>(t);
    error.note(cosine, std::cos(angle));
    error.note(sine, std::sin(angle));
  };
  for (int eighth = 0; eighth < 8; ++eighth) {
    const float t = static_cast<float>(eighth) / 8.0f;
    for (const float near : {t, std::nextafter(t, 0.0f), std::nextafter(t, 1.0f)}) compare(near);
  }
  compare(1.0f - 0x1p-24f);
  for (int i = 0; i < 4 * kNumbers; ++i) compare(static_cast<float>(rng() >> 40) * 0x1p-24f);
  CHECK_CLOSE(error.absolute, 0.0, 2e-7);
}

TEST(math_normal_pair_is_box_and_muller) {
  std::mt19937_64 rng = gesda_test::rng();
  std::vector<std::pair<u32, u32>> draws = {{0u, 0u},  {~0u, ~0u},       {0u, ~0u},
                                            {~0u, 0u}, {255u, 1u << 31}, {256u, 1u << 30}};
  for (int i = 0; i < kNumbers; ++i) draws.emplace_back(static_cast<u32>(rng()), static_cast<u32>(rng()));
  double sum = 0.0, squares = 0.0;
  for (const auto& [w0, w1] : draws) {
    float first, second;
    normal_pair(w0, w1, first, second);
    const double radius = std::sqrt(-2.0 * std::log(((w0 >> 8) + 1) * 0x1p-24));
    const double angle = 2.0 * M_PI * (w1 >> 8) * 0x1p-24;
    CHECK_CLOSE(first, radius * std::cos(angle), 2e-6);
    CHECK_CLOSE(second, radius * std::sin(angle), 2e-6);
    sum += static_cast<double>(first) + static_cast<double>(second);
    squares += static_cast<double>(first) * first + static_cast<double>(second) * second;
  }
  const double n = 2.0 * static_cast<double>(draws.size());
  CHECK_CLOSE(sum / n, 0.0, 6.0 / std::sqrt(n));
  CHECK_CLOSE(squares / n, 1.0, 6.0 * std::sqrt(2.0 / n));
}

TEST(math_philox_gives_the_published_vectors) {
  struct Known {
    u32 counter[4], key[2], result[4];
  };
  const Known known[] = {// Random123's kat_vectors, philox4x32 10
                         {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
                         {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
                         {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                          {0xa4093822, 0x299f31d0},
                          {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
  for (const Known& k : known) {
    u32 x[4] = {k.counter[0], k.counter[1], k.counter[2], k.counter[3]};
    philox(x, k.key[0], k.key[1]);
    for (int i = 0; i < 4; ++i) CHECK(x[i] == k.result[i]);
  }
}

TEST(math_noise_thresholds_are_those_of_the_definitions) {
  CHECK(noise_threshold(kMasking, 0.0) == 0 && noise_threshold(kMasking, 1.0) == 65536);
  CHECK(noise_threshold(kMasking, 0.25) == 16384);
  CHECK(noise_threshold(kSwap, 0.1) == 6554);             // 6553.6
  CHECK(noise_threshold(kSaltAndPepper, 0.1) == 6554);    // 2 * 3276.8, rounded
  CHECK(noise_threshold(kSaltAndPepper, 1e-5) % 2 == 0);  // a fair coin
  CHECK(stream_word(kDropout, 3) == 0x20003u);
}

TEST(math_swap_partner_is_every_other_row_alike) {
  for (const int rows : {2, 3, 7, 100}) {
    for (const int row : {0, 1, rows - 1}) {
      std::vector<int> counts(gesda_test::size(rows), 0);
      for (u32 u = 0; u < 65536; ++u) {
        const int partner = swap_partner(row, rows, u);
        CHECK(partner >= 0 && partner < rows);
        ++counts[gesda_test::size(partner)];
      }
      for (int r = 0; r < rows; ++r)
        CHECK_CLOSE(counts[gesda_test::size(r)], r == row ? 0.0 : 65536.0 / (rows - 1), r == row ? 0.0 : 1.0);
    }
  }
}

TEST(math_derivatives_are_the_limits_of_differences) {
  std::mt19937_64 rng = gesda_test::rng();
  constexpr double kStep = 1e-4;
  for (int i = 0; i < 2000; ++i) {
    const double x = draw_float(rng, -5.0f, 5.0f);
    if (std::fabs(x) < 2.0 * kStep) continue;  // relu's corner
    for (const Activation kind : kActivations) {
      const double low = gesda_test::activation(kind, x - kStep), high = gesda_test::activation(kind, x + kStep);
      const double mid = gesda_test::activation(kind, x);
      const float h = static_cast<float>(mid);
      CHECK_CLOSE(derivative(kind, h), (high - low) / (2.0 * kStep), 1e-6);
      CHECK_CLOSE(second_derivative(kind, h), (high - 2.0 * mid + low) / (kStep * kStep), 2e-6);
    }
  }
}

TEST(math_losses_and_their_slopes) {
  std::mt19937_64 rng = gesda_test::rng();
  constexpr double kStep = 1e-5;
  for (int i = 0; i < 5000; ++i) {
    const float a = draw_float(rng, -12.0f, 12.0f),
                x = i % 10 == 0 ? static_cast<float>(i / 10 % 2) : draw_float(rng, 0.0f, 1.0f);
    const auto cross_entropy_at = [x](double at) { return gesda_test::log_one_plus_exp(at) - at * x; };
    float linear, factor, value;
    const float d = cross_entropy(a, x, linear, factor);
    CHECK(factor > 1.0f && factor <= 2.0f);
    CHECK_CLOSE(linear + logarithm(factor), cross_entropy_at(a), 2e-6);
    CHECK_CLOSE(d, (cross_entropy_at(a + kStep) - cross_entropy_at(a - kStep)) / (2.0 * kStep), 1e-6);
    for (const Activation output : kActivations) {
      if (std::fabs(a) < 2.0 * kStep) continue;
      const auto squared_error_at = [x, output](double at) {
        const double residual = gesda_test::activation(output, at) - x;
        return 0.5 * residual * residual;
      };
      const float slope = squared_error(output, a, x, value);
      CHECK_CLOSE(value, squared_error_at(a), 1e-6 * (1.0 + squared_error_at(a)));
      CHECK_CLOSE(slope, (squared_error_at(a + kStep) - squared_error_at(a - kStep)) / (2.0 * kStep), 2e-5);
    }
  }
  float linear, factor;  // far out: no log(0), no overflow
  for (const float a : {-3e38f, -200.0f, 200.0f, 3e38f}) {
    CHECK(std::isfinite(cross_entropy(a, 0.5f, linear, factor)) && std::isfinite(linear) && factor >= 1.0f);
  }
}

TEST(math_sparsity_slope_is_that_of_the_divergence) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int i = 0; i < 2000; ++i) {
    const float mean = draw_float(rng, 0.01f, 0.99f), target = draw_float(rng, 0.01f, 0.99f);
    const auto divergence = [target](double m) {
      return target * std::log(target / m) + (1.0 - target) * std::log((1.0 - target) / (1.0 - m));
    };
    constexpr double kStep = 1e-5;
    const double truth = (divergence(mean + kStep) - divergence(mean - kStep)) / (2.0 * kStep);
    CHECK_CLOSE(sparsity_slope(mean, target), truth, 1e-4 + 2e-6 * std::fabs(truth));
  }
  CHECK(sparsity_slope(0.0f, 0.05f) == sparsity_slope(1e-6f, 0.05f) && std::isfinite(sparsity_slope(0.0f, 0.05f)));
  CHECK(std::isfinite(sparsity_slope(1.0f, 0.05f)) && sparsity_slope(1.0f, 0.05f) > 1e5f);
}

TEST(math_optimisers_follow_their_definitions) {
  std::mt19937_64 rng = gesda_test::rng();
  for (const Optimizer kind : gesda_test::kOptimizers) {
    for (const float nesterov : {0.0f, 1.0f}) {
      UpdateRule rule{kind, 0.05f, 0.9f, nesterov, 0.9f, 0.99f, 1e-8f, 1.0f};
      float p = draw_float(rng, -1.0f, 1.0f), s0 = 0.0f, s1 = 0.0f;
      double p_true = p, s0_true = 0.0, s1_true = 0.0;
      for (int t = 1; t <= 50; ++t) {
        const float g = draw_float(rng, -1.0f, 1.0f);
        if (kind == kAdam) {
          rule.rate = static_cast<float>(0.05 / (1.0 - std::pow(0.9, t)));
          rule.inverse_variance = static_cast<float>(1.0 / (1.0 - std::pow(0.99, t)));
        }
        p = updated(rule, p, g, s0, s1);
        gesda_test::optimize(rule, p_true, g, s0_true, s1_true);
        CHECK_CLOSE(p, p_true, 5e-6);
        CHECK_CLOSE(s0, s0_true, 2e-6);
        CHECK_CLOSE(s1, s1_true, 2e-6);
      }
    }
  }
}

// ---- the variants' lanes ----
// NEON of 32 bits takes subnormal numbers for zero.
static bool is_flushed(float x) {
#if defined(__arm__)
  return x != 0.0f && std::fabs(x) < std::numeric_limits<float>::min();
#else
  static_cast<void>(x);
  return false;
#endif
}

// An encoder with the 1 x 1 weight 1 and no bias is the activation alone; one row of backprop is the derivatives alone.
TEST(math_lanes_of_every_variant_have_the_bits_of_the_scalar_lane) {
  const std::vector<float> numbers = many_numbers(2000);
  const int n = static_cast<int>(numbers.size());
  Rows row(1, n), nothing(1, n);
  row.values = numbers;
  for (const Kernels* kernels : gesda_test::tables()) {
    if (!gesda_test::is_fused(*kernels)) continue;
    const int width = kernels->panel_width;
    const gesda_test::Workspace workspace(*kernels);
    const Guarded zero(Rows(1, 1), width), zeros(Rows(1, n), width), bias = Guarded::vector(row, width);
    const Range all{0, 1, 0, bias.panel_count()};
    for (const Activation kind : kActivations) {
      const Guarded h = Guarded::empty(1, n, width), e(row, width);
      kernels->encode({zero.panels(), 1, n, {zeros.panels(), 1, false}, bias.data(), kind, h.panels(), {}, {}, 1.0f},
                      all, workspace.data());
      const Rows values = h.read();
      for (int i = 0; i < n; ++i) {
        const float x = 0.0f + row(0, i);
        if (!is_flushed(x)) CHECK(same_bits(values(0, i), activate(kind, x)));
      }
      // e = (0 + slope 1) s'(h) + contraction 1 s''(h) s'(h)
      Rows ones(1, n);
      std::fill(ones.values.begin(), ones.values.end(), 1.0f);
      const Guarded one = Guarded::vector(ones, width);
      BackpropTask task{zero.panels(), 1,          n,      {zeros.panels(), 1, false}, kind, h.panels(), e.panels(), {},
                        1.0f,          one.data(), nullptr};
      kernels->backprop(task, all, workspace.data());
      const Rows first = e.read();
      task.contraction = one.data();
      kernels->backprop(task, all, workspace.data());
      const Rows second = e.read();
      for (int i = 0; i < n; ++i) {
        const float value = values(0, i), slope = derivative(kind, value);
        CHECK(same_bits(first(0, i), 1.0f * slope) || std::isnan(slope));
        CHECK(same_bits(second(0, i), mad(1.0f, second_derivative(kind, value), 1.0f) * slope) || std::isnan(slope));
      }
    }
  }
}

TEST(math_lanes_of_a_variant_without_fused_sums_are_as_good) {
  const std::vector<float> numbers = many_numbers(2000);
  const int n = static_cast<int>(numbers.size());
  Rows row(1, n);
  row.values = numbers;
  for (const Kernels* kernels : gesda_test::tables()) {
    const int width = kernels->panel_width;
    const gesda_test::Workspace workspace(*kernels);
    const Guarded zero(Rows(1, 1), width), zeros(Rows(1, n), width), bias = Guarded::vector(row, width);
    for (const Activation kind : kActivations) {
      const Guarded h = Guarded::empty(1, n, width);
      kernels->encode({zero.panels(), 1, n, {zeros.panels(), 1, false}, bias.data(), kind, h.panels(), {}, {}, 1.0f},
                      {0, 1, 0, bias.panel_count()}, workspace.data());
      const Rows values = h.read();
      for (int i = 0; i < n; ++i) {
        const double truth = gesda_test::activation(kind, row(0, i));
        CHECK_CLOSE(values(0, i), truth, 4e-7 * std::min(1.0, std::fabs(truth)) + 1e-37);
      }
    }
  }
}
