// Sixteen f32 lanes as a plain array, which the compiler turns into vectors. Included by vec.h alone.

namespace sv {
namespace SV_LEVEL {

// clang-format off
struct vec { float v[16]; };
#define SV_LANES for (int i = 0; i < 16; i++)
SV_INLINE vec zero() { vec r; SV_LANES r.v[i] = 0; return r; }
SV_INLINE vec splat(float x) { vec r; SV_LANES r.v[i] = x; return r; }
SV_INLINE vec load(const float* p) { vec r; memcpy(r.v, p, 64); return r; }
SV_INLINE void store(float* p, vec a) { memcpy(p, a.v, 64); }
SV_INLINE vec load_n(const float* p, int n) { vec r; SV_LANES r.v[i] = i < n ? p[i] : 0; return r; }
SV_INLINE void store_n(float* p, vec a, int n) { for (int i = 0; i < n; i++) p[i] = a.v[i]; }
SV_INLINE void store_s8(int8_t* p, vec a) { SV_LANES p[i] = a.v[i] == a.v[i] ? (int8_t)(int32_t)a.v[i] : 0; }
SV_INLINE vec add(vec a, vec b) { vec r; SV_LANES r.v[i] = a.v[i] + b.v[i]; return r; }
SV_INLINE vec sub(vec a, vec b) { vec r; SV_LANES r.v[i] = a.v[i] - b.v[i]; return r; }
SV_INLINE vec mul(vec a, vec b) { vec r; SV_LANES r.v[i] = a.v[i] * b.v[i]; return r; }
SV_INLINE vec div(vec a, vec b) { vec r; SV_LANES r.v[i] = a.v[i] / b.v[i]; return r; }
SV_INLINE vec max(vec a, vec b) { vec r; SV_LANES r.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return r; }
SV_INLINE vec min(vec a, vec b) { vec r; SV_LANES r.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return r; }
SV_INLINE vec fma(vec a, vec b, vec c) { vec r; SV_LANES r.v[i] = a.v[i] * b.v[i] + c.v[i]; return r; }
SV_INLINE vec zero_where_less(vec a, vec b, vec x) { vec r; SV_LANES r.v[i] = a.v[i] < b.v[i] ? 0 : x.v[i]; return r; }
SV_INLINE vec first_n(vec a, vec b, int n) { vec r; SV_LANES r.v[i] = i < n ? a.v[i] : b.v[i]; return r; }
SV_INLINE vec scale2(vec x, vec t) {
  vec r;
  uint32_t xb[16], tb[16];
  memcpy(xb, x.v, 64);
  memcpy(tb, t.v, 64);
  SV_LANES xb[i] += tb[i] << 23;
  memcpy(r.v, xb, 64);
  return r;
}
SV_INLINE vec from_bits(const uint32_t* b) { vec r; memcpy(r.v, b, 64); return r; }
SV_INLINE vec even_bf16(const void* p) { uint32_t w[16]; memcpy(w, p, 64); SV_LANES w[i] <<= 16; return from_bits(w); }
SV_INLINE vec odd_bf16(const void* p) { uint32_t w[16]; memcpy(w, p, 64); SV_LANES w[i] &= 0xffff0000u; return from_bits(w); }
SV_INLINE vec load_bf16(const void* p) {
  uint32_t w[16];
  SV_LANES w[i] = (uint32_t)load_u16(p, i) << 16;
  return from_bits(w);
}
SV_INLINE vec load_f16(const void* p) { vec r; SV_LANES r.v[i] = half_to_float(load_u16(p, i)); return r; }
SV_INLINE float sum_lanes(vec a) {
  for (int h = 8; h; h >>= 1) for (int i = 0; i < h; i++) a.v[i] += a.v[i + h];
  return a.v[0];
}
SV_INLINE float max_lanes(vec a) { float m = a.v[0]; SV_LANES m = a.v[i] > m ? a.v[i] : m; return m; }
SV_INLINE void transpose16(const uint32_t* const* rows, int64_t at, uint32_t* out, int64_t ld) {
  for (int w = 0; w < 16; w++) for (int r = 0; r < 16; r++) out[w * ld + r] = load_u32(rows[r], at + w);
}
// clang-format on

}  // namespace SV_LEVEL
}  // namespace sv
