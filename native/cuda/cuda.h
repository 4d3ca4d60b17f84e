// CUDA as the kernels of this folder use it: nvcc's, or, with SV_STANDIN, the stand-in's, which runs the same source on a
// processor so that tests need no GPU. What kernels may use beyond plain C++17:
//   __global__ __device__ __host__ __forceinline__ __shared__ __launch_bounds__ __restrict__, templates,
//   threadIdx blockIdx blockDim gridDim, warpSize, __syncthreads __syncwarp __shfl_sync __shfl_xor_sync __shfl_down_sync
//   __shfl_up_sync __ballot_sync __any_sync __all_sync, __popc __clz __ffs, atomicAdd Max Min CAS Exch on 32 bits (Add on
//   float too), __threadfence, __ldg, int2 int4 uint2 uint4 float2 float4 with make_..., __float_as_uint and its kin,
//   fmaf expf ... of <math.h>, __fdividef __expf __fmul_rn, __dp4a __byte_perm; SV_LAUNCH and SV_DYNAMIC_SHARED below; mma.h.
// Every thread of a block that has not returned must reach each __syncthreads, every lane of a warp each warp function.
#pragma once
#include <cuda_runtime.h>  // with SV_STANDIN that of testing/cuda, which has these macros too
#if !defined(SV_STANDIN)
/** Dynamic shared memory of a kernel, 16-byte aligned. */
#define SV_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
/** Enqueues a kernel. Template kernels with commas go in parentheses. */
#define SV_LAUNCH(kernel, grid, block, shared, stream, ...) (kernel)<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
#endif
