// Every kernel that GeSdA launches. GESDA_ARITHMETIC: 0 strict float32, 1 TF32, 2 half precision.
//
// GESDA_PANEL_TILES and GESDA_PANEL_COLUMNS: panels for minibatches of up to 16 GESDA_PANEL_TILES rows.
//
// A launch does the parts of one phase, dealt out over its blocks by the host (gesda/engine/_cuda_records.py).
#include "dense.cuh"
#include "panel.cuh"
#include "pretrain.cuh"

GESDA_KERNEL(256, 2) pretrain(const gesda::Epoch* epoch, int first_part, int last_part, int tick_offset) {
  gesda::pretrain_parts<static_cast<gesda::Arithmetic>(GESDA_ARITHMETIC)>(epoch, first_part, last_part, tick_offset);
}

typedef gesda::PanelShape<GESDA_PANEL_TILES, GESDA_PANEL_COLUMNS> PanelShape;
GESDA_KERNEL(256, 1) panels(const gesda::Epoch* epoch, int first_part, int last_part, int tick_offset) {
  gesda::panel_parts<static_cast<gesda::Arithmetic>(GESDA_ARITHMETIC), PanelShape>(epoch, first_part, last_part,
                                                                                   tick_offset);
}

// The next launches' first tick.
GESDA_KERNEL(256, 2) advance(int* tick, int ticks) {
  if (gesda::thread_index() == 0) *tick += ticks;
}

GESDA_KERNEL(256, 2) dense(const gesda::Pass* pass, int first_part, int last_part, int step_offset) {
  gesda::dense_parts<static_cast<gesda::Arithmetic>(GESDA_ARITHMETIC)>(pass, first_part, last_part, step_offset);
}
