// The emulator has to run right kernels and to find wrong ones: a product of matrices in tensor cores, with its
// operands copied asynchronously through two buffers, and the same kernel with one mistake each.
#include <algorithm>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "cpp/tests/harness.hpp"
#include "kernels/device.cuh"

namespace {

using gesda::block_index;
using gesda::thread_index;

enum Mistake {
  kNoMistake,
  kNoWait,            // reads what is still being copied
  kNoBarrierAfter,    // reads what other threads still copy
  kNoBarrierBefore,   // copies over what other threads still read
  kWrongBuffer,       // reads the other buffer
  kLateWait,          // lets one more copy be on its way than there are buffers for
  kUninitialised,     // sums over a chunk that was never copied
  kHalfABarrier,      // one warp does not come
  kDivergentBarrier,  // the warps come to different barriers
  kHalfAWarp,         // part of a warp does not come to the product
  kEndsWithCopies,
  kMisaligned,
};

constexpr int kTile = 16, kChunk = 16, kThreads = 64;

// c = a b, row-major, a (16 blocks, depth), b (depth, 16): a block makes 16 rows, each of its two warps 8 columns.
template <int kMistake>
void multiply(const float* a, const float* b, float* c, int depth) {
  float* const shared = static_cast<float*>(gesda::shared_memory());
  const int warp = thread_index() / 32, lane = thread_index() % 32, g = lane / 4, t = lane % 4;
  const int chunks = depth / kChunk + (kMistake == kUninitialised ? 1 : 0);
  const auto buffer = [&](int chunk) { return shared + chunk % 2 * 2 * kTile * kChunk; };
  const auto fetch = [&](int chunk) {
    if (chunk < depth / kChunk) {
      const int row = thread_index() / 4, column = thread_index() % 4 * 4;
      float* const to = buffer(chunk) + row * kChunk + column + (kMistake == kMisaligned ? 1 : 0);
      gesda::copy_async(to, a + (block_index() * kTile + row) * depth + chunk * kChunk + column, true);
      gesda::copy_async(to + kTile * kChunk, b + (chunk * kChunk + row) * kTile + column, true);
    }
    gesda::commit_copies();
  };
  float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  fetch(0);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    fetch(chunk + 1);
    if (kMistake != kNoWait) gesda::wait_for_copies<kMistake == kLateWait ? 2 : 1>();
    if (kMistake == kHalfABarrier && chunk == 1 && warp == 0) {
      gesda::wait_for_copies<0>();
      return;
    }
    if (kMistake == kDivergentBarrier && warp == 1) gesda::sync_block();
    if (kMistake != kNoBarrierAfter && !(kMistake == kDivergentBarrier && warp == 1)) gesda::sync_block();
    const float* const x = buffer(chunk + (kMistake == kWrongBuffer ? 1 : 0));
    const float* const y = x + kTile * kChunk + warp * 8;
    for (int k = 0; k < kChunk; k += 8) {
      const unsigned xs[4] = {gesda::to_tf32(x[g * kChunk + k + t]), gesda::to_tf32(x[(g + 8) * kChunk + k + t]),
                              gesda::to_tf32(x[g * kChunk + k + t + 4]),
                              gesda::to_tf32(x[(g + 8) * kChunk + k + t + 4])};
      const unsigned ys[2] = {gesda::to_tf32(y[(k + t) * kTile + g]), gesda::to_tf32(y[(k + t + 4) * kTile + g])};
      if (kMistake == kHalfAWarp && lane == 7) break;
      gesda::multiply_tf32(sums, xs, ys);
    }
    if (kMistake != kNoBarrierBefore) gesda::sync_block();
  }
  if (kMistake != kEndsWithCopies) gesda::wait_for_copies<0>();
  for (int i = 0; i < 4; ++i) c[(block_index() * kTile + g + i / 2 * 8) * kTile + warp * 8 + 2 * t + i % 2] = sums[i];
}

struct Problem {
  int blocks, depth;
  std::vector<float> a, b;

