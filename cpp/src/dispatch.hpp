// Which SIMD variants were built, and which of them this machine can run.
#pragma once

#include <string>
#include <vector>

#include "cpp/src/kernel_table.hpp"

namespace gesda {

// Fastest first.
const std::vector<const Kernels*>& runnable_kernels();
// Empty name: the fastest. Throws std::invalid_argument for a name that cannot run here.
const Kernels& find_kernels(const std::string& name);

}  // namespace gesda
