// Norms, activations, rotary embedding and conversions on one row. Included once per instruction-set level.
// Sums use 16 lanes, then a fixed tree, so they agree at every level.

namespace sv {
namespace SV_LEVEL {

#define SV_EACH_VEC(n) for (int64_t i = 0, left; i < (n) && (left = (n)-i < kLanes ? (n)-i : kLanes, true); i += kLanes)
SV_INLINE vec load_part(const float* p, int64_t n) { return n == kLanes ? load(p) : load_n(p, (int)n); }
SV_INLINE void store_part(float* p, vec x, int64_t n) {
  if (n == kLanes) store(p, x);
  else store_n(p, x, (int)n);
}

/** y = x / sqrt(mean(x^2) + eps) * w. */
static void rms_norm(const float* x, const float* w, float eps, int64_t d, float* y) {
  vec s = zero();
  SV_EACH_VEC(d) {
    vec v = load_part(x + i, left);
    s = fma(v, v, s);
  }
  vec inv = splat(1.f / __builtin_sqrtf(sum_lanes(s) / (float)d + eps));
  SV_EACH_VEC(d) store_part(y + i, mul(mul(load_part(x + i, left), inv), load_part(w + i, left)), left);
}

/** y = (x - mean) / sqrt(var + eps) * w + b, the variance from centerd values. */
static void layer_norm(const float* x, const float* w, const float* b, float eps, int64_t d, float* y) {
  vec s = zero();
  SV_EACH_VEC(d) s = add(s, load_part(x + i, left));
  vec mean = splat(sum_lanes(s) / (float)d), q = zero();
  SV_EACH_VEC(d) {
    vec v = first_n(sub(load_part(x + i, left), mean), zero(), (int)left);
    q = fma(v, v, q);
  }
  vec inv = splat(1.f / __builtin_sqrtf(sum_lanes(q) / (float)d + eps));
  SV_EACH_VEC(d) {
    vec v = mul(sub(load_part(x + i, left), mean), inv);
    store_part(y + i, fma(v, load_part(w + i, left), load_part(b + i, left)), left);
  }
}

/** erf, |error| < 1.5e-7 (Abramowitz and Stegun 7.1.26). */
SV_INLINE vec erf(vec x) {
  vec a = max(x, sub(zero(), x));
  vec t = div(splat(1.f), fma(splat(0.3275911f), a, splat(1.f)));
  vec p = fma(splat(1.061405429f), t, splat(-1.453152027f));
  p = fma(p, t, splat(1.421413741f));
  p = fma(p, t, splat(-0.284496736f));
  p = fma(p, t, splat(0.254829592f));
  vec e = sub(splat(1.f), mul(mul(p, t), exp(sub(zero(), mul(a, a)))));
  vec negative = sub(zero(), e), none = zero_where_less(zero(), x, splat(1.f));  // 0 where x > 0
  return add(mul(none, negative), mul(sub(splat(1.f), none), e));
}

SV_INLINE vec activation(vec x, int32_t kind) {
  if (kind == kGeluTanh) {  // 0.5 x (1 + tanh u) = x sigmoid(2u)
    vec u = mul(x, fma(mul(x, x), splat(0.044715f * 1.5957691216057308f), splat(1.5957691216057308f)));
    return mul(x, sigmoid(u));
  }
  if (kind == kGeluErf) return mul(mul(x, splat(0.5f)), add(splat(1.f), erf(mul(x, splat(0.70710678118654752f)))));
  if (kind == kQuickGelu) return mul(x, sigmoid(mul(x, splat(1.702f))));
  if (kind == kSilu) return mul(x, sigmoid(x));
  if (kind == kSigmoid) return sigmoid(x);
  return x;
}

static void activate(float* x, int64_t n, int32_t kind) {
  if (kind == kNone) return;
  SV_EACH_VEC(n) store_part(x + i, activation(load_part(x + i, left), kind), left);
}

static void gated_mul(const float* gate, const float* up, int64_t n, int32_t kind, float* y) {
  SV_EACH_VEC(n) store_part(y + i, mul(activation(load_part(gate + i, left), kind), load_part(up + i, left)), left);
}

static void add_rows(const float* a, const float* b, int64_t n, float* y) {
  SV_EACH_VEC(n) store_part(y + i, add(load_part(a + i, left), load_part(b + i, left)), left);
}

static void mul_rows(const float* a, const float* b, int64_t n, float* y) {
  SV_EACH_VEC(n) store_part(y + i, mul(load_part(a + i, left), load_part(b + i, left)), left);
}

/** Half-rotation: (a, b) -> (a cos - b sin, b cos + a sin), a the first half of the head, b the second. */
static void rope(float* x, const float* cos, const float* sin, int64_t half) {
  SV_EACH_VEC(half) {
    vec a = load_part(x + i, left), b = load_part(x + half + i, left);
    vec c = load_part(cos + i, left), s = load_part(sin + i, left);
    vec first = sub(mul(a, c), mul(b, s)), second = add(mul(b, c), mul(a, s));
    store_part(x + i, first, left);
    store_part(x + half + i, second, left);
  }
}

static void to_bf16_row(const float* x, int64_t n, uint16_t* y) {
  int64_t i = 0;
#if defined(SV_AVX512)
  for (; i + 16 <= n; i += 16) {  // round to nearest even; NaN keeps its payload's top bits and is made quiet
    __m512i u = _mm512_loadu_si512(x + i);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(_mm512_castsi512_ps(u), _mm512_castsi512_ps(u), _CMP_UNORD_Q);
    r = _mm512_mask_or_epi32(r, nan, _mm512_srli_epi32(u, 16), _mm512_set1_epi32(64));
    _mm256_storeu_si256((__m256i*)(y + i), _mm512_cvtepi32_epi16(r));
  }
#endif
  for (; i < n; i++) y[i] = to_bf16(x[i]);
}
static void bf16_rest_row(const float* x, int64_t n, const uint16_t* hi, uint16_t* rest) {
  float left[16];
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t m = n - i < 16 ? n - i : 16;
    if (m == 16) store(left, sub(load(x + i), load_bf16(hi + i)));
    else
      for (int64_t j = 0; j < m; j++) {
        const uint32_t u = (uint32_t)hi[i + j] << 16;
        float h;
        memcpy(&h, &u, 4);
        left[j] = x[i + j] - h;
      }
    to_bf16_row(left, m, rest + i);
    for (int64_t j = 0; j < m; j++) rest[i + j] = (hi[i + j] & 0x7f80) == 0x7f80 ? 0 : rest[i + j];
  }
}
static void from_bf16_row(const void* x, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, load_bf16((const char*)x + i * 2));
  for (; i < n; i++) {
    uint32_t u = (uint32_t)load_u16(x, i) << 16;
    memcpy(y + i, &u, 4);
  }
}
static void from_f16_row(const void* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i++) y[i] = half_to_float(load_u16(x, i));
}

