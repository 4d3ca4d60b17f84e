// Products with 8-bit matrices at one instruction-set level. Layout and arithmetic in int8.h.
// The including file defines SV_LEVEL, the level macro (SV_AVX512 with VNNI, and SV_AMX for tiles; SV_AVX2; SV_NEON, and SV_DOTPROD or
// SV_I8MM; SV_PORTABLE) and SV_TABLE.
#include "int8.h"
#include "vec.h"

namespace sv {
namespace SV_LEVEL {

static float quantize_row(const float* x, int64_t k, int8_t* out) {
  vec top = zero(), poison = zero();
  for (int64_t i = 0; i < k; i += 16) {
    vec v = k - i < 16 ? load_n(x + i, (int)(k - i)) : load(x + i);
    top = max(top, max(v, sub(zero(), v)));
    poison = fma(v, zero(), poison);
  }
  const float largest = max_lanes(top), d = largest / 127.f + sum_lanes(poison);
  // The inverse is finite; smaller steps and NaN count 0 times.
  const vec inverse = splat(d > 1e-36f ? 127.f / largest : 0), magic = splat(12582912.f);
#if defined(SV_AVX512)
  const int8_t bias = -128;  // the byte a + 128, unsigned
#else
  const int8_t bias = 0;
#endif
  for (int64_t i = 0; i < int8_padded_k(k); i += 16) {
    int8_t r[16];
    store_s8(r, sub(add(mul(k - i < 16 ? load_n(x + i, (int)(k - i)) : load(x + i), inverse), magic), magic));
    for (int j = 0; j < 16; j++) r[j] = (int8_t)(r[j] ^ bias);
    const int64_t left = int8_padded_k(k) - i;
    memcpy(out + i, r, left < 16 ? (size_t)left : 16);
  }
  return d;
}

#if defined(SV_AVX512)

template <int R, int S>
SV_INLINE void sums(const int8_t* x, int64_t stride, int64_t kp, const char* w, int64_t strip_bytes, vec (*out)[S]) {
  __m512i acc[R][S];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int s = 0; s < S; s++) acc[r][s] = _mm512_setzero_si512();
  for (int64_t j = 0; j < kp / 4; j++) {
    __m512i b[S];
#pragma GCC unroll 4
    for (int s = 0; s < S; s++) b[s] = _mm512_loadu_si512(w + s * strip_bytes + j * 64);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const __m512i a = _mm512_set1_epi32(*(const int32_t*)(x + r * stride + 4 * j));
#pragma GCC unroll 4
      for (int s = 0; s < S; s++) acc[r][s] = _mm512_dpbusd_epi32(acc[r][s], a, b[s]);
    }
  }
#pragma GCC unroll 4
  for (int s = 0; s < S; s++) {
    const __m512i shift = _mm512_loadu_si512(w + s * strip_bytes + kp * 16 + 64);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) out[r][s] = {_mm512_cvtepi32_ps(_mm512_sub_epi32(acc[r][s], shift))};
  }
}
constexpr int kMaxRows = 12, kStrips = 2;

#if !defined(SV_AMX)
static double int8_loop(int64_t iterations) {
  __m512i acc[10];
#pragma GCC unroll 10  // else the sums stay in memory
  for (int i = 0; i < 10; i++) acc[i] = _mm512_set1_epi32(i);
  const __m512i x = _mm512_set1_epi8(1);
  for (int64_t it = 0; it < iterations; it++)
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++) {
      acc[i] = _mm512_dpbusd_epi32(acc[i], x, x);
      asm volatile(""
                   : "+v"(acc[i]));
    }
  return 10 * 8 * kLanes;
}
#endif

#elif defined(SV_AVX2)

/** |w| times a with w's sign: |w| is at most 128, unsigned, |a| at most 127, and two products fit 16 bits (2 * 128 * 127). */
template <int R, int S>
SV_INLINE void sums(const int8_t* x, int64_t stride, int64_t kp, const char* w, int64_t strip_bytes, vec (*out)[S]) {
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 2
  for (int s = 0; s < S; s++) {
    __m256i acc[R][2];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
    for (int64_t j = 0; j < kp / 4; j++) {
      const __m256i lo = _mm256_loadu_si256((const __m256i*)(w + s * strip_bytes + j * 64));
      const __m256i hi = _mm256_loadu_si256((const __m256i*)(w + s * strip_bytes + j * 64 + 32));
      const __m256i lo_abs = _mm256_abs_epi8(lo), hi_abs = _mm256_abs_epi8(hi);
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) {
        const __m256i a = _mm256_set1_epi32(*(const int32_t*)(x + r * stride + 4 * j));
        acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(_mm256_maddubs_epi16(lo_abs, _mm256_sign_epi8(a, lo)), ones));
        acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(_mm256_maddubs_epi16(hi_abs, _mm256_sign_epi8(a, hi)), ones));
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) out[r][s] = {_mm256_cvtepi32_ps(acc[r][0]), _mm256_cvtepi32_ps(acc[r][1])};
  }
}
constexpr int kMaxRows = 4, kStrips = 1;

