// Gathering, corrupting and taking out rows, and the head: every SIMD variant against the definitions of
// ARCHITECTURE.md, written again element by element.
#include "cpp/tests/reference.hpp"
#include "harness.hpp"

namespace {

using namespace gesda;
using namespace gesda_test;

constexpr int kTrials = 12;

std::vector<u32> draw_ids(std::mt19937_64& rng, int n, int n_samples) {
  std::vector<u32> ids(size(n));
  for (u32& id : ids) id = static_cast<u32>(draw_int(rng, 0, n_samples - 1));
  return ids;
}

}  // namespace

TEST(minibatches_gather_dense_and_sparse_rows) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < kTrials; ++trial) {
    const int samples = draw_int(rng, 1, 30), columns = draw_int(rng, 1, 150);
    const int row_stride = columns + draw_int(rng, 0, 3);
    const bool sparse = draw_bool(rng), by_id = draw_bool(rng);
    const int first_row = by_id ? 0 : draw_int(rng, 0, samples - 1);
    const int rows = by_id ? draw_int(rng, 1, 60) : draw_int(rng, 1, samples - first_row);
    Rows data(rng, samples, row_stride, -1.0f, 1.0f);
    std::vector<float> values;
    std::vector<std::int64_t> pointers = {0};
    std::vector<std::int32_t> indices;
    for (int s = 0; s < samples; ++s) {
      for (int c = 0; c < columns; ++c) {
        if (sparse && draw_int(rng, 0, 2) != 0) data(s, c) = 0.0f;
        if (data(s, c) == 0.0f) continue;
        values.push_back(data(s, c));
        indices.push_back(c);
      }
      pointers.push_back(static_cast<std::int64_t>(values.size()));
    }
    values.push_back(0.0f);  // never empty: null would mean dense
    indices.push_back(0);
    const std::vector<u32> ids = draw_ids(rng, rows, samples);
    for (const Kernels* kernels : tables()) {
      Guarded out = Guarded::empty(rows, columns, kernels->panel_width);
      const DataRows dense{data.values.data(), size(row_stride), nullptr, nullptr};
      const DataRows csr{values.data(), 0, pointers.data(), indices.data()};
      const GatherTask task{
          sparse ? csr : dense, by_id ? ids.data() : nullptr, size(first_row), columns, out.panels(), nullptr};
      in_pieces(rng, random_cuts(rng, rows, 1, 20), {0, 0}, [&](Range range) {
        out.watch();
        kernels->gather(task, range);
        CHECK(out.only_wrote({range.row_begin, range.row_end, 0, out.panel_count()}));
      });
      CHECK(out.padding_is_zero(0, rows));
      const Rows result = out.read();
      for (int r = 0; r < rows; ++r)
        for (int c = 0; c < columns; ++c)
          CHECK(result(r, c) == data(by_id ? static_cast<int>(ids[size(r)]) : first_row + r, c));
    }
  }
}

TEST(minibatches_scatter_panels_to_rows) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < kTrials; ++trial) {
    const int rows = draw_int(rng, 1, 60), columns = draw_int(rng, 1, 150), row_stride = columns + draw_int(rng, 0, 3);
    const Rows values(rng, rows, columns, -1.0f, 1.0f);
    for (const Kernels* kernels : tables()) {
      const Guarded in(values, kernels->panel_width);
      Rows out(rows + 2, row_stride);  // a row on either side, and the ends of rows, are nobody's
      std::fill(out.values.begin(), out.values.end(), 7.0f);
      const ScatterTask task{in.panels(), columns, &out(1, 0), size(row_stride)};
      in_pieces(rng, random_cuts(rng, rows, 1, 20), {0, 0}, [&](Range range) { kernels->scatter(task, range); });
      CHECK(in.is_untouched());
      for (int r = 0; r < rows + 2; ++r)
        for (int c = 0; c < row_stride; ++c)
          CHECK(out(r, c) == (r >= 1 && r <= rows && c < columns ? values(r - 1, c) : 7.0f));
    }
  }
}

