// The kernels on the emulator as a shared library with a C interface, for tests/emulator/emulated.py.
#include <cstdio>
#include <stdexcept>

#include "kernels/kernels.cu"

#define EXPORTED extern "C" __attribute__((visibility("default")))

// What gesda/engine/_cuda_records.py takes for granted: sizes of records, then constants.
EXPORTED void record_sizes(int* sizes) {
  sizes[0] = sizeof(gesda::Layer);
  sizes[1] = sizeof(gesda::Part);
  sizes[2] = sizeof(gesda::Epoch);
  sizes[3] = sizeof(gesda::Dense);
  sizes[4] = sizeof(gesda::Pass);
  sizes[5] = gesda::kThreads;
  sizes[6] = gesda::kTileRows;
  sizes[7] = gesda::kProductBytes;
  sizes[8] = 4 * PanelShape::kFloats;
}

template <class Kernel>
static int run(int blocks, unsigned long long seed, char* message, int message_size, const Kernel& kernel,
               std::size_t shared_bytes = gesda::kProductBytes) {
  try {
    emulator::launch({blocks, gesda::kThreads, shared_bytes}, false, seed, kernel);
  } catch (const std::exception& error) {
    std::snprintf(message, static_cast<std::size_t>(message_size), "%s", error.what());
    return 1;
  }
  return 0;
}

// 0, or 1 with a message.
EXPORTED int launch_pretrain(int blocks, const gesda::Epoch* epoch, int first_part, int last_part, int tick_offset,
                             unsigned long long seed, char* message, int message_size) {
  return run(blocks, seed, message, message_size, [=] { pretrain(epoch, first_part, last_part, tick_offset); });
}
EXPORTED int launch_panels(int blocks, const gesda::Epoch* epoch, int first_part, int last_part, int tick_offset,
                           unsigned long long seed, char* message, int message_size) {
  return run(
      blocks, seed, message, message_size, [=] { panels(epoch, first_part, last_part, tick_offset); },
      4 * PanelShape::kFloats);
}
EXPORTED int launch_advance(int blocks, int* tick, int ticks, unsigned long long seed, char* message,
                            int message_size) {
  return run(blocks, seed, message, message_size, [=] { advance(tick, ticks); });
}
EXPORTED int launch_dense(int blocks, const gesda::Pass* pass, int first_part, int last_part, int step_offset,
                          unsigned long long seed, char* message, int message_size) {
  return run(blocks, seed, message, message_size, [=] { dense(pass, first_part, last_part, step_offset); });
}
