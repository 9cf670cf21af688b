// Rows of minibatches: taken from the data, and corrupted.
#pragma once

#include "device.cuh"
#include "records.cuh"

namespace gesda {

constexpr int kThreads = 256;

GESDA_DEVICE int round_up(int n, int to) { return (n + to - 1) / to * to; }
GESDA_DEVICE long long offset(int row, int stride, int column) { return static_cast<long long>(row) * stride + column; }

// ---- the data ----
// Value number `at` of dense data.
GESDA_DEVICE float value_of(const Source& source, long long at) {
  switch (source.storage) {
    case kFloat16: return from_f16(static_cast<const unsigned short*>(source.values)[at]);
    case kUint8: return static_cast<float>(static_cast<const unsigned char*>(source.values)[at]);
    default: return static_cast<const float*>(source.values)[at];
  }
}

// A minibatch's rows of the data, `columns` wide, zero from there to a multiple of 4. Its first row is visit number
// `first` of the epoch; `ids` are its samples, null: all samples in their order.
GESDA_DEVICE void gather_rows(const Source& source, const u32* ids, long long first, int rows, int columns, int stride,
                              int block, int blocks, float* out) {
  for (int row = block; row < rows; row += blocks) {
    const long long visit = first + row;
    const long long at = source.ring > 0 ? visit % source.ring : ids != nullptr ? ids[row] : visit;
    float* const to = out + offset(row, stride, 0);
    const bool sparse = source.row_starts != nullptr;
    for (int column = thread_index(); column < round_up(columns, 4); column += kThreads)
      to[column] = sparse || column >= columns ? 0.0f : value_of(source, at * source.stride + column);
    if (!sparse) continue;
    sync_block();
    for (long long i = source.row_starts[at] + thread_index(); i < source.row_starts[at + 1]; i += kThreads)
      to[source.columns[i]] = value_of(source, i);
  }
}

// ---- noise ----
// A counter of Philox serves 8 columns with 16 bits each, or 4 with a normal each. Columns of one counter lie 8 apart,
// so that 8 neighbouring counters fill neighbouring columns (the layout that ARCHITECTURE.md, "Noise", defines).
GESDA_DEVICE int column_of_draw(int counter, int draw) { return counter / 8 * 64 + counter % 8 + 8 * draw; }
GESDA_DEVICE int column_of_normal(int counter, int draw) { return counter / 8 * 32 + counter % 8 + 8 * draw; }

struct Draws {
  u32 words[4];
  GESDA_DEVICE u32 bits16(int i) const { return words[i / 2] >> i % 2 * 16 & 0xFFFFu; }
};
GESDA_DEVICE Draws draw(const NoiseKey& key, u32 sample, int counter, u32 stream) {
  Draws draws{{sample, static_cast<u32>(counter), key.epoch, stream}};
  philox(draws.words, key.key0, key.key1);
  return draws;
}

GESDA_DEVICE void corrupt_with_normals(const NoiseKey& key, const Layer& layer, u32 sample, int counter,
                                       const float* clean, float* noisy) {
  const Draws draws = draw(key, sample, counter, layer.stream);
  float normals[4];
  normal_pair(draws.words[0], draws.words[1], normals[0], normals[1]);
  normal_pair(draws.words[2], draws.words[3], normals[2], normals[3]);
  for (int i = 0; i < 4; ++i) {
    const int column = column_of_normal(counter, i);
    if (column < layer.n) noisy[column] = mad(layer.level, normals[i], clean[column]);
  }
}

// `x`: the whole minibatch, for the rows that swapped values come from.
GESDA_DEVICE void corrupt_with_bits(const NoiseKey& key, const Layer& layer, const u32* ids, int rows, int row,
                                    int counter, const float* x, float* noisy, unsigned char* corrupted) {
  const Draws draws = draw(key, ids[row], counter, layer.stream);
  Draws partners{};
  if (layer.noise == kSwap) partners = draw(key, ids[row], counter, layer.partner_stream);
  for (int i = 0; i < 8; ++i) {
    const int column = column_of_draw(counter, i);
    if (column >= layer.n) continue;
    const u32 u = draws.bits16(i);
    const bool hit = u < layer.threshold;
    float value = x[offset(row, layer.n_stride, column)];
    if (corrupted != nullptr) corrupted[column] = hit ? 1 : 0;
    if (hit) {
      switch (layer.noise) {
        case kMasking: value = 0.0f; break;
        case kSaltAndPepper: value = (u & 1u) != 0 ? layer.high : layer.low; break;
        case kSwap: {
          const int partner = rows > 1 ? swap_partner(row, rows, partners.bits16(i)) : row;
          value = x[offset(partner, layer.n_stride, column)];
          break;
        }
        default: break;
      }
    }
    noisy[column] = value;
  }
}

GESDA_DEVICE void corrupt_rows(const NoiseKey& key, const Layer& layer, const u32* ids, int rows, int block, int blocks,
                               const float* x, float* noisy, unsigned char* corrupted) {
  const bool normal = layer.noise == kGaussian;
  const int counters = normal ? round_up(layer.n, 32) / 4 : round_up(layer.n, 64) / 8;
  for (int row = block; row < rows; row += blocks) {
    const float* const clean = x + offset(row, layer.n_stride, 0);
    float* const out = noisy + offset(row, layer.n_stride, 0);
    if (layer.noise == kNone) {
      for (int column = thread_index(); column < layer.n; column += kThreads) out[column] = clean[column];
      continue;
    }
    for (int counter = thread_index(); counter < counters; counter += kThreads) {
      if (normal)
        corrupt_with_normals(key, layer, ids[row], counter, clean, out);
      else
        corrupt_with_bits(key, layer, ids, rows, row, counter, x, out,
                          corrupted != nullptr ? corrupted + offset(row, layer.n_stride, 0) : nullptr);
    }
  }
}

// Dropout's mask of a row: which columns are dropped, as bytes.
GESDA_DEVICE void draw_mask_row(const NoiseKey& key, u32 threshold, u32 stream, u32 sample, int columns,
                                unsigned char* dropped) {
  for (int counter = thread_index(); counter < round_up(columns, 64) / 8; counter += kThreads) {
    const Draws draws = draw(key, sample, counter, stream);
    for (int i = 0; i < 8; ++i) {
      const int column = column_of_draw(counter, i);
      if (column < columns) dropped[column] = draws.bits16(i) < threshold ? 1 : 0;
    }
  }
}

}  // namespace gesda
