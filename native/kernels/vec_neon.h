// Sixteen f32 lanes as four NEON registers, with the semantics of vec.h: maxima and minima give the second operand where a
// comparison fails, sums over lanes take the same tree. Included by vec.h alone.
#include <arm_neon.h>

namespace sv {
namespace SV_LEVEL {

struct vec {
  float32x4_t q[4];
};
// clang-format off
#define SV_QUARTERS(r, expression) vec r; _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) r.q[i] = expression; return r
SV_INLINE vec splat(float x) { SV_QUARTERS(r, vdupq_n_f32(x)); }
SV_INLINE vec zero() { return splat(0); }
SV_INLINE vec load(const float* p) { SV_QUARTERS(r, vld1q_f32(p + 4 * i)); }
SV_INLINE vec add(vec a, vec b) { SV_QUARTERS(r, vaddq_f32(a.q[i], b.q[i])); }
SV_INLINE vec sub(vec a, vec b) { SV_QUARTERS(r, vsubq_f32(a.q[i], b.q[i])); }
SV_INLINE vec mul(vec a, vec b) { SV_QUARTERS(r, vmulq_f32(a.q[i], b.q[i])); }
SV_INLINE vec div(vec a, vec b) { SV_QUARTERS(r, vdivq_f32(a.q[i], b.q[i])); }
SV_INLINE vec max(vec a, vec b) { SV_QUARTERS(r, vbslq_f32(vcgtq_f32(a.q[i], b.q[i]), a.q[i], b.q[i])); }
SV_INLINE vec min(vec a, vec b) { SV_QUARTERS(r, vbslq_f32(vcltq_f32(a.q[i], b.q[i]), a.q[i], b.q[i])); }
SV_INLINE vec fma(vec a, vec b, vec c) { SV_QUARTERS(r, vfmaq_f32(c.q[i], a.q[i], b.q[i])); }
SV_INLINE float32x4_t from_words(uint32x4_t w) { return vreinterpretq_f32_u32(w); }
SV_INLINE uint32x4_t words_of(float32x4_t x) { return vreinterpretq_u32_f32(x); }
SV_INLINE vec zero_where_less(vec a, vec b, vec x) { SV_QUARTERS(r, from_words(vbicq_u32(words_of(x.q[i]), vcltq_f32(a.q[i], b.q[i])))); }
SV_INLINE vec scale2(vec x, vec t) { SV_QUARTERS(r, from_words(vaddq_u32(words_of(x.q[i]), vshlq_n_u32(words_of(t.q[i]), 23)))); }
SV_INLINE vec from_sums(const int32x4_t* s) { SV_QUARTERS(r, vcvtq_f32_s32(s[i])); }
// clang-format on
SV_INLINE void store(float* p, vec a) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, a.q[i]);
}
SV_INLINE vec load_n(const float* p, int n) {
  float t[16] = {0};
  for (int i = 0; i < n; i++) t[i] = p[i];
  return load(t);
}
SV_INLINE void store_n(float* p, vec a, int n) {
  float t[16];
  store(t, a);
  for (int i = 0; i < n; i++) p[i] = t[i];
}
SV_INLINE void store_s8(int8_t* p, vec a) {
  const int16x8_t low = vcombine_s16(vmovn_s32(vcvtq_s32_f32(a.q[0])), vmovn_s32(vcvtq_s32_f32(a.q[1])));
  const int16x8_t high = vcombine_s16(vmovn_s32(vcvtq_s32_f32(a.q[2])), vmovn_s32(vcvtq_s32_f32(a.q[3])));
  vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}
SV_INLINE vec first_n(vec a, vec b, int n) {
  const uint32_t lanes[4] = {0, 1, 2, 3};
  const int32x4_t lane = vreinterpretq_s32_u32(vld1q_u32(lanes));
  vec r;
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) r.q[i] = vbslq_f32(vcltq_s32(lane, vdupq_n_s32(n - 4 * i)), a.q[i], b.q[i]);
  return r;
}
/** Words at p, which needs no alignment. */
SV_INLINE uint32x4_t load_words(const void* p) { return vreinterpretq_u32_u8(vld1q_u8((const uint8_t*)p)); }
SV_INLINE uint16x4_t load_halves(const void* p) { return vreinterpret_u16_u8(vld1_u8((const uint8_t*)p)); }
SV_INLINE vec even_bf16(const void* p) {
  vec r;
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) r.q[i] = from_words(vshlq_n_u32(load_words((const char*)p + 16 * i), 16));
  return r;
}
SV_INLINE vec odd_bf16(const void* p) {
  vec r;
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) r.q[i] = from_words(vandq_u32(load_words((const char*)p + 16 * i), vdupq_n_u32(0xffff0000u)));
  return r;
}
SV_INLINE vec load_bf16(const void* p) {
  vec r;
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) r.q[i] = from_words(vshll_n_u16(load_halves((const char*)p + 8 * i), 16));
  return r;
}
SV_INLINE vec load_f16(const void* p) {
  vec r;
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) r.q[i] = vcvt_f32_f16(vreinterpret_f16_u16(load_halves((const char*)p + 8 * i)));
  return r;
}
SV_INLINE float sum_lanes(vec a) {
  const float32x4_t s = vaddq_f32(vaddq_f32(a.q[0], a.q[2]), vaddq_f32(a.q[1], a.q[3]));
  const float32x2_t t = vadd_f32(vget_low_f32(s), vget_high_f32(s));
  return vget_lane_f32(t, 0) + vget_lane_f32(t, 1);
}
SV_INLINE float max_lanes(vec a) {
  const float32x4_t s = vbslq_f32(vcgtq_f32(a.q[0], a.q[2]), a.q[0], a.q[2]), t = vbslq_f32(vcgtq_f32(a.q[1], a.q[3]), a.q[1], a.q[3]);
  float lanes[4];
  vst1q_f32(lanes, vbslq_f32(vcgtq_f32(s, t), s, t));
  const float even = lanes[0] > lanes[2] ? lanes[0] : lanes[2], odd = lanes[1] > lanes[3] ? lanes[1] : lanes[3];
  return even > odd ? even : odd;
}
/** out[w * ld + row] = rows[row][w] for 16 rows of 16 words, in blocks of 4 x 4. */
SV_INLINE void transpose16(const uint32_t* const* rows, int64_t at, uint32_t* out, int64_t ld) {
  for (int r = 0; r < 16; r += 4)
#pragma GCC unroll 4
    for (int w = 0; w < 16; w += 4) {
      const uint32x4_t x0 = load_words(rows[r] + at + w), x1 = load_words(rows[r + 1] + at + w);
      const uint32x4_t x2 = load_words(rows[r + 2] + at + w), x3 = load_words(rows[r + 3] + at + w);
      const uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(x0, x1)), b = vreinterpretq_u64_u32(vtrn2q_u32(x0, x1));
      const uint64x2_t c = vreinterpretq_u64_u32(vtrn1q_u32(x2, x3)), d = vreinterpretq_u64_u32(vtrn2q_u32(x2, x3));
      vst1q_u32(out + w * ld + r, vreinterpretq_u32_u64(vtrn1q_u64(a, c)));
      vst1q_u32(out + (w + 1) * ld + r, vreinterpretq_u32_u64(vtrn1q_u64(b, d)));
      vst1q_u32(out + (w + 2) * ld + r, vreinterpretq_u32_u64(vtrn2q_u64(a, c)));
      vst1q_u32(out + (w + 3) * ld + r, vreinterpretq_u32_u64(vtrn2q_u64(b, d)));
    }
}

}  // namespace SV_LEVEL
}  // namespace sv
