// Tiles of products (kernels/product.cuh) against float64: every layout and arithmetic, ragged shapes, two products in
// one sum.
#include <algorithm>
#include <string>
#include <vector>

#include "cpp/tests/harness.hpp"
#include "kernels/product.cuh"

namespace {

using gesda::Arithmetic;
using gesda::Operand;

// A matrix in an allocation of just its size, as the kernels ask for it: rows end in zeros up to a multiple of four.
struct Stored {
  int rows, columns, stride;
  std::vector<float> values;

  Stored(int n_rows, int n_columns, std::mt19937_64& rng)
      : rows(n_rows), columns(n_columns), stride((n_columns + 3) / 4 * 4 + 4 * static_cast<int>(rng() % 3)) {
    values.assign(static_cast<std::size_t>((rows - 1) * stride + (columns + 3) / 4 * 4), std::nanf(""));
    std::normal_distribution<float> normal;
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < (columns + 3) / 4 * 4; ++c)
        values[static_cast<std::size_t>(r * stride + c)] = c < columns ? normal(rng) : 0.0f;
  }
  float at(int r, int c) const { return values[static_cast<std::size_t>(r * stride + c)]; }
};

template <Arithmetic kArithmetic, bool kDeepA, bool kDeepB>
void check_product(std::mt19937_64& rng) {
  const int rows = 1 + static_cast<int>(rng() % 150), columns = 1 + static_cast<int>(rng() % 150);
  const int depths[2] = {1 + static_cast<int>(rng() % 200), static_cast<int>(rng() % 40)};
  std::vector<Stored> a, b;
  for (const int depth : depths) {
    const int real = std::max(depth, 1);
    a.emplace_back(kDeepA ? rows : real, kDeepA ? real : rows, rng);
    b.emplace_back(kDeepB ? columns : real, kDeepB ? real : columns, rng);
  }
  std::vector<float> c(static_cast<std::size_t>(rows * columns), std::nanf(""));
  const int tiles_across = (columns + gesda::kTileColumns - 1) / gesda::kTileColumns;
  const int tiles = tiles_across * ((rows + gesda::kTileRows - 1) / gesda::kTileRows);
  emulator::launch({tiles, gesda::kThreads, gesda::kProductBytes}, false, rng(), [&] {
    const int row0 = gesda::block_index() / tiles_across * gesda::kTileRows;
    const int column0 = gesda::block_index() % tiles_across * gesda::kTileColumns;
    gesda::TileSums sums{};
    for (std::size_t i = 0; i < 2; ++i)
      gesda::add_product<kArithmetic, kDeepA, kDeepB>({a[i].values.data(), a[i].stride, rows},
                                                      {b[i].values.data(), b[i].stride, columns}, row0, column0,
                                                      depths[i], sums);
    gesda::for_each_sum(sums, row0, column0, [&](int row, int column, float sum) {
      if (row < rows && column < columns) c[static_cast<std::size_t>(row * columns + column)] = sum;
    });
  });
  // Of an operand's relative rounding error, twice; of the sum, float32's.
  const double precision = kArithmetic == gesda::kStrict ? 1e-6 : 1.01 * std::ldexp(1.0, -10);
  for (int row = 0; row < rows; ++row)
    for (int column = 0; column < columns; ++column) {
      double sum = 0.0, size = 0.0;
      for (std::size_t i = 0; i < 2; ++i)
        for (int k = 0; k < depths[i]; ++k) {
          const double x = kDeepA ? a[i].at(row, k) : a[i].at(k, row),
                       y = kDeepB ? b[i].at(column, k) : b[i].at(k, column);
          sum += x * y;
          size += std::fabs(x * y);
        }
      CHECK_CLOSE(c[static_cast<std::size_t>(row * columns + column)], sum, precision * size + 1e-6);
    }
}

template <Arithmetic kArithmetic>
void check_layouts() {
  std::mt19937_64 rng = gesda_test::rng();
  check_product<kArithmetic, true, false>(rng);   // encode: x W
  check_product<kArithmetic, true, true>(rng);    // decode: h W.T
  check_product<kArithmetic, false, false>(rng);  // update: x.T e
  check_product<kArithmetic, false, true>(rng);
}

}  // namespace

TEST(products_in_strict_float32) { check_layouts<gesda::kStrict>(); }
TEST(products_in_tf32) { check_layouts<gesda::kTf32>(); }
TEST(products_in_half_precision) { check_layouts<gesda::kHalf>(); }
