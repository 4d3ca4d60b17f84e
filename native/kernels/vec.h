// Sixteen f32 lanes at every instruction-set level: one zmm, two ymm, four NEON registers, or a plain array.
// The including file defines SV_LEVEL (the namespace) and one of SV_AVX512, SV_AVX2, SV_NEON, SV_PORTABLE.
// Every operation gives the same bits at the AVX2, AVX-512 and NEON levels (fused multiply-add, fixed reduction trees);
// the portable level multiplies and adds without fusing, because a library fma without hardware is ~50x slower.
// Knows no ops. No function here may be emitted as a weak symbol (all are static and inlined).
#pragma once
#include <stdint.h>
#include <string.h>
#if defined(SV_AVX512) || defined(SV_AVX2)
#include <immintrin.h>
#endif

#define SV_INLINE static inline __attribute__((always_inline))

namespace sv {
namespace SV_LEVEL {

SV_INLINE float half_to_float(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 1023, bits;
  if (exponent == 31) bits = sign | 0x7f800000 | (mantissa << 13);
  else if (exponent) bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
  else {  // subnormal: mantissa * 2^-24, exact
    float f = (float)mantissa * 5.9604644775390625e-8f;
    memcpy(&bits, &f, 4);
    bits |= sign;
  }
  float out;
  memcpy(&out, &bits, 4);
  return out;
}

/** Number i at p, which needs no alignment: weights lie anywhere in a file, and bf16 rows of an odd width anywhere in a cache. */
SV_INLINE uint16_t load_u16(const void* p, int64_t i) {
  uint16_t value;
  memcpy(&value, (const char*)p + i * 2, 2);
  return value;
}
SV_INLINE uint32_t load_u32(const void* p, int64_t i) {
  uint32_t value;
  memcpy(&value, (const char*)p + i * 4, 4);
  return value;
}

}  // namespace SV_LEVEL
}  // namespace sv

#if defined(SV_NEON)
#include "vec_neon.h"
#elif defined(SV_PORTABLE)
#include "vec_portable.h"
#endif

