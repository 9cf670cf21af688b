// Every kernel that GeSdA launches. Where to begin reading CUDA here: the wavefront below, then panel.cuh and its picture
// of a panel, then pretrain.cuh for large minibatches; steps.cuh, rows.cuh and product.cuh are what these are made of.
//
// CrossPre: in tick t, layer k does its own step t - k, on the clean encoding that the layer under it has made of the
// same minibatch one tick earlier. So within a tick all layers are independent, and a launch does the work of all.
//
//     tick       0        1        2        3      ...
//     layer 0  step 0   step 1   step 2   step 3          step s of layer k: minibatch s, encoded by layers 0 to k - 1
//     layer 1           step 0   step 1   step 2          with their weights at the start of step s
//     layer 2                    step 0   step 1
//
//     minibatches of up to 112 rows    two launches a tick: row panels, column panels      panel.cuh
//                                      or one launch for many ticks, W stays on chip       persistent.cuh
//     larger ones                      four launches of 64 x 64 tiles                      pretrain.cuh
//     fine-tuning, inference           tiles, a launch a layer                             dense.cuh
//
// They are compiled in modules, one by one:
//
//   GESDA_MODULE       0 tiles of pretraining, 1 panels, 2 persistent panels, 3 fine-tuning and inference
//   GESDA_ARITHMETIC   0 strict float32, 1 TF32, 2 half precision
//   GESDA_PANEL_TILES, GESDA_PANEL_COLUMNS   modules 1 and 2: panels for minibatches of up to 16 GESDA_PANEL_TILES rows
//
// A launch does the parts of one phase, dealt out over its blocks by the host (gesda/engine/cuda/device.py, Phases).
#include "dense.cuh"
#include "persistent.cuh"

constexpr gesda::Arithmetic kArithmetic = static_cast<gesda::Arithmetic>(GESDA_ARITHMETIC);
#if GESDA_MODULE == 1 || GESDA_MODULE == 2
typedef gesda::PanelShape<GESDA_PANEL_TILES, GESDA_PANEL_COLUMNS> PanelShape;
#endif

#if GESDA_MODULE == 0
GESDA_KERNEL(256, 2) tiles(const gesda::Epoch* epoch, int first_part, int last_part, int tick_offset) {
  gesda::pretrain_parts<kArithmetic>(epoch, first_part, last_part, tick_offset);
}
#elif GESDA_MODULE == 1
GESDA_KERNEL(256, 1) panels(const gesda::Epoch* epoch, int first_part, int last_part, int tick_offset) {
  gesda::panel_parts<kArithmetic, PanelShape>(epoch, first_part, last_part, tick_offset);
}
#elif GESDA_MODULE == 2
GESDA_KERNEL(256, 1)
persistent(const gesda::Epoch* epoch, int row_parts, int last_part, int ticks, unsigned* arrivals) {
  gesda::persistent_ticks<kArithmetic, PanelShape>(epoch, row_parts, last_part, ticks, arrivals);
}
#else
GESDA_KERNEL(256, 2) dense(const gesda::Pass* pass, int first_part, int last_part, int step_offset) {
  gesda::dense_parts<kArithmetic>(pass, first_part, last_part, step_offset);
}
#endif

// After a launch or a graph of so many ticks: the next one's first tick, and nobody has arrived there.
GESDA_KERNEL(256, 2) advance(int* tick, int ticks, unsigned* arrivals) {
  if (gesda::thread_index() != 0) return;
  *tick += ticks;
  *arrivals = 0;
}
