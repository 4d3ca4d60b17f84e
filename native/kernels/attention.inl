// Exact softmax attention over fixed chunks of 128 key rows, which may be gathered through an index.
//   s_ij = q_i . k_j   p_ij = e^(s_ij - m_i)   o_i = sum_j p_ij v_j   l_i = sum_j p_ij
// Each chunk gives a partial (m, l, o) of its own; partials are merged in order (the online softmax of Milakov and
// Gimelshein, at chunk granularity). Because chunk borders are fixed positions in the row list, a query's result does not
// depend on which other queries share its strip, on how chunks are spread over threads, or on rows it cannot see.
// Included once per instruction-set level.

namespace sv {
namespace SV_LEVEL {

SV_INLINE int64_t row_at(const AttentionRows& r, int64_t i) { return i < r.n_rows ? r.rows[i] : r.tail + (i - r.n_rows); }

/** Keys [begin, begin + n) -> kt[c][128] f32, keys in lanes; missing keys of the last 16 repeat the last one. */
SV_INLINE void pack_keys(const AttentionStrip& a, int64_t begin, int64_t n, float* kt) {
  const char* p[kAttentionChunk];
  const int64_t groups = (n + 15) / 16;
  for (int64_t i = 0; i < groups * 16; i++) p[i] = a.rows.k + row_at(a.rows, begin + (i < n ? i : n - 1)) * a.rows.stride;
  for (int64_t g = 0; g < groups; g++) {
    const uint32_t* const* rows = (const uint32_t* const*)(p + g * 16);
    if (!a.rows.bf16) {
      transpose_words(rows, a.c, (uint32_t*)kt + g * 16, kAttentionChunk);
      continue;
    }
    // bf16: transpose pairs as words, then widen in place from the end: word w becomes rows 2w and 2w + 1.
    const int64_t words = a.c / 2;
    uint32_t t[16 * 16];
    for (int64_t w0 = 0; w0 < words; w0 += 16) {
      const int64_t wn = words - w0 < 16 ? words - w0 : 16;
      if (wn == 16) transpose16(rows, w0, t, 16);
      else
        for (int64_t w = 0; w < wn; w++)
          for (int r = 0; r < 16; r++) t[w * 16 + r] = load_u32(rows[r], w0 + w);
      for (int64_t w = 0; w < wn; w++) {
        float* out = kt + (w0 + w) * 2 * kAttentionChunk + g * 16;
        store(out, even_bf16(t + w * 16));
        store(out + kAttentionChunk, odd_bf16(t + w * 16));
      }
    }
    if (a.c & 1)
      for (int r = 0; r < 16; r++) {
        uint32_t u = (uint32_t)((const uint16_t*)p[g * 16 + r])[a.c - 1] << 16;
        memcpy(kt + (a.c - 1) * kAttentionChunk + g * 16 + r, &u, 4);
      }
  }
}

/** Values [begin, begin + n) -> v[n][cp] f32, zero-padded to cp. */
SV_INLINE void pack_values(const AttentionStrip& a, int64_t begin, int64_t n, int64_t cp, float* v) {
  for (int64_t i = 0; i < n; i++) {
    const char* p = a.rows.v + row_at(a.rows, begin + i) * a.rows.stride;
    float* out = v + i * cp;
    if (a.rows.bf16) from_bf16_row((const uint16_t*)p, a.c, out);
    else memcpy(out, p, (size_t)a.c * 4);
    for (int64_t c = a.c; c < cp; c++) out[c] = 0;
  }
}

/** Of n rows of a chunk, those that vector i sees end at the returned index. Scores of rows before its first become -inf. */
SV_INLINE int64_t seen_in_chunk(const AttentionStrip& a, int64_t i, int64_t begin, int64_t n, float* s) {
  int64_t seen = a.limit[i] - begin;
  seen = seen < 0 ? 0 : seen > n ? n
                                 : seen;
  if (!a.first || a.first[i] <= begin) return seen;
  const int64_t hidden = a.first[i] - begin < seen ? a.first[i] - begin : seen;
  for (int64_t j = 0; j < hidden; j++) s[j] = -__builtin_inff();
  return hidden < seen ? seen : 0;
}

/** One row of scores -> probabilities against its own maximum; returns through max and sum. Nothing seen: max -inf, sum 0. */
SV_INLINE void softmax_row(const float* s, int64_t seen, float* p, int64_t width, float* max_out, float* sum_out) {
  vec m = splat(-__builtin_inff());
  SV_EACH_VEC(seen) m = max(m, first_n(load(s + i), splat(-__builtin_inff()), (int)left));
  const float top = seen > 0 ? max_lanes(m) : -__builtin_inff();
  vec t = splat(top), sum = zero();
  for (int64_t i = 0; i < width; i += kLanes) {
    const int64_t left = seen - i;
    vec e = left <= 0 ? zero() : exp(sub(load(s + i), t));
    if (left < kLanes && left > 0) e = first_n(e, zero(), (int)left);
    sum = add(sum, e);
    if (p) store(p + i, e);
  }
  *max_out = top;
  *sum_out = seen > 0 ? sum_lanes(sum) : 0;
}

/** tanh: the polynomial of the Cephes library's tanhf below 0.625, else through e^2x. */
SV_INLINE vec tanh(vec x) {
  const vec small = splat(0.625f), a = max(x, sub(zero(), x)), b = min(small, max(splat(-0.625f), x)), z = mul(b, b);
  vec p = fma(splat(-5.70498872745e-3f), z, splat(2.06390887954e-2f));
  p = fma(p, z, splat(-5.37397155531e-2f));
  p = fma(p, z, splat(1.33314422036e-1f));
  p = fma(p, z, splat(-3.33332819422e-1f));
  p = fma(mul(p, z), b, b);
  const vec far = sub(splat(1.f), div(splat(2.f), add(exp(add(x, x)), splat(1.f))));
  const vec is_far = zero_where_less(a, small, splat(1.f));
  return add(mul(is_far, far), mul(sub(splat(1.f), is_far), p));
}

/** n scores s -> cap tanh(s / cap), in place; n is a multiple of the lanes. Not inlined: few models need it, and it is called from many kernels. */
__attribute__((noinline)) static void cap_scores(float* s, int64_t n, float cap) {
  const vec c = splat(cap), inv = splat(1.f / cap);
  for (int64_t i = 0; i < n; i += kLanes) store(s + i, mul(c, tanh(mul(load(s + i), inv))));
}

}  // namespace SV_LEVEL
}  // namespace sv

