// The AVX-512 level with the bf16 dot product: matmul_dot_bf16 rounds activations to bf16 and multiplies pairs.
#define SV_LEVEL avx512bf16
#define SV_AVX512
#define SV_TABLE kernels_avx512bf16
#define SV_LEVEL_NAME "avx512bf16"
#include "kernels.h"
#include "vec.h"

namespace sv {
namespace avx512bf16 {
static void matmul_dot_bf16(const void* x, int64_t x_stride, int64_t rows, const char* w, int64_t strip_stride, int64_t k,
                            int64_t strips, float* out, int64_t out_stride);
static double bf16_loop(int64_t iterations);
}
}  // namespace sv
#define SV_DOT_BF16 avx512bf16::matmul_dot_bf16
#define SV_BF16_LOOP avx512bf16::bf16_loop
#include "level.inl"

namespace sv {
namespace avx512bf16 {

/** R rows of bf16 pairs by S strips; both operands are read as they lie: [k/2][16] words of two bf16. */
template <int R, int S>
SV_INLINE void dot_tile(const uint32_t* x, int64_t ldx, const char* w, int64_t strip_stride, int64_t pairs, float* out,
                        int64_t ldo, bool more) {
  __m512 acc[R][S];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int s = 0; s < S; s++) acc[r][s] = more ? _mm512_loadu_ps(out + r * ldo + s * 16) : _mm512_setzero_ps();
  for (int64_t i = 0; i < pairs; i++, w += 64) {
    __m512bh b[S];
#pragma GCC unroll 4
    for (int s = 0; s < S; s++) b[s] = (__m512bh)_mm512_loadu_si512(w + s * strip_stride);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      __m512bh a = (__m512bh)_mm512_set1_epi32((int)x[r * ldx + i]);
#pragma GCC unroll 4
      for (int s = 0; s < S; s++) acc[r][s] = _mm512_dpbf16_ps(acc[r][s], a, b[s]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int s = 0; s < S; s++) _mm512_storeu_ps(out + r * ldo + s * 16, acc[r][s]);
}

template <int R>
static void dot_rows(int rows, const uint32_t* x, int64_t ldx, const char* w, int64_t strip_stride, int64_t pairs,
                     int64_t strips, float* out, int64_t ldo, bool more) {
  if (rows < R) {
    if constexpr (R > 1) dot_rows<R - 1>(rows, x, ldx, w, strip_stride, pairs, strips, out, ldo, more);
    return;
  }
  constexpr int S = strips_for(R);
  int64_t s = 0;
  for (; s + S <= strips; s += S) dot_tile<R, S>(x, ldx, w + s * strip_stride, strip_stride, pairs, out + s * 16, ldo, more);
  for (; s < strips; s++) dot_tile<R, 1>(x, ldx, w + s * strip_stride, strip_stride, pairs, out + s * 16, ldo, more);
}

static double bf16_loop(int64_t iterations) {
  __m512 acc[10];
#pragma GCC unroll 10  // else the sums stay in memory
  for (int i = 0; i < 10; i++) acc[i] = _mm512_set1_ps((float)i);
  const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  for (int64_t it = 0; it < iterations; it++)
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++) {
      acc[i] = _mm512_dpbf16_ps(acc[i], x, x);
      asm volatile(""
                   : "+v"(acc[i]));
    }
  return 10 * 4 * kLanes;
}

static void matmul_dot_bf16(const void* x, int64_t x_stride, int64_t rows, const char* w, int64_t strip_stride, int64_t k,
                            int64_t strips, float* out, int64_t out_stride) {
  const int64_t pairs = padded_k(k) / 2, block = kBlockK, ldx = x_stride / 4, ldo = out_stride / 4;
  for (int64_t p = 0; p < pairs; p += block)
    for (int64_t s = 0; s < strips; s += kGroupStrips) {
      const int64_t pn = pairs - p < block ? pairs - p : block, sn = strips - s < kGroupStrips ? strips - s : kGroupStrips;
      for (int64_t r = 0; r < rows;) {
        int64_t left = rows - r;
        int n = left <= kMaxRows ? (int)left : (left < 2 * kMaxRows ? (int)((left + 1) / 2) : kMaxRows);
        dot_rows<kMaxRows>(n, (const uint32_t*)x + r * ldx + p, ldx, w + s * strip_stride + p * 64, strip_stride, pn, sn,
                           out + r * ldo + s * 16, ldo, p > 0);
        r += n;
      }
    }
}

}  // namespace avx512bf16
}  // namespace sv