TEST(minibatches_corrupt_as_defined) {
  std::mt19937_64 rng = gesda_test::rng();
  constexpr Noise kNoises[] = {kNone, kMasking, kGaussian, kSaltAndPepper, kSwap};
  for (int trial = 0; trial < 10 * kTrials; ++trial) {
    const Noise kind = kNoises[trial % 5];
    const int rows = draw_int(rng, 0, 5) == 0 ? 1 : draw_int(rng, 1, 40), columns = draw_int(rng, 1, 300);
    const double level = kind == kGaussian ? 0.7 : draw_int(rng, 0, 4) * 0.25;
    const bool counts = kind != kGaussian && kind != kNone && draw_bool(rng),
               in_place = kind == kMasking && draw_bool(rng);
    const float scale = kind == kMasking && draw_bool(rng) ? 1.6f : 1.0f;
    const Philox random{static_cast<u32>(rng()), static_cast<u32>(rng()), static_cast<u32>(rng())};
    const u32 stream = stream_word(kCorruption, draw_int(rng, 0, 9)), partner_stream = stream_word(kPartner, 4);
    const Rows x(rng, rows, columns, -1.0f, 1.0f);
    const std::vector<u32> ids = draw_ids(rng, rows, 1 << 30);
    const u32 threshold = noise_threshold(kind, level);
    std::vector<float> first_fused;
    for (const Kernels* kernels : tables()) {
      const int width = kernels->panel_width, bit_rows = rows + 2;
      Guarded in(x, width, true), separate = Guarded::empty(rows, columns, width);
      Guarded& out = in_place ? in : separate;
      std::vector<u32> words(size(bit_rows) * size(panel_count(columns, 32)), 0xDEADBEEFu);
      const BitMatrix bits{counts ? words.data() : nullptr, bit_rows};
      const CorruptTask task{kind,
                             threshold,
                             static_cast<float>(level),
                             -3.0f,
                             5.0f,
                             scale,
                             random.key0,
                             random.key1,
                             random.epoch,
                             stream,
                             partner_stream,
                             ids.data(),
                             rows,
                             columns,
                             in.panels(),
                             out.panels(),
                             bits};
      in_pieces(rng, random_cuts(rng, rows, 1, 20), {0, 0}, [&](Range range) {
        out.watch();
        kernels->corrupt(task, range);
        CHECK(out.only_wrote({range.row_begin, range.row_end, 0, out.panel_count()}));
      });
      CHECK(in_place || in.is_untouched());
      const Rows noisy = out.read();
      for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < columns; ++c) {
          const u32 id = ids[size(r)];
          const u32 u = random.draw_16(id, stream, c);
          const bool hit = u < threshold;
          const float kept = scale * x(r, c);
          if (counts) CHECK(((words[size(c / 32 * bit_rows + r)] >> (c % 32) & 1u) != 0) == hit);
          if (kind == kNone) CHECK(noisy(r, c) == x(r, c));
          if (kind == kMasking) CHECK(noisy(r, c) == (hit ? 0.0f : kept));
          if (kind == kGaussian) CHECK_CLOSE(noisy(r, c), x(r, c) + 0.7 * random.normal(id, stream, c), 2e-6);
          if (kind == kSaltAndPepper) CHECK(noisy(r, c) == (!hit ? x(r, c) : u % 2 == 1 ? 5.0f : -3.0f));
          if (kind == kSwap) {
            const int from =
                (r + 1 + static_cast<int>(random.draw_16(id, partner_stream, c) * static_cast<u32>(rows - 1) >> 16)) %
                rows;
            CHECK(noisy(r, c) == (hit ? x(from, c) : x(r, c)));
          }
        }
      }
      if (counts)
        for (int block = 0; block < panel_count(columns, 32); ++block)
          for (int r = rows; r < bit_rows; ++r) CHECK(words[size(block * bit_rows + r)] == 0xDEADBEEFu);
      if (is_fused(*kernels)) {
        if (first_fused.empty()) first_fused = noisy.values;
        CHECK(gesda_test::same_bits(first_fused, noisy.values));
      }
    }
  }
}

