// Products with 4-bit matrices (kernels/int4.h) on the tensor cores. A nibble q becomes the bf16 128 + q, which is exact and
// costs no conversion: it is the nibble under the bits of 128. What that adds is taken off once per group of inputs, where the
// scale is applied too, with the sum X of the group's activations:
//   sum (q - z) s x = s (A - (128 + z) X),   sum (q s + sz) x = s (A - 128 X) + sz X,   A = sum (128 + q) x
// A and X see the same activations, two bf16 planes (planes == 2: exact) or one (fast); sums are f32, so the 128 costs five of
// 24 bits.
#include "mma.h"
#include "planes.cuh"
#include "product.cuh"

namespace sv {
namespace gpu {
namespace {

/** Four nibbles in the low halves of a word's bytes -> 128 + q as bf16: inputs 0 and 1, inputs 2 and 3. */
__device__ __forceinline__ uint32_t first_pair(uint32_t nibbles) { return __byte_perm(nibbles, 0x43434343, 0x4140); }
__device__ __forceinline__ uint32_t second_pair(uint32_t nibbles) { return __byte_perm(nibbles, 0x43434343, 0x4342); }

/** Memory that is read once: it need not stay in a cache. */
template <class T>
__device__ __forceinline__ T load_once(const T* p) {
#if defined(SV_STANDIN)
  return *p;
#else
  return __ldcs(p);
#endif
}

/** Any size of groups. */
template <int Planes>
struct Int4 {
  using Sum = float;
  static constexpr int kLaneBytes = 8 * Planes;
  static __device__ __forceinline__ int64_t units(const Product& p) { return p.groups; }
  static __device__ __forceinline__ int64_t steps(const Product& p) { return units(p) * (p.group / 16); }

  /** out += s (acc - m X) + b X for the lane's two outputs, and the rows 2t, 2t + 1 of each block. */
  template <int S, int N>
  static __device__ __forceinline__ void scale(const Product& p, const WarpTile<S, N>& tile, int64_t group, int64_t tile_bytes,
                                               const float (&acc)[S][N][4], float (&sum)[S][N][4]) {
    float2 x[N];
#pragma unroll
    for (int n = 0; n < N; n++) {
      const int64_t block = tile.row / kRowBlock + n;
      x[n] = make_float2(0, 0);
      if (block * kRowBlock < p.rows) x[n] = *(const float2*)(p.sums + (block * p.groups + group) * kRowBlock + tile.t * 2);
    }
#pragma unroll
    for (int s = 0; s < S; s++) {
      const char* end = tile.w[s] + group * tile_bytes + p.group * 8 + tile.g * 4;
      const uint32_t scales = *(const uint32_t*)end, zeros = *(const uint32_t*)(end + 2 * kLanes);
#pragma unroll
      for (int o = 0; o < 2; o++) {
        const uint32_t bits = o ? scales >> 16 : scales & 0xffff;
        const float factor = p.scale_bf16 ? bf16_low(bits) : half_to_float(bits);
        const float zero = half_to_float(o ? zeros >> 16 : zeros & 0xffff);
        const float m = p.zero_scaled ? 128.f : 128.f + zero, b = p.zero_scaled ? zero : 0.f;
#pragma unroll
        for (int n = 0; n < N; n++) {
          float* out = sum[s][n] + 2 * o;
          const float* a = acc[s][n] + 2 * o;
          out[0] = fmaf(factor, fmaf(-m, x[n].x, a[0]), fmaf(b, x[n].x, out[0]));
          out[1] = fmaf(factor, fmaf(-m, x[n].y, a[1]), fmaf(b, x[n].y, out[1]));
        }
      }
    }
  }

  template <int S, int N>
  static __device__ __forceinline__ void multiply(const Product& p, const WarpTile<S, N>& tile, int64_t begin, int64_t end,
                                                  float (&sum)[S][N][4]) {
    const int64_t tile_bytes = 8 * p.group + 64;
    const int half = p.group / 32;  // steps in the low nibbles; as many follow in the high ones
    for (int64_t group = begin; group < end; group++) {
      float acc[S][N][4] = {};
// clang-format off
#pragma unroll (S * N == 1 ? 4 : N == 1 ? 2 : 1)
      // clang-format on
      for (int i = 0; i < half; i++) {
        uint2 w[S];  // four inputs low, four high, of outputs 2g and 2g + 1
#pragma unroll
        for (int s = 0; s < S; s++) w[s] = *(const uint2*)(tile.w[s] + group * tile_bytes + i * 256 + tile.t * 64 + tile.g * 8);
#pragma unroll
        for (int high = 0; high < 2; high++) {
          Fragment<Planes> x[N];
          tile.activations(group * 2 * half + high * half + i, x);
#pragma unroll
          for (int s = 0; s < S; s++) {
            const uint32_t even = w[s].x >> 4 * high & 0x0f0f0f0f, odd = w[s].y >> 4 * high & 0x0f0f0f0f;
            const uint32_t a[4] = {first_pair(even), first_pair(odd), second_pair(even), second_pair(odd)};
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
              for (int plane = 0; plane < Planes; plane++) mma_m16n8k16_bf16(acc[s][n], a, x[n].words[plane]);
          }
        }
      }
      scale(p, tile, group, tile_bytes, acc, sum);
    }
  }
  static __device__ __forceinline__ float value(const Product&, float sum, const char*, int, int64_t) { return sum; }
};

/** Groups of 128 for few rows, to the same bits: the order of every sum is Int4's. */
template <int Planes>
struct StreamedInt4 : Int4<Planes> {
  static constexpr int kHalf = 4;  // steps in the low nibbles of a group; as many follow in the high ones
  static constexpr int kTileBytes = 256 * kHalf + 64, kStepBytes = kWarp * Int4<Planes>::kLaneBytes;