/** Unsigned by signed with sums in 16 bits, as 4-bit products are; what follows every eighth step is left out. */
static double int8_loop(int64_t iterations) {
  __m256i acc[10];
#pragma GCC unroll 10
  for (int i = 0; i < 10; i++) acc[i] = _mm256_set1_epi32(i);
  __m256i x = _mm256_set1_epi8(1);
  for (int64_t it = 0; it < iterations; it++) {
    asm volatile(""
                 : "+x"(x));
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++) {
      __m256i pairs = _mm256_maddubs_epi16(x, x);
      asm volatile(""
                   : "+x"(pairs));
      acc[i] = _mm256_add_epi16(acc[i], pairs);
      asm volatile(""
                   : "+x"(acc[i]));
    }
  }
  return 10 * 8 * (kLanes / 2);
}

#elif defined(SV_NEON)

}  // namespace SV_LEVEL
}  // namespace sv
#include "int8_neon.inl"
namespace sv {
namespace SV_LEVEL {

#else

template <int R, int S>
SV_INLINE void sums(const int8_t* x, int64_t stride, int64_t kp, const char* w, int64_t strip_bytes, vec (*out)[S]) {
  for (int s = 0; s < S; s++)
    for (int r = 0; r < R; r++) {
      int32_t acc[16] = {0};
      for (int64_t j = 0; j < kp / 4; j++)
        for (int lane = 0; lane < 16; lane++)
          for (int b = 0; b < 4; b++) acc[lane] += (int8_t)w[s * strip_bytes + j * 64 + lane * 4 + b] * x[r * stride + 4 * j + b];
      for (int lane = 0; lane < 16; lane++) out[r][s].v[lane] = (float)acc[lane];
    }
}
constexpr int kMaxRows = 4, kStrips = 1;
constexpr double (*int8_loop)(int64_t) = nullptr;

#endif

template <int R, int S>
SV_INLINE void block(const int8_t* x, int64_t stride, const float* d, int64_t kp, const char* w, int64_t strip_bytes, float* out,
                     int64_t ldo) {
  vec acc[R][S];
  sums<R, S>(x, stride, kp, w, strip_bytes, acc);
#pragma GCC unroll 4
  for (int s = 0; s < S; s++) {
    const vec scale = load((const float*)(w + s * strip_bytes + kp * 16));
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) store(out + r * ldo + s * kLanes, mul(acc[r][s], mul(scale, splat(d[r]))));
  }
}

template <int R>
static void rows_by_strips(int rows, const int8_t* x, int64_t stride, const float* d, int64_t kp, const char* w,
                           int64_t strip_bytes, int64_t strips, float* out, int64_t ldo) {
  if (rows < R) {
    if constexpr (R > 1) rows_by_strips<R - 1>(rows, x, stride, d, kp, w, strip_bytes, strips, out, ldo);
    return;
  }
  int64_t s = 0;
  for (; s + kStrips <= strips; s += kStrips)
    block<R, kStrips>(x, stride, d, kp, w + s * strip_bytes, strip_bytes, out + s * kLanes, ldo);
  for (; s < strips; s++) block<R, 1>(x, stride, d, kp, w + s * strip_bytes, strip_bytes, out + s * kLanes, ldo);
}

}  // namespace SV_LEVEL
}  // namespace sv

#if defined(SV_AMX)
#include "int8_amx.inl"
#endif

namespace sv {
namespace SV_LEVEL {

static void matmul_int8(const int8_t* x, int64_t stride, const float* d, int64_t rows, int64_t kp, const char* w,
                        int64_t strip_bytes, int64_t strips, float* out, int64_t ldo) {
#if defined(SV_AMX)
  if (rows > 4) return matmul_tiles(x, stride, d, rows, kp, w, strip_bytes, strips, out, ldo);
#endif
  for (int64_t r = 0; r < rows;) {
    const int64_t left = rows - r;
    const int n = left <= kMaxRows ? (int)left : (left < 2 * kMaxRows ? (int)((left + 1) / 2) : kMaxRows);
    rows_by_strips<kMaxRows>(n, x + r * stride, stride, d + r, kp, w, strip_bytes, strips, out + r * ldo, ldo);
    r += n;
  }
}

}  // namespace SV_LEVEL

const Int8Kernels SV_TABLE = {SV_LEVEL_NAME, SV_LEVEL::quantize_row, SV_LEVEL::matmul_int8, SV_LEVEL::int8_loop};

}  // namespace sv
