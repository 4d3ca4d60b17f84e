// Shared by several kernel files: block counts, and reductions over a warp or block whose order depends only on the
// block's size, so that results are reproducible bit for bit. Knows no kernel.
#pragma once
#include <stdint.h>

#include "cuda.h"

namespace sv {
namespace gpu {

constexpr int kWarp = 32;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
/** Threads for a row of n elements: whole warps, at most 256. */
inline unsigned row_threads(int64_t n) { return (unsigned)(n >= 256 ? 256 : (n < kWarp ? kWarp : ceil_div(n, kWarp) * kWarp)); }
inline cudaStream_t stream_of(void* stream) { return (cudaStream_t)stream; }

struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Max {
  __device__ float operator()(float a, float b) const { return a > b ? a : b; }
};

template <class Op>
__device__ __forceinline__ float warp_reduce(float v, Op op) {
  for (int step = kWarp / 2; step; step /= 2) v = op(v, __shfl_xor_sync(0xffffffffu, v, step));
  return v;
}

/** Over all threads of a one-dimensional block of whole warps, for all of them. shared: 32 floats, free again on return. */
template <class Op>
__device__ __forceinline__ float block_reduce(float v, Op op, float* shared) {
  v = warp_reduce(v, op);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = v;
  __syncthreads();
  float all = shared[0];
  for (int i = 1; i < (int)(blockDim.x / kWarp); i++) all = op(all, shared[i]);
  __syncthreads();
  return all;
}

}  // namespace gpu
}  // namespace sv