TEST(minibatches_draw_bits_without_an_output) {  // the masks of dropout between layers
  std::mt19937_64 rng = gesda_test::rng();
  const int rows = draw_int(rng, 1, 20), columns = draw_int(rng, 1, 200);
  const std::vector<u32> ids = draw_ids(rng, rows, 1000);
  const Philox random{1, 2, 3};
  for (const Kernels* kernels : tables()) {
    std::vector<u32> words(size(rows) * size(panel_count(columns, 32)));
    CorruptTask task{};
    task.kind = kMasking;
    task.threshold = 20000;
    task.scale = 1.0f;
    task.key0 = 1, task.key1 = 2, task.epoch = 3;
    task.stream = stream_word(kDropout, 1);
    task.ids = ids.data();
    task.rows = rows, task.columns = columns;
    task.corrupted = {words.data(), rows};
    kernels->corrupt(task, {0, rows, 0, 0});
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < columns; ++c)
        CHECK(((words[size(c / 32 * rows + r)] >> (c % 32) & 1u) != 0) ==
              (random.draw_16(ids[size(r)], stream_word(kDropout, 1), c) < 20000));
  }
}

TEST(minibatches_head_turns_logits_into_outputs_losses_and_slopes) {
  std::mt19937_64 rng = gesda_test::rng();
  for (int trial = 0; trial < 4 * kTrials; ++trial) {
    const Head kind = draw_bool(rng) ? kSoftmax : kLinearHead;
    const bool training = draw_bool(rng), weighs = draw_bool(rng);
    const int rows = draw_int(rng, 1, 40), columns = draw_int(rng, 1, 60), samples = 50;
    const float reach = draw_bool(rng) ? 3.0f : 200.0f;  // far out: no overflow, no log(0)
    const Rows logits(rng, rows, columns, -reach, reach), targets(rng, samples, columns, -1.0f, 1.0f),
        weights(rng, 1, samples, 0.0f, 2.0f);
    const std::vector<u32> ids = draw_ids(rng, rows, samples);
    std::vector<std::int32_t> classes(size(samples));
    for (std::int32_t& c : classes) c = draw_int(rng, 0, columns - 1);
    for (const Kernels* kernels : tables()) {
      Guarded place(logits, kernels->panel_width);
      std::vector<double> slots(size(rows) + 2, -7.0);
      const HeadTask task{kind,
                          place.panels(),
                          columns,
                          ids.data(),
                          classes.data(),
                          targets.values.data(),
                          weighs ? weights.values.data() : nullptr,
                          training ? slots.data() + 1 : nullptr};
      in_pieces(rng, random_cuts(rng, rows, 1, 20), {0, 0}, [&](Range range) {
        place.watch();
        kernels->head(task, range, nullptr);
        CHECK(place.only_wrote({range.row_begin, range.row_end, 0, place.panel_count()}));
      });
      const Rows out = place.read();
      for (int r = 0; r < rows; ++r) {
        const std::size_t id = ids[size(r)];
        const double weight = training && weighs ? weights.values[id] : 1.0;
        double top = -HUGE_VAL, total = 0.0, loss = 0.0;
        for (int c = 0; c < columns; ++c) top = std::max(top, static_cast<double>(logits(r, c)));
        for (int c = 0; c < columns; ++c) total += std::exp(logits(r, c) - top);
        for (int c = 0; c < columns; ++c) {
          const double p = std::exp(logits(r, c) - top) / total, t = targets(static_cast<int>(id), c);
          const bool is_target = training && classes[id] == c;
          double truth = kind == kSoftmax ? p : static_cast<double>(logits(r, c));
          if (training) truth = weight * (kind == kSoftmax ? p - (is_target ? 1.0 : 0.0) : logits(r, c) - t);
          CHECK_CLOSE(out(r, c), truth, kind == kSoftmax ? 2e-6 : 4e-5);
          if (kind == kSoftmax && is_target) loss = std::log(total) + top - logits(r, c);
          if (kind == kLinearHead) loss += 0.5 * std::pow(logits(r, c) - t, 2);
        }
        CHECK_CLOSE(slots[size(r) + 1], training ? weight * loss : -7.0, 1e-5 * (1.0 + loss));
      }
      CHECK(slots.front() == -7.0 && slots.back() == -7.0);
    }
  }
}