  /** A lane's part of a tile: nibbles, scales and zeros of its two outputs. */
  struct Tile {
    uint2 w[kHalf];
    uint32_t scales, zeros;
  };

  /** The tiles of one strip after another, for few rows; the next tile is on its way while one is multiplied. */
  template <int S, int N>
  static __device__ __forceinline__ void multiply(const Product& p, const WarpTile<S, N>& tile, int64_t begin, int64_t end,
                                                  float (&sum)[S][N][4]) {
    const int groups = (int)(end - begin);
    if (groups <= 0) return;
    const char* at = tile.w[0] + begin * kTileBytes + tile.g * 4;
    Tile next;
    const auto fetch = [&] {
#pragma unroll
      for (int i = 0; i < kHalf; i++) next.w[i] = load_once((const uint2*)(at + i * 256 + tile.t * 64 + tile.g * 4));
      next.scales = load_once((const uint32_t*)(at + 256 * kHalf));
      next.zeros = load_once((const uint32_t*)(at + 256 * kHalf + 2 * kLanes));
    };
    fetch();
#pragma unroll
    for (int s = 0; s < S; s++) {
      const char* x = tile.x + begin * (2 * kHalf * kStepBytes);
      const float* sums = p.sums + (tile.row / kRowBlock * p.groups + begin) * kRowBlock + tile.t * 2;
#pragma unroll 1
      for (int left = groups; left > 0; left--) {
        const Tile held = next;
        at += kTileBytes;
        if (left == 1 && s + 1 < S) at = tile.w[s + 1 < S ? s + 1 : s] + begin * kTileBytes + tile.g * 4;
        if (left > 1 || s + 1 < S) fetch();
        float2 groupsum[N];
#pragma unroll
        for (int n = 0; n < N; n++) {
          groupsum[n] = make_float2(0, 0);
          if (tile.row + n * kRowBlock < p.rows) groupsum[n] = *(const float2*)(sums + n * p.groups * kRowBlock);
        }
        float acc[N][4] = {};
#pragma unroll
        for (int i = 0; i < kHalf; i++)
#pragma unroll
          for (int high = 0; high < 2; high++) {
            const uint32_t even = held.w[i].x >> 4 * high & 0x0f0f0f0f, odd = held.w[i].y >> 4 * high & 0x0f0f0f0f;
            const uint32_t a[4] = {first_pair(even), first_pair(odd), second_pair(even), second_pair(odd)};
#pragma unroll
            for (int n = 0; n < N; n++) {
              Fragment<Planes> f = {};
              if (tile.live[n]) load(f, x + n * tile.block_bytes + (high * kHalf + i) * kStepBytes);
#pragma unroll
              for (int plane = 0; plane < Planes; plane++) mma_m16n8k16_bf16(acc[n], a, f.words[plane]);
            }
          }
        x += 2 * kHalf * kStepBytes;
        sums += kRowBlock;
#pragma unroll
        for (int o = 0; o < 2; o++) {
          const uint32_t bits = o ? held.scales >> 16 : held.scales & 0xffff;
          const float factor = p.scale_bf16 ? bf16_low(bits) : half_to_float(bits);
          const float zero = half_to_float(o ? held.zeros >> 16 : held.zeros & 0xffff);
          const float m = p.zero_scaled ? 128.f : 128.f + zero, b = p.zero_scaled ? zero : 0.f;
#pragma unroll
          for (int n = 0; n < N; n++) {
            float* out = sum[s][n] + 2 * o;
            const float* a = acc[n] + 2 * o;
            out[0] = fmaf(factor, fmaf(-m, groupsum[n].x, a[0]), fmaf(b, groupsum[n].x, out[0]));
            out[1] = fmaf(factor, fmaf(-m, groupsum[n].y, a[1]), fmaf(b, groupsum[n].y, out[1]));
          }
        }
      }
    }
  }
};

}  // namespace

void multiply_int4(GpuStream stream, const Product& p, int planes) {
  prepare_planes(stream, p, planes, p.groups * (p.group / 16), p.group / 16);
  if (p.group == 128) planes == 1 ? multiply<StreamedInt4<1>, Int4<1>>(stream, p) : multiply<StreamedInt4<2>, Int4<2>>(stream, p);
  else planes == 1 ? multiply<Int4<1>>(stream, p) : multiply<Int4<2>>(stream, p);
}

}  // namespace gpu
}  // namespace sv
