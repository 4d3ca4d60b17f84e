// Converts activations to bf16 planes in the order of fragments.cuh. Knows no weights; for groups of inputs that share a scale it also
// returns the sum of the planes' values.
#pragma once
#include "fragments.cuh"
#include "mma.h"

namespace sv {
namespace gpu {

constexpr int kMostGroupSteps = 8;

/** A lane's inputs of the steps [first, end) of a row, zeros where there are none. All are loaded before one is used. */
static __device__ __forceinline__ void load_inputs(const Product& p, int64_t row, int64_t first, int64_t end, float (&v)[kMostGroupSteps][4]) {
  const int64_t begin = first * 16 + threadIdx.x % 4 * 4;
  const float* x = p.x + row * p.ldx + begin;
  const int steps = row < p.rows ? (int)(end - first) : 0, left = p.k - begin > 1 << 30 ? 1 << 30 : (int)(p.k - begin);
  if (!(((uintptr_t)p.x | (uintptr_t)(p.ldx | p.k) * 4) % 16)) {
#pragma unroll
    for (int s = 0; s < kMostGroupSteps; s++) {
      const float4 four = s < steps && s * 16 < left ? *(const float4*)(x + s * 16) : make_float4(0, 0, 0, 0);
      v[s][0] = four.x, v[s][1] = four.y, v[s][2] = four.z, v[s][3] = four.w;
    }
    return;
  }
#pragma unroll
  for (int s = 0; s < kMostGroupSteps; s++)
#pragma unroll
    for (int i = 0; i < 4; i++) v[s][i] = s < steps && s * 16 + i < left ? x[s * 16 + i] : 0;
}

/** A warp takes eight rows by `group_steps` steps, at most kMostGroupSteps. sums [ceil(rows / 8)][groups][8], or null. */
template <int Planes>
static __global__ void round_to_planes(Product p, int64_t steps, int groups, int group_steps) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int warp = (int)(blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp), group = warp % groups;  // few: scratch is limited
  const int64_t block = warp / groups, row = block * kRowBlock + g;
  if (block * kRowBlock >= p.rows) return;
  const int64_t first = (int64_t)group * group_steps, end = first + group_steps < steps ? first + group_steps : steps;
  float v[kMostGroupSteps][4], sum = 0;
  load_inputs(p, row, first, end, v);
#pragma unroll
  for (int s = 0; s < kMostGroupSteps; s++) {
    if (first + s >= end) continue;
    uint32_t planes[Planes][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const uint32_t high = bf16_bits(v[s][i]);
      planes[0][i] = high;
      float held = bf16_low(high);
      if (Planes == 2) {
        const uint32_t low = (high & 0x7f80) == 0x7f80 ? 0 : bf16_bits(v[s][i] - held);  // nothing is left of infinity
        planes[Planes - 1][i] = low;
        held += bf16_low(low);
      }
      sum += held;
    }
    uint2* out = (uint2*)(p.fragments + ((block * steps + first + s) * kWarp + lane) * (8 * Planes));
#pragma unroll
    for (int plane = 0; plane < Planes; plane++)
      out[plane] = make_uint2(planes[plane][0] | planes[plane][1] << 16, planes[plane][2] | planes[plane][3] << 16);
  }
  if (!p.sums) return;
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  sum += __shfl_xor_sync(0xffffffffu, sum, 2);
  if (t == 0) p.sums[(block * groups + group) * kRowBlock + g] = sum;
}

/** group_steps: steps per group of the sums; without sums any number up to kMostGroupSteps will do. */
static inline void prepare_planes(GpuStream stream, const Product& p, int planes, int64_t steps, int group_steps = 8) {
  constexpr int threads = 128;
  const int64_t groups = ceil_div(steps, group_steps), warps = ceil_div(p.rows, kRowBlock) * groups;
  const unsigned grid = (unsigned)ceil_div(warps * kWarp, threads);
  if (grid == 0) return;
  if (planes == 1) SV_LAUNCH(round_to_planes<1>, grid, threads, 0, stream_of(stream), p, steps, (int)groups, group_steps);
  else SV_LAUNCH(round_to_planes<2>, grid, threads, 0, stream_of(stream), p, steps, (int)groups, group_steps);
}

}  // namespace gpu
}  // namespace sv
