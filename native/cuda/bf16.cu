// Products with 16-bit float matrices on the tensor cores. Activations are one bf16 plane (the matrix says so: dot_bf16) or
// two, x ~ hi + lo, accurate to 2^-17 of each activation. f16 weights are exactly two planes as well; of the four
// products, lo times lo is omitted (2^-17 again). Sums are f32.
#include "mma.h"
#include "planes.cuh"
#include "product.cuh"

namespace sv {
namespace gpu {
namespace {

template <int Planes>
struct Bf16 {
  using Sum = float;
  static constexpr int kLaneBytes = 8 * Planes;
  static __device__ __forceinline__ int64_t steps(const Product& p) { return (p.k + 15) / 16; }
  static __device__ __forceinline__ int64_t units(const Product& p) { return steps(p); }

  template <int S, int N>
  static __device__ __forceinline__ void multiply(const Product& p, const WarpTile<S, N>& tile, int64_t begin, int64_t end,
                                                  float (&sum)[S][N][4]) {
    const int64_t pairs = (p.k + 1) / 2;  // of inputs, stored: 16 outputs x 2 bf16 each
#pragma unroll 4
    for (int64_t step = begin; step < end; step++) {
      Fragment<Planes> x[N];
      tile.activations(step, x);
#pragma unroll
      for (int s = 0; s < S; s++) {
        const int64_t pair = step * 8 + tile.t * 2;
        const char* w = tile.w[s] + pair * 64 + tile.g * 8;
        uint2 first = make_uint2(0, 0), second = first;
        if (pair < pairs) first = *(const uint2*)w;
        if (pair + 1 < pairs) second = *(const uint2*)(w + 64);
        const uint32_t a[4] = {first.x, first.y, second.x, second.y};
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
          for (int plane = 0; plane < Planes; plane++) mma_m16n8k16_bf16(sum[s][n], a, x[n].words[plane]);
      }
    }
  }
  static __device__ __forceinline__ float value(const Product&, float sum, const char*, int, int64_t) { return sum; }
};

struct F16 {
  using Sum = float;
  static constexpr int kLaneBytes = 16;
  static __device__ __forceinline__ int64_t steps(const Product& p) { return (p.k + 15) / 16; }
  static __device__ __forceinline__ int64_t units(const Product& p) { return steps(p); }

  /** Two weights as the upper and the lower half of their bits: the cut leaves 3 of 11 bits, so both are bf16 exactly. */
  static __device__ __forceinline__ void split(float first, float second, uint32_t* high, uint32_t* low) {
    const uint32_t a = __float_as_uint(first) & 0xffff0000, b = __float_as_uint(second) & 0xffff0000;
    *high = a >> 16 | b;
    *low = __float_as_uint(first - __uint_as_float(a)) >> 16 | (__float_as_uint(second - __uint_as_float(b)) & 0xffff0000);
  }

  template <int S, int N>
  static __device__ __forceinline__ void multiply(const Product& p, const WarpTile<S, N>& tile, int64_t begin, int64_t end,
                                                  float (&sum)[S][N][4]) {
    const int64_t inputs = (p.k + 1) / 2 * 2;  // stored: 16 outputs x f16 each
#pragma unroll 2
    for (int64_t step = begin; step < end; step++) {
      Fragment<2> x[N];
      tile.activations(step, x);
#pragma unroll
      for (int s = 0; s < S; s++) {
        const int64_t input = step * 16 + tile.t * 4;
        const char* w = tile.w[s] + input * 32 + tile.g * 4;
        uint32_t both[4];  // outputs 2g, 2g + 1 of each input
#pragma unroll
        for (int i = 0; i < 4; i++) both[i] = input + i < inputs ? *(const uint32_t*)(w + i * 32) : 0;
        uint32_t high[4], low[4];
#pragma unroll
        for (int i = 0; i < 2; i++) {
          split(half_to_float(both[2 * i] & 0xffff), half_to_float(both[2 * i + 1] & 0xffff), &high[2 * i], &low[2 * i]);
          split(half_to_float(both[2 * i] >> 16), half_to_float(both[2 * i + 1] >> 16), &high[2 * i + 1], &low[2 * i + 1]);
        }
#pragma unroll
        for (int n = 0; n < N; n++) {
          mma_m16n8k16_bf16(sum[s][n], high, x[n].words[0]);
          mma_m16n8k16_bf16(sum[s][n], high, x[n].words[1]);
          mma_m16n8k16_bf16(sum[s][n], low, x[n].words[0]);
        }
      }
    }
  }
  static __device__ __forceinline__ float value(const Product&, float sum, const char*, int, int64_t) { return sum; }
};

}  // namespace

void multiply_bf16(GpuStream stream, const Product& p, int planes) {
  prepare_planes(stream, p, planes, ceil_div(p.k, 16));
  if (planes == 1) multiply<Bf16<1>>(stream, p);
  else multiply<Bf16<2>>(stream, p);
}

void multiply_f16(GpuStream stream, const Product& p) {
  prepare_planes(stream, p, 2, ceil_div(p.k, 16));
  multiply<F16>(stream, p);
}

}  // namespace gpu
}  // namespace sv
