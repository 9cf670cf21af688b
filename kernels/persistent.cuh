// Pretraining with small minibatches in one launch for many ticks: the panels of panel.cuh, W resident on chip.
//
// All blocks are on the device at once (a cooperative launch). Block i owns column panel i of the epoch for as long as
// the launch lasts, and keeps that part of W in its shared memory; only what it has updated goes out, for the row
// panels to read. All other work is dealt out in turn. A tick:
//
//   block       0        1        2       ...                what moves through the second-level cache
//             +--------+--------+--------+
//             | row panels, x~ of the next tick |            W once, in (row panels)
//             +--------+--------+--------+
//   ========================================== all blocks wait
//             | column | column | column |                   W once, out (updates)
//             | panel 0| panel 1| panel 2|  ... x of the tick after the next
//             +--------+--------+--------+
//   ========================================== all blocks wait
//
// Every element is computed as in panel.cuh, by the same functions: the same bits.
#pragma once

#include "panel.cuh"

namespace gesda {

// Waits until all blocks have come here for the `round`-th time (from 1 on) since *arrivals was zero.
GESDA_DEVICE void sync_grid(unsigned* arrivals, unsigned round) {
  sync_block();
  if (thread_index() == 0) {
    publish();
    add_atomic(arrivals, 1);
    while (load_acquire(arrivals) < round * static_cast<unsigned>(block_count())) {
    }
  }
  sync_block();
}

// Ticks from `*epoch->tick` on. Parts 0 to row_parts - 1 are the first phase of a tick, the rest up to last_part its
// second one, which begins with the column panels; there are no more of these than blocks.
template <Arithmetic kArithmetic, class Shape>
GESDA_DEVICE void persistent_ticks(const Epoch* epoch, int row_parts, int last_part, int ticks, unsigned* arrivals) {
  const Part* const parts = epoch->parts;
  const Part own = part_of(parts, row_parts, last_part, block_index());
  const bool owns = own.work == kColumnPanel;
  if (owns) {
    const Panel<Shape> p(epoch->layers[own.layer], block_index() - own.first_block, true, false);
    for (int k0 = 0; k0 < p.layer.n; k0 += kChunk) p.fetch_chunk(k0, p.chunk(k0));
    commit_copies();
    complete_copies();
  }
  const int first_tick = *epoch->tick;
  for (int i = 0; i < 2 * ticks; ++i) {
    const int first = i % 2 == 0 ? 0 : row_parts, last = i % 2 == 0 ? row_parts - 1 : last_part;
    const int blocks = parts[last].first_block + parts[last].blocks;
    for (int block = block_index(); block < blocks; block += block_count()) {
      sync_block();  // nobody reads what the work before has left in shared memory
      const bool is_here = i % 2 == 1 && owns && block == block_index();
      panel_work<kArithmetic, Shape>(*epoch, part_of(parts, first, last, block), block, first_tick + i / 2, is_here);
    }
    sync_grid(arrivals, static_cast<unsigned>(i + 1));
  }
}

}  // namespace gesda