namespace sv {
namespace SV_LEVEL {

#if defined(SV_AVX512)

struct vec {
  __m512 v;
};
SV_INLINE vec zero() { return {_mm512_setzero_ps()}; }
SV_INLINE vec splat(float x) { return {_mm512_set1_ps(x)}; }
SV_INLINE vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
SV_INLINE vec load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p)}; }
SV_INLINE void store(float* p, vec a) { _mm512_storeu_ps(p, a.v); }
SV_INLINE void store_n(float* p, vec a, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a.v); }
/** Whole numbers of magnitude below 128 as bytes; NaN gives 0. */
SV_INLINE void store_s8(int8_t* p, vec a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v))); }
SV_INLINE vec add(vec a, vec b) { return {_mm512_add_ps(a.v, b.v)}; }
SV_INLINE vec sub(vec a, vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
SV_INLINE vec mul(vec a, vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
SV_INLINE vec div(vec a, vec b) { return {_mm512_div_ps(a.v, b.v)}; }
SV_INLINE vec max(vec a, vec b) { return {_mm512_max_ps(a.v, b.v)}; }
SV_INLINE vec min(vec a, vec b) { return {_mm512_min_ps(a.v, b.v)}; }
SV_INLINE vec fma(vec a, vec b, vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
/** where a < b: 0, else x. */
SV_INLINE vec zero_where_less(vec a, vec b, vec x) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_NLT_UQ), x.v)};
}
/** The first n lanes of a, the others of b. */
SV_INLINE vec first_n(vec a, vec b, int n) { return {_mm512_mask_blend_ps((__mmask16)((1u << n) - 1), b.v, a.v)}; }
/** x * 2^k, where k is the integer in the low mantissa bits of t = x' + 1.5 * 2^23. */
SV_INLINE vec scale2(vec x, vec t) {
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x.v), _mm512_slli_epi32(_mm512_castps_si512(t.v), 23)))};
}
SV_INLINE vec even_bf16(const void* p) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16))}; }
SV_INLINE vec odd_bf16(const void* p) {
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32((int)0xffff0000)))};
}
SV_INLINE vec load_bf16(const void* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16))};
}
SV_INLINE vec load_f16(const void* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
SV_INLINE float sum_lanes(vec a) {
  __m256 r = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(r), _mm256_extractf128_ps(r, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
SV_INLINE float max_lanes(vec a) { return _mm512_reduce_max_ps(a.v); }
/** out[w * ld + row] = rows[row][w] for 16 rows of 16 32-bit words. The 128-bit quarters fall into place while loading, so
 *  that only a 4 x 4 transpose inside each lane is left to the shuffle unit. */
SV_INLINE void transpose16(const uint32_t* const* rows, int64_t at, uint32_t* out, int64_t ld) {
#pragma GCC unroll 4
  for (int q = 0; q < 4; q++) {
    __m512i x[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      const uint32_t* const* r = rows + i;
      const int64_t w = at + 4 * q;
      x[i] = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i*)(r[0] + w)));
      x[i] = _mm512_inserti32x4(x[i], _mm_loadu_si128((const __m128i*)(r[4] + w)), 1);
      x[i] = _mm512_inserti32x4(x[i], _mm_loadu_si128((const __m128i*)(r[8] + w)), 2);
      x[i] = _mm512_inserti32x4(x[i], _mm_loadu_si128((const __m128i*)(r[12] + w)), 3);
    }
    const __m512i a = _mm512_unpacklo_epi32(x[0], x[1]), b = _mm512_unpackhi_epi32(x[0], x[1]);
    const __m512i c = _mm512_unpacklo_epi32(x[2], x[3]), d = _mm512_unpackhi_epi32(x[2], x[3]);
    _mm512_storeu_si512(out + (4 * q) * ld, _mm512_unpacklo_epi64(a, c));
    _mm512_storeu_si512(out + (4 * q + 1) * ld, _mm512_unpackhi_epi64(a, c));
    _mm512_storeu_si512(out + (4 * q + 2) * ld, _mm512_unpacklo_epi64(b, d));
    _mm512_storeu_si512(out + (4 * q + 3) * ld, _mm512_unpackhi_epi64(b, d));
  }
}

#elif defined(SV_AVX2)

