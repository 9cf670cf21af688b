// Which SIMD variants were built, and which of them this machine can run.
#pragma once

#include <string>
#include <vector>

#include "cpp/src/kernel_table.hpp"
#include "gesda/network.hpp"

namespace gesda {

// Fastest first. Every variant has both precisions, but avx512bf16, which in fp32 is avx512 again, is listed for bf16
// only.
const std::vector<const Kernels*>& runnable_kernels(Precision precision = kFp32);
// Empty name: the fastest. Throws std::invalid_argument for a name that cannot run here.
const Kernels& find_kernels(const std::string& name, Precision precision = kFp32);

}  // namespace gesda