  explicit Problem(std::mt19937_64& rng)
      : blocks(1 + static_cast<int>(rng() % 5)), depth(kChunk * (2 + static_cast<int>(rng() % 4))) {
    a.resize(static_cast<std::size_t>(blocks * kTile * depth) + 4);
    b.resize(static_cast<std::size_t>(depth * kTile) + 4);
    // TF32 holds these numbers and their products' sums exactly.
    for (std::vector<float>* values : {&a, &b})
      for (float& value : *values) value = static_cast<float>(static_cast<int>(rng() % 31) - 15);
  }
  // std::vector's memory is aligned to 16 bytes.
  template <int kMistake>
  std::vector<float> run(std::uint64_t seed) const {
    std::vector<float> c(static_cast<std::size_t>(blocks * kTile * kTile), std::nanf(""));
    emulator::launch({blocks, kThreads, 4 * kTile * kChunk * sizeof(float)}, false, seed,
                     [&] { multiply<kMistake>(a.data(), b.data(), c.data(), depth); });
    return c;
  }
  std::vector<float> expected() const {
    std::vector<float> c;
    for (int row = 0; row < blocks * kTile; ++row)
      for (int column = 0; column < kTile; ++column) {
        double sum = 0.0;
        for (int k = 0; k < depth; ++k)
          sum += static_cast<double>(a[static_cast<std::size_t>(row * depth + k)]) *
                 static_cast<double>(b[static_cast<std::size_t>(k * kTile + column)]);
        c.push_back(static_cast<float>(sum));
      }
    return c;
  }
};

// Whether one of a few seeds shows the mistake, by an error or by a wrong number.
template <int kMistake>
bool is_found(std::mt19937_64& rng, std::string* message = nullptr) {
  for (int trial = 0; trial < 20; ++trial) {
    const Problem problem(rng);
    try {
      if (problem.run<kMistake>(rng()) != problem.expected()) return true;
    } catch (const std::runtime_error& error) {
      if (message != nullptr) *message = error.what();
      return true;
    }
  }
  return false;
}

}  // namespace

TEST(a_right_kernel_gives_the_product_whatever_the_order) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < 20; ++trial) {
    const Problem problem(rng);
    CHECK(problem.run<kNoMistake>(rng()) == problem.expected());
  }
}

TEST(mistakes_in_copies_and_barriers_are_found) {
  std::mt19937_64 rng = gesda_test::rng();
  CHECK(!is_found<kNoMistake>(rng));
  CHECK(is_found<kNoWait>(rng));
  CHECK(is_found<kNoBarrierAfter>(rng));
  CHECK(is_found<kNoBarrierBefore>(rng));
  CHECK(is_found<kWrongBuffer>(rng));
  CHECK(is_found<kLateWait>(rng));
  CHECK(is_found<kUninitialised>(rng));
}

TEST(mistakes_have_clear_messages) {
  std::mt19937_64 rng = gesda_test::rng();
  const auto message_of = [&](auto mistake) {
    std::string message = "nothing found";
    CHECK(is_found<decltype(mistake)::value>(rng, &message));
    return message;
  };
  const auto says = [](const std::string& message, const char* what) {
    const bool said = message.find(what) != std::string::npos;
    if (!said) std::fprintf(stderr, "  the message was: %s\n", message.c_str());
    return said;
  };
  CHECK(says(message_of(std::integral_constant<int, kHalfABarrier>{}), "barrier"));
  CHECK(says(message_of(std::integral_constant<int, kDivergentBarrier>{}), "a barrier diverges"));
  CHECK(says(message_of(std::integral_constant<int, kHalfAWarp>{}), "test_emulator.cpp"));
  CHECK(says(message_of(std::integral_constant<int, kEndsWithCopies>{}), "has not waited for"));
  CHECK(says(message_of(std::integral_constant<int, kMisaligned>{}), "not aligned"));
}

