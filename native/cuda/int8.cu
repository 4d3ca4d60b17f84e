// Products with 8-bit matrices (kernels/int8.h) on the tensor cores. Activations are rounded to 8 bits per row by the very
// arithmetic of the processor's kernels and the sums are exact integers, so the product equals theirs to the last bit.
#include "mma.h"
#include "product.cuh"

namespace sv {
namespace gpu {
namespace {

/** A block per row: d = max|x| / 127, a = round(x / d), half to even; a value that is not finite makes d NaN. */
__global__ void round_to_bytes(Product p, int64_t steps) {
  __shared__ float shared[kWarp];
  const int64_t row = blockIdx.x;
  const float* x = p.x + row * p.ldx;
  float top = 0, poison = 0;
  for (int64_t i = threadIdx.x; i < p.k; i += blockDim.x) {
    top = Max()(fabsf(x[i]), top);  // passes NaN over
    poison += x[i] * 0.f;
  }
  top = block_reduce(top, Max(), shared);
  const float d = top / 127.f + block_reduce(poison, Sum(), shared);
  const float inverse = d > 1e-36f ? 127.f / top : 0;  // finite; smaller steps and NaN count 0 times
  if (threadIdx.x == 0) p.sums[row] = d;
  char* out = p.fragments + (row / kRowBlock * steps * kWarp + row % kRowBlock * 4) * 8;
  for (int64_t quad = threadIdx.x; quad < steps * 8; quad += blockDim.x) {
    uint32_t word = 0;
    for (int i = 0; i < 4; i++) {
      const int64_t at = quad * 4 + i;
      const float a = at < p.k ? rintf(x[at] * inverse) : 0;
      word |= ((uint32_t)(int32_t)(a == a ? a : 0) & 0xff) << 8 * i;
    }
    *(uint32_t*)(out + quad / 8 * (kWarp * 8) + quad % 4 * 8 + quad % 8 / 4 * 4) = word;
  }
}

struct Int8 {
  using Sum = int32_t;
  static constexpr int kLaneBytes = 8;
  static __device__ __forceinline__ int64_t quads(const Product& p) { return (p.k + 3) / 4; }  // stored: 16 outputs x 4 bytes each
  static __device__ __forceinline__ int64_t steps(const Product& p) { return (quads(p) + 7) / 8; }
  static __device__ __forceinline__ int64_t units(const Product& p) { return steps(p); }

  template <int S, int N>
  static __device__ __forceinline__ void multiply(const Product& p, const WarpTile<S, N>& tile, int64_t begin, int64_t end,
                                                  int32_t (&sum)[S][N][4]) {
    const int64_t stored = quads(p);
#pragma unroll 4
    for (int64_t step = begin; step < end; step++) {
      Fragment<1> x[N];
      tile.activations(step, x);
#pragma unroll
      for (int s = 0; s < S; s++) {
        const int64_t quad = step * 8 + tile.t;
        const char* w = tile.w[s] + quad * 64 + tile.g * 8;
        uint2 first = make_uint2(0, 0), second = first;
        if (quad < stored) first = *(const uint2*)w;
        if (quad + 4 < stored) second = *(const uint2*)(w + 256);
        const uint32_t a[4] = {first.x, first.y, second.x, second.y};
#pragma unroll
        for (int n = 0; n < N; n++) mma_m16n8k32_s8(sum[s][n], a, x[n].words[0]);
      }
    }
  }
  static __device__ __forceinline__ float value(const Product& p, int32_t sum, const char* strip, int out, int64_t row) {
    const float scale = ((const float*)(strip + quads(p) * 64))[out];
    return __fmul_rn((float)sum, scale * p.sums[row]);  // the bias is added to a rounded product, as on the processor
  }
};

}  // namespace

void multiply_int8(GpuStream stream, const Product& p) {
  const int64_t steps = ceil_div(p.k, 32);
  SV_LAUNCH(round_to_bytes, (unsigned)p.rows, row_threads(steps * 8), 0, stream_of(stream), p, steps);
  multiply<Int8>(stream, p);
}

}  // namespace gpu
}  // namespace sv