/** 16 rows of `words` 32-bit words -> out[word][16]; ld words between output rows. */
static void transpose_words(const uint32_t* const* rows, int64_t words, uint32_t* out, int64_t ld) {
  int64_t w = 0;
  for (; w + 16 <= words; w += 16) transpose16(rows, w, out + w * ld, ld);
  for (; w < words; w++)
    for (int r = 0; r < 16; r++) out[w * ld + r] = load_u32(rows[r], w);
}

/** The arithmetic of sample_weight (sample.h), step by step, for sixteen logits at once. */
static void sample_weights(const float* logits, int64_t n, float highest, float temperature, float* weights) {
  const vec top = splat(highest), t = splat(temperature), shift = splat(12582912.f), whole = splat(17179869184.f);  // 2^34
  const float rest[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
  SV_EACH_VEC(n) {
    const vec x = div(sub(load_part(logits + i, left), top), t), c = max(splat(-24.f), x);
    const vec power = add(mul(c, splat(1.44269504f)), shift), k = sub(power, shift);
    const vec r = sub(sub(c, mul(k, splat(0.693359375f))), mul(k, splat(-2.12194440e-4f)));
    vec p = splat(1.9875691500e-4f);
    for (float term : rest) p = add(mul(p, r), splat(term));
    p = add(add(mul(p, mul(r, r)), r), splat(1.f));
    store_part(weights + i, zero_where_less(x, splat(-23.6f), mul(scale2(p, power), whole)), left);
  }
}

}  // namespace SV_LEVEL
}  // namespace sv
