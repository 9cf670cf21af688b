// What the kernels need of a device beyond C++: indices, barriers, warp instructions, asynchronous copies, tensor
// cores.
//
// nvcc and NVRTC compile the PTX below; GESDA_EMULATED takes the same functions from tests/emulator/, which runs
// kernels on a CPU. Kernels use these alone, so that one source serves both.
#pragma once

#if defined(GESDA_EMULATED)
#include "emulated_device.hpp"
#else

#define GESDA_DEVICE __device__ __forceinline__
#define GESDA_UNROLL _Pragma("unroll")
#define GESDA_PRAGMA(text) _Pragma(#text)
#define GESDA_UNROLL_BY(times) GESDA_PRAGMA(unroll(times))
#define GESDA_KEEP_LOOP _Pragma("unroll 1")
#define GESDA_KERNEL(threads, blocks_per_sm) extern "C" __global__ void __launch_bounds__(threads, blocks_per_sm)

namespace gesda {

// ---- who and where; blocks and threads are one-dimensional ----
GESDA_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
GESDA_DEVICE int block_index() { return static_cast<int>(blockIdx.x); }
GESDA_DEVICE int block_count() { return static_cast<int>(gridDim.x); }
// The block's dynamic shared memory, aligned to 16 bytes, undefined at the start.
GESDA_DEVICE void* shared_memory() {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  return shared_bytes;
}

// ---- barriers and exchange ----
GESDA_DEVICE void sync_block() { __syncthreads(); }
GESDA_DEVICE void sync_warp() { __syncwarp(); }
GESDA_DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xFFFFFFFFu, value, mask); }

// ---- memory that other blocks write ----
// Read where all blocks see the same, not in a cache of this multiprocessor.
GESDA_DEVICE float load_shared_by_blocks(const float* p) { return __ldcg(p); }
GESDA_DEVICE void publish() { __threadfence(); }  // what this thread has written is seen before what it writes next
GESDA_DEVICE unsigned add_atomic(unsigned* p, unsigned value) { return atomicAdd(p, value); }
GESDA_DEVICE unsigned load_acquire(const unsigned* p) {
  unsigned value;
#if __CUDA_ARCH__ >= 700
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
#else
#error "GeSdA needs a device of compute capability 7.5 or newer"
#endif
  return value;
}

// ---- asynchronous copies of 16 bytes, global to shared, both aligned ----
// Issued copies form a group when they are committed. A thread waits for its own; sync_block() shows them to others.
// Where `real` is false, zeros are written and `global` is not read.
GESDA_DEVICE void copy_async(void* shared, const void* global, bool real) {
#if __CUDA_ARCH__ >= 800
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(real ? 16 : 0)
               : "memory");
#else
  *static_cast<float4*>(shared) = real ? __ldcg(static_cast<const float4*>(global)) : float4{0.0f, 0.0f, 0.0f, 0.0f};
#endif
}
GESDA_DEVICE void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Until at most kLeft groups are on their way.
template <int kLeft>
GESDA_DEVICE void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#endif
}

// ---- tensor cores: sums += a b, with a (16, k), b (k, 8) ----
// Lane 4 g + t holds sums(g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
//
// TF32, k = 8: a(g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4); b(t, g), (t + 4, g). From compute capability 8.0 on.
GESDA_DEVICE void multiply_tf32(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();  // never chosen there
#endif
}
// Half precision, k = 8: a(g, 2t..2t+1), (g + 8, 2t..2t+1); b(2t..2t+1, g).
GESDA_DEVICE void multiply_f16(float (&sums)[4], const unsigned (&a)[2], unsigned b) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(a[0]), "r"(a[1]), "r"(b));
}
// Rounded to nearest, ties away from zero: truncation would bias every product.
GESDA_DEVICE unsigned to_tf32(float x) {
  unsigned y;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
#else
  y = __float_as_uint(x);
#endif
  return y;
}
// Two numbers as half-precision ones, the first in the low half.
GESDA_DEVICE unsigned pack_f16(float low, float high) {
  unsigned y;
  asm("{.reg .f16 a, b;\n cvt.rn.f16.f32 a, %1;\n cvt.rn.f16.f32 b, %2;\n mov.b32 %0, {a, b};}"
      : "=r"(y)
      : "f"(low), "f"(high));
  return y;
}

// A half-precision number's value.
GESDA_DEVICE float from_f16(unsigned short half) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(half));
  return y;
}

}  // namespace gesda
#endif
