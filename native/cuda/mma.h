// Products of small matrices on a warp's tensor cores, one function per instruction: PTX under nvcc for sm_80 and newer, a
// rendezvous of the warp's lanes under SV_STANDIN. Fragments lie over the lanes as the PTX manual has it ("Matrix fragments for
// mma.m16n8k16" and "... m16n8k32"); with g = lane / 4, t = lane % 4, element i of a word being its i-th lowest part:
//
//   bf16 a[r] part i: row g + 8 (r % 2), column 2 t + i + 8 (r / 2)      s8 a[r] part i: row as left, column 4 t + i + 16 (r / 2)
//        b[r] part i: row 2 t + i + 8 r,  column g                          b[r] part i: row 4 t + i + 16 r, column g
//        d[r]       : row g + 8 (r / 2),  column 2 t + r % 2                d[r]       : as left
//
// Every lane of the warp must call. Sums of bf16 products are not rounded alike on all processors: compare with a tolerance.
#pragma once
#include <stdint.h>
#include <string.h>

#include "cuda.h"

namespace sv {

/** f32 -> bf16, round to nearest even; NaN stays NaN. */
__host__ __device__ __forceinline__ uint32_t bf16_bits(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  const uint32_t quiet = u >> 16 | 0x40u, rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;  // no branch: callers convert many at once
  return (u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded;
}
/** Two bf16 in one word, `low` in the lower half. */
__host__ __device__ __forceinline__ uint32_t pack_bf16(float low, float high) { return bf16_bits(low) | bf16_bits(high) << 16; }
__host__ __device__ __forceinline__ float bf16_low(uint32_t word) {
  const uint32_t u = word << 16;
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}
__host__ __device__ __forceinline__ float bf16_high(uint32_t word) {
  const uint32_t u = word & 0xffff0000u;
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

#if defined(SV_STANDIN)

/** The data of one lane: words of A and B, and its products. */
template <class T> struct MmaLane {
  union {
    struct {
      uint32_t a[4], b[2];
    } in;
    T out[4];
  };
};

/** All lanes' fragments -> all lanes' sums of products over k, in order of k. `part(word, i)`: element i of a word. */
template <class T, int kParts, class F> void mma_product(::sv_standin::Lanes& lanes, F part) {
  constexpr int kDepth = 8 * kParts;  // of the product
  T a[16][kDepth], b[kDepth][8], d[16][8] = {};
  for (int lane = 0; lane < 32; lane++) {
    MmaLane<T> mine;
    memcpy(&mine, lanes.slot[lane], sizeof mine);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < kParts; i++) {
      for (int r = 0; r < 4; r++) a[g + 8 * (r % 2)][kParts * t + i + 4 * kParts * (r / 2)] = part(mine.in.a[r], i);
      for (int r = 0; r < 2; r++) b[kParts * t + i + 4 * kParts * r][g] = part(mine.in.b[r], i);
    }
  }
  for (int m = 0; m < 16; m++)
    for (int k = 0; k < kDepth; k++)
      for (int n = 0; n < 8; n++) d[m][n] += a[m][k] * b[k][n];
  for (int lane = 0; lane < 32; lane++) {
    T mine[4];
    for (int r = 0; r < 4; r++) mine[r] = d[lane / 4 + 8 * (r / 2)][2 * (lane % 4) + r % 2];
    memcpy(lanes.slot[lane], mine, sizeof mine);
  }
}
template <class T> void mma_together(const char* name, T* d, const uint32_t* a, const uint32_t* b, void (*finish)(::sv_standin::Lanes&)) {
  MmaLane<T> mine;
  memcpy(mine.in.a, a, sizeof mine.in.a);
  memcpy(mine.in.b, b, sizeof mine.in.b);
  ::sv_standin::warp_together(name, 0xffffffffu, &mine, sizeof mine, finish);
  for (int r = 0; r < 4; r++) d[r] += mine.out[r];
}

/** d [16][8] += a [16][16] b [16][8]. */
inline void mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  mma_together(__func__, d, a, b, [](::sv_standin::Lanes& lanes) {
    mma_product<float, 2>(lanes, [](uint32_t word, int i) { return i == 0 ? bf16_low(word) : bf16_high(word); });
  });
}
/** d [16][8] += a [16][32] b [32][8]. */
inline void mma_m16n8k32_s8(int32_t d[4], const uint32_t a[4], const uint32_t b[2]) {
  mma_together(__func__, d, a, b, [](::sv_standin::Lanes& lanes) {
    mma_product<int32_t, 4>(lanes, [](uint32_t word, int i) { return int32_t(int8_t(word >> 8 * i)); });
  });
}

#else

/** d [16][8] += a [16][16] b [16][8]. */
__device__ __forceinline__ void mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/** d [16][8] += a [16][32] b [32][8]. */
__device__ __forceinline__ void mma_m16n8k32_s8(int32_t d[4], const uint32_t a[4], const uint32_t b[2]) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif

}  // namespace sv
