// Minibatches: gathering rows into panels, corrupting them, and taking results out of panels.
#pragma once

#include <cstring>

#include "cpp/src/variants/products.hpp"

namespace gesda {
namespace GESDA_VARIANT {

constexpr int kCounters = 16;  // Philox counters used at a time
constexpr int kHalf = kLanes < 8 ? kLanes : 8;

GESDA_FN float* at(Panels m, int row, int column) {
  return m.data + static_cast<std::size_t>(column / kPanel) * m.stride + static_cast<std::size_t>(row) * kPanel +
         column % kPanel;
}

// Runs Philox over kCounters neighbouring blocks and hands its four words to `take(part, words)`.
template <class Take>
GESDA_FN void draw(const CorruptTask& task, u32 sample, u32 stream, u32 block0, const Take& take) {
  for (int part = 0; part < kCounters / kLanes; ++part) {
    U x[4] = {U(sample), U(block0 + static_cast<u32>(part * kLanes)) + lane_numbers(), U(task.epoch), U(stream)};
    philox(x, task.key0, task.key1);
    take(part * kLanes, x);
  }
}
// Lane c of a part that starts at counter `counter` belongs to column (c / 8) * columns_per_block + offset + c % 8.
template <class Vector>
GESDA_FN void spread(const Vector& v, int counter, int columns_per_block, int offset, void* out) {
  for (int half = 0; half < kLanes / kHalf; ++half) {
    const int c = counter + half * kHalf;
    std::memcpy(static_cast<char*>(out) + 4 * ((c / 8) * columns_per_block + offset + c % 8),
                reinterpret_cast<const char*>(&v) + 4 * half * kHalf, 4 * kHalf);
  }
}
// 16-bit draws for the 128 columns from column0, a multiple of 128.
inline void draw_16(const CorruptTask& task, u32 sample, u32 stream, int column0, u32* out) {
  draw(task, sample, stream, static_cast<u32>(column0 / 8), [&](int counter, const U(&x)[4]) {
    for (int w = 0; w < 4; ++w) {
      spread((x[w] & U(0xFFFFu)).v, counter, 64, 16 * w, out);
      spread((x[w] >> 16).v, counter, 64, 16 * w + 8, out);
    }
  });
}
// Standard normals for the 64 columns from column0, a multiple of 64.
inline void draw_normals(const CorruptTask& task, u32 sample, int column0, float* out) {
  draw(task, sample, task.stream, static_cast<u32>(column0 / 4), [&](int counter, const U(&x)[4]) {
    for (int w = 0; w < 4; w += 2) {
      F first, second;
      normal_pair(x[w], x[w + 1], first, second);
      spread(first.v, counter, 32, 8 * w, out);
      spread(second.v, counter, 32, 8 * w + 8, out);
    }
  });
}

inline void corrupt_gaussian_row(const CorruptTask& task, int row) {
  alignas(64) float normals[64];
  for (int c0 = 0; c0 < task.columns; c0 += 64) {
    draw_normals(task, task.ids[row], c0, normals);
    const int end = smaller(64, panels_of(task.columns - c0) * kPanel);
    for (int c = 0; c < end; c += kLanes)
      store(at(task.out, row, c0 + c), mad(F(task.level), load(normals + c), load(at(task.in, row, c0 + c))));
  }
}

inline void corrupt_row(const CorruptTask& task, int row) {
  alignas(64) u32 draws[128];
  alignas(64) u32 partners[128];
  const u32 sample = task.ids[row];
  for (int c0 = 0; c0 < task.columns; c0 += 128) {
    draw_16(task, sample, task.stream, c0, draws);
    if (task.kind == kSwap) draw_16(task, sample, task.partner_stream, c0, partners);
    const int end = smaller(128, panels_of(task.columns - c0) * kPanel);
    u32 word = 0;
    for (int c = 0; c < end; c += kLanes) {
      const U u = load_words(draws + c);
      const Mask hit = less(u, U(task.threshold));
      if (task.corrupted.words != nullptr) {
        word |= bits_of_lanes(hit) << (c % 32);
        if ((c + kLanes) % 32 == 0 || c + kLanes >= end) {
          task.corrupted.words[static_cast<std::size_t>((c0 + c) / 32) * task.corrupted.rows + row] = word;
          word = 0;
        }
      }
      if (task.out.data == nullptr) continue;
      const F x = load(at(task.in, row, c0 + c));
      F noisy = pick(hit, F(0.0f), F(task.scale) * x);
      if (task.kind == kSaltAndPepper) {
        const Mask coin = less(U(0u), u & U(1u));
        noisy = pick(hit, pick(coin, F(task.high), F(task.low)), x);
      } else if (task.kind == kSwap) {
        noisy = x;
      }
      store(at(task.out, row, c0 + c), noisy);
      if (task.kind == kSwap && task.rows > 1) {
        for (u32 lanes = bits_of_lanes(hit); lanes != 0; lanes &= lanes - 1) {
          const int column = c + __builtin_ctz(lanes);
          *at(task.out, row, c0 + column) = *at(task.in, swap_partner(row, task.rows, partners[column]), c0 + column);
        }
      }
    }
  }
}

inline void corrupt(const CorruptTask& task, Range range) {
  const int panels = panels_of(task.columns);
  for (int row = range.row_begin; row < range.row_end; ++row) {
    if (task.kind == kGaussian) {
      corrupt_gaussian_row(task, row);
    } else if (task.kind != kNone) {
      corrupt_row(task, row);
    } else {
      for (int p = 0; p < panels; ++p)
        std::memcpy(at(task.out, row, p * kPanel), at(task.in, row, p * kPanel), sizeof(float) * kPanel);
    }
  }
}

inline void gather_sparse_row(const GatherTask& task, std::size_t sample, int row) {
  const int panels = panels_of(task.columns);
  for (int p = 0; p < panels; ++p) std::memset(at(task.out, row, p * kPanel), 0, sizeof(float) * kPanel);
  for (std::int64_t i = task.data.row_pointers[sample]; i < task.data.row_pointers[sample + 1]; ++i)
    *at(task.out, row, task.data.column_indices[i]) = task.data.values[i];
}

// Whole rows: the range's panels are not looked at.
inline void gather_rows(const GatherTask& task, Range range) {
  const int full = task.columns / kPanel, rest = task.columns % kPanel;
  for (int row = range.row_begin; row < range.row_end; ++row) {
    const std::size_t sample = task.ids ? task.ids[row] : task.first_row + static_cast<std::size_t>(row);
    if (task.data.column_indices != nullptr) {
      gather_sparse_row(task, sample, row);
      continue;
    }
    const float* in = task.data.values + sample * task.data.row_stride;
    for (int p = 0; p < full; ++p) {
      float* out = at(task.out, row, p * kPanel);
      for (int i = 0; i < kPanel; i += kLanes) store(out + i, load_any(in + p * kPanel + i));
    }
    if (rest != 0) {
      float* out = at(task.out, row, full * kPanel);
      std::memset(out, 0, sizeof(float) * kPanel);
      std::memcpy(out, in + full * kPanel, sizeof(float) * static_cast<std::size_t>(rest));
    }
  }
}

inline void gather(const GatherTask& task, Range range) {
  gather_rows(task, range);
  if (task.corrupt != nullptr) corrupt(*task.corrupt, range);
}

inline void scatter(const ScatterTask& task, Range range) {
  for (int row = range.row_begin; row < range.row_end; ++row) {
    float* out = task.out + static_cast<std::size_t>(row) * task.row_stride;
    for (int c = 0; c < task.columns; c += kPanel)
      std::memcpy(out + c, at(task.in, row, c),
                  sizeof(float) * static_cast<std::size_t>(smaller(kPanel, task.columns - c)));
  }
}

}  // namespace GESDA_VARIANT
}  // namespace gesda
