// The two shapes of a product on the tensor cores: few rows, where a block's warps share one strip's inputs among them, and
// many, where each has strips and rows of its own. Knows no weight type: a Format is
//   Sum                                         what a lane adds up, float or int32_t
//   kLaneBytes                                  bytes of a Fragment
//   steps(p), units(p)                          steps of activations; what inputs may be split by, a step or a group
//   multiply(p, tile, begin, end, sum)          adds units [begin, end) to sum[strip][block][4]
//   value(p, sum, strip, out, row)              the product
//
// The inputs of every product are cut into 16 segments, by their number alone. A segment is one chain of additions over
// ascending inputs, and the segments are added in order. Both shapes do this, so a row's result depends neither on how many
// rows are computed together nor on which, and is the same on every run.
#pragma once
#include "epilogue.cuh"
#include "fragments.cuh"

namespace sv {
namespace gpu {

constexpr int kSegments = 16;
constexpr int kFewRows = 16;
__device__ __forceinline__ int64_t segment_begin(int64_t units, int segment) { return units * segment / kSegments; }

/** sum[s][n][i] of a lane is output 2g + i / 2 of strip s in row 2t + i % 2 of block n. */
__device__ __forceinline__ int output_of(int lane, int i) { return lane / 4 * 2 + i / 2; }
__device__ __forceinline__ int row_of(int lane, int i) { return lane % 4 * 2 + i % 2; }

/** A block is S strips by at most 8 N rows, a warp one segment of the inputs. */
template <class Format, int S, int N>
__global__ void __launch_bounds__(kSegments* kWarp, S* N < 4 ? 2 : 1) multiply_few(Product p) {
  using Sum = typename Format::Sum;
  __shared__ Sum part[kSegments][S][N][4][kWarp];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const WarpTile<S, N> tile(p, (int64_t)blockIdx.x * S, 0, Format::steps(p), Format::kLaneBytes);
  const int64_t units = Format::units(p);
  Sum sum[S][N][4] = {};
  Format::multiply(p, tile, segment_begin(units, warp), segment_begin(units, warp + 1), sum);
#pragma unroll
  for (int s = 0; s < S; s++)
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) part[warp][s][n][i][lane] = sum[s][n][i];
  __syncthreads();
  const int n = warp / 4, i = warp % 4;  // a warp finishes one of each lane's sums
  if (n >= N) return;
  const int64_t row = n * kRowBlock + row_of(lane, i);
  if (row >= p.rows) return;
  const int out = output_of(lane, i);
  float values[S];
  for (int s = 0; s < S; s++) {
    Sum total = 0;
    for (int segment = 0; segment < kSegments; segment++) total += part[segment][s][n][i][lane];
    values[s] = Format::value(p, total, tile.w[s], out, row);
  }
  store_strips(p, row, tile.strip, out, values);
}

/** A block is 4 x 2 warps of 2 strips by 32 rows each: 128 outputs by 64 rows. */
constexpr int kManyStrips = 2, kManyBlocks = 4, kWarpsAcross = 4, kWarpsDown = 2, kManyThreads = kWarpsAcross * kWarpsDown * kWarp;
constexpr int kStripsPerBlock = kManyStrips * kWarpsAcross, kRowsPerBlock = kManyBlocks * kRowBlock * kWarpsDown;

template <class Format>
__global__ void __launch_bounds__(kManyThreads, 2) multiply_many(Product p) {
  using Sum = typename Format::Sum;
  __shared__ Sum total[kManyStrips][kManyBlocks][4][kManyThreads];  // each thread's own: finished segments, out of its registers
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const WarpTile<kManyStrips, kManyBlocks> tile(
      p, (int64_t)blockIdx.y * kStripsPerBlock + warp % kWarpsAcross * kManyStrips,
      (int64_t)blockIdx.x * kRowsPerBlock + warp / kWarpsAcross * (kManyBlocks * kRowBlock), Format::steps(p), Format::kLaneBytes);
  if (tile.strip >= p.strips || tile.row >= p.rows) return;
  const int64_t units = Format::units(p);
  for (int segment = 0; segment < kSegments; segment++) {
    Sum sum[kManyStrips][kManyBlocks][4] = {};
    Format::multiply(p, tile, segment_begin(units, segment), segment_begin(units, segment + 1), sum);
#pragma unroll
    for (int s = 0; s < kManyStrips; s++)
#pragma unroll
      for (int n = 0; n < kManyBlocks; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          Sum& t = total[s][n][i][threadIdx.x];
          t = (segment ? t : Sum(0)) + sum[s][n][i];
        }
  }
  for (int n = 0; n < kManyBlocks; n++)
    for (int i = 0; i < 4; i++) {
      const int64_t row = tile.row + n * kRowBlock + row_of(lane, i);
      if (row >= p.rows) continue;
      const int out = output_of(lane, i);
      float values[kManyStrips];
      for (int s = 0; s < kManyStrips; s++) values[s] = Format::value(p, total[s][n][i][threadIdx.x], tile.w[s], out, row);
      store_strips(p, row, tile.strip, out, values);
    }
}

/** The activations are in place. Of wide matrices a block takes two strips, which halves what it reads of activations. Few rows and many
 *  may have code of their own, which must give the same bits. */
template <class Few, class Many = Few>
void multiply(GpuStream stream, const Product& p) {
  constexpr int64_t kWide = 1024;
  constexpr int threads = kSegments * kWarp;
  const cudaStream_t s = stream_of(stream);
  if (p.rows > kFewRows) {
    const dim3 grid((unsigned)ceil_div(p.rows, kRowsPerBlock), (unsigned)ceil_div(p.strips, kStripsPerBlock));
    SV_LAUNCH((multiply_many<Many>), grid, kManyThreads, 0, s, p);
  } else if (p.gated || p.strips >= kWide) {
    const unsigned grid = (unsigned)ceil_div(p.strips, 2);
    if (p.rows <= kRowBlock) SV_LAUNCH((multiply_few<Few, 2, 1>), grid, threads, 0, s, p);
    else SV_LAUNCH((multiply_few<Few, 2, 2>), grid, threads, 0, s, p);
  } else {
    const unsigned grid = (unsigned)p.strips;
    if (p.rows <= kRowBlock) SV_LAUNCH((multiply_few<Few, 1, 1>), grid, threads, 0, s, p);
    else SV_LAUNCH((multiply_few<Few, 1, 2>), grid, threads, 0, s, p);
  }
}

}  // namespace gpu
}  // namespace sv
