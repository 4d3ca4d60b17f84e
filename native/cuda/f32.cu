// Products with f32 matrices, in f32 throughout: fused multiply-adds on the ordinary cores. As in product.cuh, inputs are cut
// into segments by their number alone (here 32), each one chain over ascending inputs, and the segments are added in order:
// a row's result does not depend on how many rows are computed together.
#include "epilogue.cuh"
#include "launch.h"

namespace sv {
namespace gpu {
namespace {

constexpr int kParts = 32;
__device__ __forceinline__ int64_t part_begin(int64_t k, int part) { return k * part / kParts; }

/** Few rows. A block is S strips by kRows rows; a half-warp's lanes are the outputs of one segment of the inputs. */
constexpr int kRows = 4;
template <int S>
__global__ void __launch_bounds__(kParts* kLanes) multiply_f32_few(Product p) {
  __shared__ float sums[kParts][S][kRows][kLanes];
  const int part = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const int64_t strip = (int64_t)blockIdx.x * S, row = (int64_t)blockIdx.y * kRows;
  const int rows = p.rows - row < kRows ? (int)(p.rows - row) : kRows;
  const float* w[S];
  for (int s = 0; s < S; s++)
    w[s] = (const float*)(p.w + (strip + s < p.strips ? strip + s : p.strips - 1) * p.strip_bytes) + lane;
  float sum[S][kRows] = {};
#pragma unroll 8
  for (int64_t i = part_begin(p.k, part); i < part_begin(p.k, part + 1); i++) {
    float x[kRows];
#pragma unroll
    for (int r = 0; r < kRows; r++) x[r] = r < rows ? p.x[(row + r) * p.ldx + i] : 0;
#pragma unroll
    for (int s = 0; s < S; s++) {
      const float v = w[s][i * kLanes];
#pragma unroll
      for (int r = 0; r < kRows; r++) sum[s][r] = fmaf(x[r], v, sum[s][r]);
    }
  }
  for (int s = 0; s < S; s++)
    for (int r = 0; r < kRows; r++) sums[part][s][r][lane] = sum[s][r];
  __syncthreads();
  const int r = threadIdx.x / kLanes;
  if (r >= rows) return;
  float values[S];
  for (int s = 0; s < S; s++) {
    values[s] = 0;
    for (int i = 0; i < kParts; i++) values[s] += sums[i][s][r][lane];
  }
  store_strips(p, row + r, strip, lane, values);
}

/** Many rows. A block is 64 rows by 4 strips, a thread 4 rows of one output of each strip; 16 inputs at a time. */
constexpr int kTileRows = 64, kTileStrips = 4, kTileInputs = 16, kTileThreads = 256;
__global__ void __launch_bounds__(kTileThreads) multiply_f32_many(Product p) {
  __shared__ __align__(16) float xs[kTileInputs][kTileRows + 4];
  __shared__ float ws[kTileStrips][kTileInputs][kLanes];
  const int out = threadIdx.x % kLanes, quad = threadIdx.x / kLanes;
  const int64_t strip = (int64_t)blockIdx.y * kTileStrips, row = (int64_t)blockIdx.x * kTileRows;
  const int64_t x_row = row + threadIdx.x / 4;  // what this thread brings: four inputs of a row, one of each strip's outputs
  const int x_input = threadIdx.x % 4 * 4;
  float total[4][kTileStrips] = {};
  for (int part = 0; part < kParts; part++) {
    float sum[4][kTileStrips] = {};
    const int64_t end = part_begin(p.k, part + 1);
    for (int64_t begin = part_begin(p.k, part); begin < end; begin += kTileInputs) {
      __syncthreads();
      for (int i = 0; i < 4; i++) {
        const int64_t at = begin + x_input + i;
        xs[x_input + i][threadIdx.x / 4] = x_row < p.rows && at < end ? p.x[x_row * p.ldx + at] : 0;
      }
      for (int s = 0; s < kTileStrips; s++) {
        const int64_t at = begin + quad;
        ws[s][quad][out] = strip + s < p.strips && at < end ? ((const float*)(p.w + (strip + s) * p.strip_bytes))[at * kLanes + out] : 0;
      }
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kTileInputs; i++) {
        if (begin + i >= end) break;  // the rest is zeros
        const float4 x = *(const float4*)&xs[i][quad * 4];
#pragma unroll
        for (int s = 0; s < kTileStrips; s++) {
          const float v = ws[s][i][out];
          sum[0][s] = fmaf(x.x, v, sum[0][s]);
          sum[1][s] = fmaf(x.y, v, sum[1][s]);
          sum[2][s] = fmaf(x.z, v, sum[2][s]);
          sum[3][s] = fmaf(x.w, v, sum[3][s]);
        }
      }
    }
    for (int r = 0; r < 4; r++)
      for (int s = 0; s < kTileStrips; s++) total[r][s] += sum[r][s];
  }
  for (int r = 0; r < 4; r++)
    if (row + quad * 4 + r < p.rows) store_strips(p, row + quad * 4 + r, strip, out, total[r]);
}

}  // namespace

void multiply_f32(GpuStream stream, const Product& p) {
  constexpr int64_t kFewRows = 16;
  if (p.rows > kFewRows) {
    const dim3 grid((unsigned)ceil_div(p.rows, kTileRows), (unsigned)ceil_div(p.strips, kTileStrips));
    SV_LAUNCH(multiply_f32_many, grid, kTileThreads, 0, stream_of(stream), p);
    return;
  }
  const int64_t s = p.gated ? 2 : 1;
  const dim3 grid((unsigned)ceil_div(p.strips, s), (unsigned)ceil_div(p.rows, kRows));
  if (p.gated) SV_LAUNCH(multiply_f32_few<2>, grid, kParts * kLanes, 0, stream_of(stream), p);
  else SV_LAUNCH(multiply_f32_few<1>, grid, kParts * kLanes, 0, stream_of(stream), p);
}

}  // namespace gpu
}  // namespace sv