#include "attention_few.inl"
#ifdef SV_TILES
#include "attention_tiles.inl"
#endif

namespace sv {
namespace SV_LEVEL {

template <bool kValues>
SV_INLINE void chunk(const AttentionStrip& a, int64_t begin, SoftmaxState out, float* scratch) {
#ifdef SV_TILES
  if (a.packed) return tile_chunk<kValues>(a, begin, out, scratch);
#endif
  const int64_t n = a.length - begin < kAttentionChunk ? a.length - begin : kAttentionChunk;
  const int64_t width = (n + 15) / 16 * 16, cp = (a.c + 15) / 16 * 16;
  float *kt = scratch, *v = kt + kAttentionChunk * cp, *p = v + kAttentionChunk * cp;
  float* s = a.scores + (a.score_stride > kAttentionChunk ? begin : 0);
  if (a.m <= kFewQueries && a.c % kLanes == 0) return few_dispatch<kFewQueries, kValues>(a, begin, n, out, s, p, kt);
  pack_keys(a, begin, n, kt);
  product_nn(a.q, a.c, a.m, kt, kAttentionChunk, a.c, width, s, a.score_stride);
  for (int64_t i = 0; i < a.m; i++) {
    if (a.softcap > 0) cap_scores(s + i * a.score_stride, width, a.softcap);
    const int64_t seen = seen_in_chunk(a, i, begin, n, s + i * a.score_stride);
    softmax_row(s + i * a.score_stride, seen, kValues ? p + i * kAttentionChunk : nullptr, width, out.max + i, out.sum + i);
  }
  if (!kValues) return;
  pack_values(a, begin, n, cp, v);
  product_nn(p, kAttentionChunk, a.m, v, cp, n, cp, out.o, cp);
}
static void attend_chunk(const AttentionStrip& a, int64_t begin, SoftmaxState out, float* scratch) {
  chunk<true>(a, begin, out, scratch);
}
static void scores_only(const AttentionStrip& a, int64_t begin, SoftmaxState out, float* scratch) {
  chunk<false>(a, begin, out, scratch);
}

/** into = into (+) partial. A partial that saw nothing (sum 0: a maximum can drop NaN, a sum cannot) changes nothing. cp = 0
 *  merges maxima and sums alone. */
static void merge(SoftmaxState into, SoftmaxState partial, int64_t m, int64_t cp, int first) {
  for (int64_t i = 0; i < m; i++) {
    const float pm = partial.max[i];
    float *o = into.o + i * cp, *po = partial.o + i * cp;
    if (first || into.sum[i] == 0) {
      into.max[i] = pm;
      into.sum[i] = partial.sum[i];
      for (int64_t c = 0; c < cp; c += kLanes) store(o + c, load(po + c));
      continue;
    }
    if (partial.sum[i] == 0) continue;
    const float im = into.max[i], top = pm > im ? pm : im, a = exp1(im - top), b = exp1(pm - top);
    into.max[i] = top;
    into.sum[i] = into.sum[i] * a + partial.sum[i] * b;
    vec va = splat(a), vb = splat(b);
    for (int64_t c = 0; c < cp; c += kLanes) store(o + c, fma(load(o + c), va, mul(load(po + c), vb)));
  }
}

static void column_sum(const AttentionStrip& a, const float* row_max, const float* row_sum, float* columns) {
  for (int64_t i = 0; i < a.m; i++) {
    const int64_t seen = a.limit[i] < a.length ? a.limit[i] : a.length;
    if (row_sum[i] == 0) continue;
    const float* s = a.scores + i * a.score_stride + a.begin;
    float* sums = columns + a.begin;
    vec m = splat(row_max[i]), inv = splat(1.f / row_sum[i]);
    SV_EACH_VEC(seen - a.begin) {
      vec e = first_n(mul(exp(sub(load(s + i), m)), inv), zero(), (int)left);
      store_part(sums + i, add(load_part(sums + i, left), e), left);
    }
  }
}

}  // namespace SV_LEVEL
}  // namespace sv
