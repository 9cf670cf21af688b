// The kernels on the emulator as a shared library with a C interface, for tests/emulator/emulated.py.
#include <cstdio>
#include <stdexcept>

#include "kernels/dense.cuh"
#include "kernels/persistent.cuh"

#define GESDA_MODULE 0
namespace tiles_module {
#include "kernels/kernels.cu"
}
#undef GESDA_MODULE
#define GESDA_MODULE 1
namespace panels_module {
#include "kernels/kernels.cu"
}
#undef GESDA_MODULE
#define GESDA_MODULE 2
namespace persistent_module {
#include "kernels/kernels.cu"
}
#undef GESDA_MODULE
#define GESDA_MODULE 3
namespace dense_module {
#include "kernels/kernels.cu"
}

#define EXPORTED extern "C" __attribute__((visibility("default")))

// What gesda/engine/cuda/records.py takes for granted: sizes of records, then constants.
EXPORTED void record_sizes(int* sizes) {
  sizes[0] = sizeof(gesda::Layer);
  sizes[1] = sizeof(gesda::Part);
  sizes[2] = sizeof(gesda::Epoch);
  sizes[3] = sizeof(gesda::Dense);
  sizes[4] = sizeof(gesda::Pass);
  sizes[5] = sizeof(gesda::Source);
  sizes[6] = gesda::kThreads;
  sizes[7] = gesda::kTileRows;
  sizes[8] = gesda::kProductBytes;
  sizes[9] = 4 * panels_module::PanelShape::kFloats;
  sizes[10] = gesda::kChunk;
}

// How a launch is made, and room for what goes wrong in it.
struct Launch {
  int blocks, shared_bytes, cooperative, message_size;
  unsigned long long seed;
  char* message;
};

template <class Kernel>
static int run(const Launch* launch, const Kernel& kernel) {
  try {
    emulator::launch({launch->blocks, gesda::kThreads, static_cast<std::size_t>(launch->shared_bytes)},
                     launch->cooperative != 0, launch->seed, kernel);
  } catch (const std::exception& error) {
    std::snprintf(launch->message, static_cast<std::size_t>(launch->message_size), "%s", error.what());
    return 1;
  }
  return 0;
}

// 0, or 1 with a message.
EXPORTED int launch_tiles(const Launch* launch, const gesda::Epoch* epoch, int first_part, int last_part, int tick) {
  return run(launch, [=] { tiles_module::tiles(epoch, first_part, last_part, tick); });
}
EXPORTED int launch_panels(const Launch* launch, const gesda::Epoch* epoch, int first_part, int last_part, int tick) {
  return run(launch, [=] { panels_module::panels(epoch, first_part, last_part, tick); });
}
EXPORTED int launch_persistent(const Launch* launch, const gesda::Epoch* epoch, int row_parts, int last_part, int ticks,
                               unsigned* arrivals) {
  return run(launch, [=] { persistent_module::persistent(epoch, row_parts, last_part, ticks, arrivals); });
}
EXPORTED int launch_dense(const Launch* launch, const gesda::Pass* pass, int first_part, int last_part, int step) {
  return run(launch, [=] { dense_module::dense(pass, first_part, last_part, step); });
}
EXPORTED int launch_advance(const Launch* launch, int* tick, int ticks, unsigned* arrivals) {
  return run(launch, [=] { tiles_module::advance(tick, ticks, arrivals); });
}
