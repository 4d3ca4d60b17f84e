// Products of many rows with 8-bit matrices on matrix tiles. The integer sums are exact, so the bits are those of every
// other level. Included by int8.inl.
#include "amx.h"

namespace sv {
namespace SV_LEVEL {

/** Sums of two activation tiles by two strips over steps of 64 inputs -> sums[strip][tile][16][16]. */
template <bool kSecond, bool kTwoStrips>
SV_INLINE void step_sums(const int8_t* a, int64_t lda, const char* w0, const char* w1, int64_t steps, int32_t (*sums)[2][256]) {
  SV_TILE_ZERO(0);
  if (kSecond) SV_TILE_ZERO(1);
  if (kTwoStrips) SV_TILE_ZERO(2);
  if (kSecond && kTwoStrips) SV_TILE_ZERO(3);
  for (int64_t i = 0; i < steps; i++) {
    SV_TILE_LOAD(4, a + i * 64, lda);
    SV_TILE_LOAD(6, w0 + i * 1024, 64);
    SV_TILE_US(0, 4, 6);
    if (kSecond) {
      SV_TILE_LOAD(5, a + 16 * lda + i * 64, lda);
      SV_TILE_US(1, 5, 6);
    }
    if (kTwoStrips) {
      SV_TILE_LOAD(7, w1 + i * 1024, 64);
      SV_TILE_US(2, 4, 7);
      if (kSecond) SV_TILE_US(3, 5, 7);
    }
  }
  SV_TILE_STORE(0, sums[0][0], 64);
  if (kSecond) SV_TILE_STORE(1, sums[0][1], 64);
  if (kTwoStrips) SV_TILE_STORE(2, sums[1][0], 64);
  if (kSecond && kTwoStrips) SV_TILE_STORE(3, sums[1][1], 64);
}

/** One or two strips by up to 32 rows; the quads after the last whole step are added without tiles. */
template <bool kTwoStrips>
SV_INLINE void tile_block(const int8_t* x, int64_t stride, const float* d, int64_t rows, int64_t kp, const char* w,
                          int64_t strip_bytes, float* out, int64_t ldo) {
  alignas(64) int32_t sums[2][2][256];
  const int64_t steps = kp / 64;
  if (rows > 16) step_sums<true, kTwoStrips>(x, stride, w, w + strip_bytes, steps, sums);
  else step_sums<false, kTwoStrips>(x, stride, w, w + strip_bytes, steps, sums);
  for (int s = 0; s < (kTwoStrips ? 2 : 1); s++) {
    const char* end = w + s * strip_bytes + kp * 16;
    const vec scale = load((const float*)end);
    const __m512i shift = _mm512_loadu_si512(end + 64);
    for (int64_t r = 0; r < rows; r++) {
      __m512i acc = _mm512_load_si512(sums[s][r / 16] + r % 16 * 16);
      for (int64_t j = steps * 16; j < kp / 4; j++)
        acc = _mm512_dpbusd_epi32(acc, _mm512_set1_epi32(*(const int32_t*)(x + r * stride + 4 * j)),
                                  _mm512_loadu_si512(w + s * strip_bytes + j * 64));
      const vec v = {_mm512_cvtepi32_ps(_mm512_sub_epi32(acc, shift))};
      store(out + r * ldo + s * kLanes, mul(v, mul(scale, splat(d[r]))));
    }
  }
}

static void matmul_tiles(const int8_t* x, int64_t stride, const float* d, int64_t rows, int64_t kp, const char* w,
                         int64_t strip_bytes, int64_t strips, float* out, int64_t ldo) {
  int64_t shape = -1;
  for (int64_t s = 0; s < strips; s += 2)
    for (int64_t r = 0; r < rows; r += 32) {
      const int64_t n = rows - r < 32 ? rows - r : 32;
      if (shape != n) tile_shape((int)(n < 16 ? n : 16), (int)(n < 16 ? 0 : n - 16), 64);
      shape = n;
      (s + 1 < strips ? tile_block<true> : tile_block<false>)(x + r * stride, stride, d + r, n, kp, w + s * strip_bytes, strip_bytes,
                                                              out + r * ldo + s * kLanes, ldo);
    }
  SV_TILE_RELEASE();
}

static double int8_loop(int64_t iterations) {
  tile_shape(16, 16, 64);
  SV_TILE_ZERO(4);
  SV_TILE_ZERO(5);
  SV_TILE_ZERO(6);
  SV_TILE_ZERO(7);
  for (int64_t it = 0; it < iterations; it++) {
    SV_TILE_US(0, 4, 6);
    SV_TILE_US(1, 5, 6);
    SV_TILE_US(2, 4, 7);
    SV_TILE_US(3, 5, 7);
  }
  SV_TILE_RELEASE();
  return 4.0 * 16 * 16 * 64 * 2;
}

}  // namespace SV_LEVEL
}  // namespace sv