namespace {

// Each block adds up what all blocks have written before a barrier over the grid. `kBroken`: without the barrier.
template <bool kBroken>
void sum_over_blocks(float* values, float* sums, unsigned* counter) {
  const int blocks = gesda::block_count();
  if (thread_index() == 0) values[block_index()] = static_cast<float>(block_index() + 1);
  if (!kBroken) {
    gesda::sync_block();
    if (thread_index() == 0) {
      gesda::publish();
      gesda::add_atomic(counter, 1);
      while (gesda::load_acquire(counter) < static_cast<unsigned>(blocks)) {
      }
    }
    gesda::sync_block();
  }
  float sum = 0.0f;
  for (int i = thread_index(); i < blocks; i += 32) sum += gesda::load_shared_by_blocks(values + i);
  for (int mask = 16; mask > 0; mask /= 2) sum += gesda::shuffle_xor(sum, mask);
  if (thread_index() == 0) sums[block_index()] = sum;
}

template <bool kBroken>
bool sums_are_right(int blocks, bool cooperative, std::uint64_t seed) {
  const std::size_t n = static_cast<std::size_t>(blocks);
  std::vector<float> values(n, std::nanf("")), sums(n, std::nanf(""));
  unsigned counter = 0;
  emulator::launch({blocks, 32, 0}, cooperative, seed,
                   [&] { sum_over_blocks<kBroken>(values.data(), sums.data(), &counter); });
  return sums == std::vector<float>(n, static_cast<float>(blocks * (blocks + 1) / 2));
}

}  // namespace

TEST(blocks_of_a_cooperative_launch_meet_at_a_grid_barrier) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < 10; ++trial) CHECK(sums_are_right<false>(2 + static_cast<int>(rng() % 40), true, rng()));
  CHECK(!sums_are_right<true>(20, true, rng()));
}

TEST(a_grid_barrier_without_a_cooperative_launch_is_an_error_and_no_endless_loop) {
  std::string message;
  try {
    sums_are_right<false>(20, false, 0);
  } catch (const std::runtime_error& error) {
    message = error.what();
  }
  CHECK(message == "blocks wait for each other for ever");
}

// The half-precision number nearest to x, ties to even.
static double nearest_half(double x) {
  if (std::fabs(x) >= 65520.0) return std::copysign(INFINITY, x);  // halfway to what would follow the greatest one
  const int exponent = std::max(-14, x == 0.0 ? -14 : std::ilogb(x));
  return std::ldexp(std::nearbyint(std::ldexp(x, 10 - exponent)), exponent - 10);
}

TEST(half_precision_products_are_those_of_rounded_operands) {
  std::mt19937_64 rng = gesda_test::rng();
  std::normal_distribution<float> normal(0.0f, 3.0f);
  float a[16][8], b[8][8], c[16][8];
  for (auto& row : a)
    for (float& value : row) value = normal(rng);
  for (auto& row : b)
    for (float& value : row) value = normal(rng) * 1e-6f;  // some below the normal numbers of half precision
  emulator::launch({1, 32, 0}, false, rng(), [&] {
    const int g = thread_index() / 4, t = thread_index() % 4;
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    const unsigned x[2] = {gesda::pack_f16(a[g][2 * t], a[g][2 * t + 1]),
                           gesda::pack_f16(a[g + 8][2 * t], a[g + 8][2 * t + 1])};
    gesda::multiply_f16(sums, x, gesda::pack_f16(b[2 * t][g], b[2 * t + 1][g]));
    for (int i = 0; i < 4; ++i) c[g + i / 2 * 8][2 * t + i % 2] = sums[i];
  });
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 8; ++column) {
      double sum = 0.0, size = 0.0;
      for (int k = 0; k < 8; ++k) {
        const double x = nearest_half(static_cast<double>(a[row][k]));
        const double y = nearest_half(static_cast<double>(b[k][column]));
        sum += x * y;
        size += std::fabs(x * y);
      }
      CHECK_CLOSE(c[row][column], sum, 1e-6 * size);
    }
}

TEST(numbers_are_rounded_as_the_device_rounds_them) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < 100000; ++trial) {
    const float value = gesda::word_as_float(static_cast<unsigned>(rng()));
    if (std::isnan(value)) {
      CHECK(std::isnan(gesda::half_as_float(gesda::float_as_half(value))));
      CHECK(std::isnan(gesda::word_as_float(gesda::to_tf32(value))));
      continue;
    }
    CHECK(static_cast<double>(gesda::half_as_float(gesda::float_as_half(value))) ==
          nearest_half(static_cast<double>(value)));
    const float tf32 = gesda::word_as_float(gesda::to_tf32(value));
    CHECK(std::isinf(tf32) || std::fabs(tf32 - value) <= std::ldexp(std::fabs(value), -11) + 1e-41f);
  }
}
