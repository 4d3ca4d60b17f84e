// The AVX-512 level with matrix tiles: products with bf16 weights run on tiles of bf16 activations, in two planes
// x ~ hi + lo (relative error 2^-17: as good as f32) or in one. Each output is one chain of tile steps over ascending k
// per plane, whatever rows run together.
#define SV_LEVEL avx512amx
#define SV_AVX512
#define SV_TABLE kernels_avx512amx
#define SV_LEVEL_NAME "avx512amx"
#include "amx.h"
#include "kernels.h"
#include "vec.h"

namespace sv {
namespace avx512amx {
template <int P>
static void matmul_planes(const void* x, int64_t x_stride, int64_t rows, const char* w, int64_t strip_stride, int64_t k,
                          int64_t strips, float* out, int64_t out_stride);
static double bf16_loop(int64_t iterations);
}
}  // namespace sv
#define SV_DOT_BF16 avx512amx::matmul_planes<1>
#define SV_SPLIT_BF16 avx512amx::matmul_planes<2>
#define SV_BF16_LOOP avx512amx::bf16_loop
#include "level.inl"

namespace sv {
namespace avx512amx {

/** Sums of two activation tiles (rows 0-15 and 16-31, or both planes of 16 rows) by two strips over all steps of 32 inputs. */
template <bool kSecond, bool kTwoStrips, bool kPrefetch>
SV_INLINE void tile_steps(const char* a0, const char* a1, int64_t lda, const char* w0, const char* w1, int64_t steps) {
  SV_TILE_ZERO(0);
  if (kSecond) SV_TILE_ZERO(1);
  if (kTwoStrips) SV_TILE_ZERO(2);
  if (kSecond && kTwoStrips) SV_TILE_ZERO(3);
  for (int64_t i = 0; i < steps; i++) {
    if (kPrefetch)
#pragma GCC unroll 16
      for (int line = 0; line < 16; line++) {
        __builtin_prefetch(w0 + i * 1024 + 4096 + line * 64);
        if (kTwoStrips) __builtin_prefetch(w1 + i * 1024 + 4096 + line * 64);
      }
    SV_TILE_LOAD(4, a0 + i * 64, lda);
    SV_TILE_LOAD(6, w0 + i * 1024, 64);
    SV_TILE_BF16(0, 4, 6);
    if (kSecond) {
      SV_TILE_LOAD(5, a1 + i * 64, lda);
      SV_TILE_BF16(1, 5, 6);
    }
    if (kTwoStrips) {
      SV_TILE_LOAD(7, w1 + i * 1024, 64);
      SV_TILE_BF16(2, 4, 7);
      if (kSecond) SV_TILE_BF16(3, 5, 7);
    }
  }
}

/** The inputs after the last whole step of 32, padded with zeros (activations are padded already). */
SV_INLINE void tile_rest(const char* a0, const char* a1, int64_t lda, const char* w0, const char* w1, int64_t pairs, bool second) {
  alignas(64) char pad[1024];
  for (int strip = 0; strip < 2; strip++) {
    const char* w = strip ? w1 : w0;
    for (int64_t j = 0; j < 16; j++)
      _mm512_store_si512(pad + j * 64, j < pairs ? _mm512_loadu_si512(w + j * 64) : _mm512_setzero_si512());
    SV_TILE_LOAD(4, a0, lda);
    SV_TILE_LOAD(6, pad, 64);
    if (second) SV_TILE_LOAD(5, a1, lda);
    if (strip == 0) {
      SV_TILE_BF16(0, 4, 6);
      if (second) SV_TILE_BF16(1, 5, 6);
    } else {
      SV_TILE_BF16(2, 4, 6);
      if (second) SV_TILE_BF16(3, 5, 6);
    }
  }
}

/** out = hi + lo for some rows of one strip. */
SV_INLINE void add_planes(const float* lo, int64_t rows, float* out, int64_t ldo) {
  for (int64_t r = 0; r < rows; r++) store(out + r * ldo, add(load(out + r * ldo), load(lo + r * 16)));
}

/** x: per row P planes of bf16 [k padded to 32], x_stride bytes from row to row. */
template <int P>
static void matmul_planes(const void* x, int64_t x_stride, int64_t rows, const char* w, int64_t strip_stride, int64_t k,
                          int64_t strips, float* out, int64_t out_stride) {
  const int64_t steps = padded_k(k) / 32, rest = padded_k(k) / 2 % 16, plane = (padded_k(k) + 31) / 32 * 64;
  const int64_t ldo = out_stride / 4, most = P == 2 ? 16 : 32;
  alignas(64) float lo[2][16 * 16];
  int shape = -1;
  for (int64_t s = 0; s < strips; s += 2) {
    const bool two = s + 1 < strips;
    const char *w0 = w + s * strip_stride, *w1 = two ? w0 + strip_stride : w0;
    for (int64_t r = 0; r < rows; r += most) {
      const int64_t n = rows - r < most ? rows - r : most, first = n < 16 ? n : 16, second = P == 2 ? first : n - first;
      const char *a0 = (const char*)x + r * x_stride, *a1 = P == 2 ? a0 + plane : a0 + 16 * x_stride;
      if (shape != (int)n) tile_shape((int)first, (int)second, 64);
      shape = (int)n;
      if (rows <= 4 && two) second ? tile_steps<true, true, true>(a0, a1, x_stride, w0, w1, steps) : tile_steps<false, true, true>(a0, a1, x_stride, w0, w1, steps);
      else if (two) second ? tile_steps<true, true, false>(a0, a1, x_stride, w0, w1, steps) : tile_steps<false, true, false>(a0, a1, x_stride, w0, w1, steps);
      else second ? tile_steps<true, false, false>(a0, a1, x_stride, w0, w1, steps) : tile_steps<false, false, false>(a0, a1, x_stride, w0, w1, steps);
      if (rest) {
        if (!two) {
          SV_TILE_ZERO(2);
          SV_TILE_ZERO(3);
        }
        tile_rest(a0 + steps * 64, a1 + steps * 64, x_stride, w0 + steps * 1024, w1 + steps * 1024, rest, second > 0);
      }
      float* to = out + r * ldo + s * kLanes;
      SV_TILE_STORE(0, to, out_stride);
      if (two) SV_TILE_STORE(2, to + kLanes, out_stride);
      if (P == 1 && second) {
        SV_TILE_STORE(1, to + 16 * ldo, out_stride);
        if (two) SV_TILE_STORE(3, to + 16 * ldo + kLanes, out_stride);
      }
      if (P == 2) {
        SV_TILE_STORE(1, lo[0], 64);
        if (two) SV_TILE_STORE(3, lo[1], 64);
        add_planes(lo[0], n, to, ldo);
        if (two) add_planes(lo[1], n, to + kLanes, ldo);
      }
    }
  }
  SV_TILE_RELEASE();
}

static double bf16_loop(int64_t iterations) {
  tile_shape(16, 16, 64);
  SV_TILE_ZERO(4);
  SV_TILE_ZERO(5);
  SV_TILE_ZERO(6);
  SV_TILE_ZERO(7);
  for (int64_t it = 0; it < iterations; it++) {
    SV_TILE_BF16(0, 4, 6);
    SV_TILE_BF16(1, 5, 6);
    SV_TILE_BF16(2, 4, 7);
    SV_TILE_BF16(3, 5, 7);
  }
  SV_TILE_RELEASE();
  return 4.0 * 16 * 16 * 32 * 2;
}

}  // namespace avx512amx
}  // namespace sv
