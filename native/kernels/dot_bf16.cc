// ARM's dot product of bf16 pairs (BFDOT), for matrices whose activations are rounded to bf16. An output is one chain over ascending
// pairs, whichever rows are computed together.
#define SV_LEVEL dot_bf16_level
#define SV_NEON
#include "kernels.h"
#include "vec.h"

namespace sv {
namespace SV_LEVEL {

constexpr int kMaxRows = 6;
constexpr int64_t kBlockPairs = 2048, kGroupStrips = 8;

SV_INLINE bfloat16x8_t load_pairs(const void* p) { return vreinterpretq_bf16_u8(vld1q_u8((const uint8_t*)p)); }
/** One pair of activations, four times. */
SV_INLINE bfloat16x8_t splat_pair(uint32_t pair) { return vreinterpretq_bf16_u32(vdupq_n_u32(pair)); }

/** R rows of pairs by one strip [pairs][16][2]: out += when `more`, else =. */
template <int R>
SV_INLINE void dot_tile(const uint32_t* x, int64_t ldx, const char* w, int64_t pairs, float* out, int64_t ldo, bool more) {
  vec acc[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) acc[r] = more ? load(out + r * ldo) : zero();
  for (int64_t i = 0; i < pairs; i++, w += 64) {
    if (R == 1) __builtin_prefetch(w + 1024);
    bfloat16x8_t b[4];
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) b[q] = load_pairs(w + q * 16);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const bfloat16x8_t a = splat_pair(x[r * ldx + i]);
#pragma GCC unroll 4
      for (int q = 0; q < 4; q++) acc[r].q[q] = vbfdotq_f32(acc[r].q[q], a, b[q]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) store(out + r * ldo, acc[r]);
}

template <int R>
static void dot_rows(int rows, const uint32_t* x, int64_t ldx, const char* w, int64_t strip_stride, int64_t pairs, int64_t strips,
                     float* out, int64_t ldo, bool more) {
  if (rows < R) {
    if constexpr (R > 1) dot_rows<R - 1>(rows, x, ldx, w, strip_stride, pairs, strips, out, ldo, more);
    return;
  }
  for (int64_t s = 0; s < strips; s++) dot_tile<R>(x, ldx, w + s * strip_stride, pairs, out + s * kLanes, ldo, more);
}

}  // namespace SV_LEVEL

void dot_bf16_matmul(const void* x, int64_t x_stride, int64_t rows, const char* w, int64_t strip_stride, int64_t k, int64_t strips,
                     float* out, int64_t out_stride) {
  using namespace SV_LEVEL;
  const int64_t pairs = padded_k(k) / 2, ldx = x_stride / 4, ldo = out_stride / 4;
  for (int64_t p = 0; p < pairs; p += kBlockPairs)
    for (int64_t s = 0; s < strips; s += kGroupStrips) {
      const int64_t pn = pairs - p < kBlockPairs ? pairs - p : kBlockPairs, sn = strips - s < kGroupStrips ? strips - s : kGroupStrips;
      for (int64_t r = 0; r < rows;) {
        const int64_t left = rows - r;
        const int n = left <= kMaxRows ? (int)left : (left < 2 * kMaxRows ? (int)((left + 1) / 2) : kMaxRows);
        dot_rows<kMaxRows>(n, (const uint32_t*)x + r * ldx + p, ldx, w + s * strip_stride + p * 64, strip_stride, pn, sn,
                           out + r * ldo + s * kLanes, ldo, p > 0);
        r += n;
      }
    }
}

double dot_bf16_loop(int64_t iterations) {
  float32x4_t acc[10];
#pragma GCC unroll 10  // else the sums stay in memory
  for (int i = 0; i < 10; i++) acc[i] = vdupq_n_f32((float)i);
  uint32_t ones = 0x3f803f80;
  asm volatile(""
               : "+r"(ones));  // GCC 12 makes an instruction of half precision of a constant
  const bfloat16x8_t x = SV_LEVEL::splat_pair(ones);
  for (int64_t it = 0; it < iterations; it++)
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++) {
      acc[i] = vbfdotq_f32(acc[i], x, x);
      asm volatile(""
                   : "+w"(acc[i]));
    }
  return 10 * 2 * 8;
}

}  // namespace sv