struct vec {
  __m256 a, b;
};
SV_INLINE vec zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
SV_INLINE vec splat(float x) {
  __m256 v = _mm256_set1_ps(x);
  return {v, v};
}
SV_INLINE vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
SV_INLINE void store(float* p, vec x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
SV_INLINE vec load_n(const float* p, int n) {
  float t[16] = {0};
  for (int i = 0; i < n; i++) t[i] = p[i];
  return load(t);
}
SV_INLINE void store_n(float* p, vec x, int n) {
  float t[16];
  store(t, x);
  for (int i = 0; i < n; i++) p[i] = t[i];
}
SV_INLINE void store_s8(int8_t* p, vec x) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)), 0xd8);
  _mm_storeu_si128((__m128i*)p, _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
SV_INLINE vec add(vec x, vec y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
SV_INLINE vec sub(vec x, vec y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
SV_INLINE vec mul(vec x, vec y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
SV_INLINE vec div(vec x, vec y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
SV_INLINE vec max(vec x, vec y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
SV_INLINE vec min(vec x, vec y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
SV_INLINE vec fma(vec x, vec y, vec z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
SV_INLINE vec zero_where_less(vec x, vec y, vec z) {
  return {_mm256_and_ps(_mm256_cmp_ps(x.a, y.a, _CMP_NLT_UQ), z.a), _mm256_and_ps(_mm256_cmp_ps(x.b, y.b, _CMP_NLT_UQ), z.b)};
}
SV_INLINE vec first_n(vec x, vec y, int n) {
  __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  __m256 ma = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane));
  __m256 mb = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), lane));
  return {_mm256_blendv_ps(y.a, x.a, ma), _mm256_blendv_ps(y.b, x.b, mb)};
}
SV_INLINE __m256 scale2_half(__m256 x, __m256 t) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}
SV_INLINE vec scale2(vec x, vec t) { return {scale2_half(x.a, t.a), scale2_half(x.b, t.b)}; }
SV_INLINE vec even_bf16(const void* p) {
  const __m256i* w = (const __m256i*)p;
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(w), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(w + 1), 16))};
}
SV_INLINE vec odd_bf16(const void* p) {
  const __m256i* w = (const __m256i*)p;
  const __m256i mask = _mm256_set1_epi32((int)0xffff0000);
  return {_mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(w), mask)),
          _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(w + 1), mask))};
}
SV_INLINE vec load_bf16(const void* p) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p + 1)), 16))};
}
SV_INLINE vec load_f16(const void* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p + 1))};
}
SV_INLINE float sum_lanes(vec x) {
  __m256 r = _mm256_add_ps(x.a, x.b);
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(r), _mm256_extractf128_ps(r, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
SV_INLINE float max_lanes(vec x) {
  __m256 r = _mm256_max_ps(x.a, x.b);
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(r), _mm256_extractf128_ps(r, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
SV_INLINE void transpose8(const uint32_t* const* rows, int64_t at, uint32_t* out, int64_t ld) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; i++) a[i] = _mm256_loadu_ps((const float*)(rows[i] + at));
  for (int i = 0; i < 4; i++) {
    b[2 * i] = _mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]);
    b[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]);
  }
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 2; j++) {
      a[4 * i + 2 * j] = _mm256_shuffle_ps(b[4 * i + j], b[4 * i + j + 2], 0x44);
      a[4 * i + 2 * j + 1] = _mm256_shuffle_ps(b[4 * i + j], b[4 * i + j + 2], 0xee);
    }
  for (int j = 0; j < 4; j++) {
    _mm256_storeu_ps((float*)(out + j * ld), _mm256_permute2f128_ps(a[j], a[4 + j], 0x20));
    _mm256_storeu_ps((float*)(out + (4 + j) * ld), _mm256_permute2f128_ps(a[j], a[4 + j], 0x31));
  }
}
SV_INLINE void transpose16(const uint32_t* const* rows, int64_t at, uint32_t* out, int64_t ld) {
  for (int r = 0; r < 16; r += 8)
    for (int w = 0; w < 16; w += 8) transpose8(rows + r, at + w, out + w * ld + r, ld);
}

#endif

/** e^x, about 1e-7 relative; 0 below -87.33 (so e^-inf = 0), clamped at 88.37. Range reduction by ln 2 in two parts and
 *  the degree-6 polynomial of the Cephes library's expf. */
SV_INLINE vec exp(vec x) {
  vec low = splat(-87.33f), c = min(splat(88.37f), max(low, x));  // this order lets NaN through
  vec t = fma(c, splat(1.44269504088896341f), splat(12582912.f)), n = sub(t, splat(12582912.f));
  vec r = fma(n, splat(-0.693359375f), c);
  r = fma(n, splat(2.12194440e-4f), r);
  vec p = fma(splat(1.9875691500e-4f), r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = add(fma(mul(r, r), p, r), splat(1.f));
  // Adding to the exponent bits can turn a NaN into a number; e^x > x, so this maximum changes nothing but NaN.
  return zero_where_less(x, low, max(scale2(p, t), c));
}
SV_INLINE vec sigmoid(vec x) { return div(splat(1.f), add(splat(1.f), exp(sub(zero(), x)))); }
SV_INLINE float exp1(float x) {
  float t[16];
  store(t, exp(splat(x)));
  return t[0];
}

/** f32 -> bf16, round to nearest even; NaN stays NaN. */
SV_INLINE uint16_t to_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)((u >> 16) | 64);
  return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

}  // namespace SV_LEVEL
}  // namespace sv
