// Converts activations to bf16 planes in the order of fragments.cuh. Knows no weights; for groups of inputs that share a scale it also
// returns the sum of the planes' values.
#pragma once
#include "fragments.cuh"
#include "mma.h"

namespace sv {
namespace gpu {

/** A warp takes eight rows by `group_steps` steps. sums [ceil(rows / 8)][groups][8], or null. */
template <int Planes>
static __global__ void round_to_planes(Product p, int64_t steps, int64_t groups, int group_steps) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int64_t warp = (int64_t)blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  const int64_t block = warp / groups, group = warp % groups, row = block * kRowBlock + g;
  if (block * kRowBlock >= p.rows) return;
  float sum = 0;
  for (int64_t step = group * group_steps; step < (group + 1) * group_steps && step < steps; step++) {
    uint32_t planes[Planes][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int64_t input = step * 16 + t * 4 + i;
      const float v = row < p.rows && input < p.k ? p.x[row * p.ldx + input] : 0;
      const uint32_t high = bf16_bits(v);
      planes[0][i] = high;
      float held = bf16_low(high);
      if (Planes == 2) {
        const uint32_t low = (high & 0x7f80) == 0x7f80 ? 0 : bf16_bits(v - held);  // nothing is left of infinity
        planes[Planes - 1][i] = low;
        held += bf16_low(low);
      }
      sum += held;
    }
    uint2* out = (uint2*)(p.fragments + ((block * steps + step) * kWarp + lane) * (8 * Planes));
#pragma unroll
    for (int plane = 0; plane < Planes; plane++)
      out[plane] = make_uint2(planes[plane][0] | planes[plane][1] << 16, planes[plane][2] | planes[plane][3] << 16);
  }
  if (!p.sums) return;
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  sum += __shfl_xor_sync(0xffffffffu, sum, 2);
  if (t == 0) p.sums[(block * groups + group) * kRowBlock + g] = sum;
}

/** group_steps: steps per group of the sums; without sums any number will do. */
static inline void prepare_planes(GpuStream stream, const Product& p, int planes, int64_t steps, int group_steps = 8) {
  constexpr int threads = 128;
  const int64_t groups = ceil_div(steps, group_steps), warps = ceil_div(p.rows, kRowBlock) * groups;
  const unsigned grid = (unsigned)ceil_div(warps * kWarp, threads);
  if (grid == 0) return;
  if (planes == 1) SV_LAUNCH(round_to_planes<1>, grid, threads, 0, stream_of(stream), p, steps, groups, group_steps);
  else SV_LAUNCH(round_to_planes<2>, grid, threads, 0, stream_of(stream), p, steps, groups, group_steps);
}

}  // namespace gpu
}  // namespace sv
