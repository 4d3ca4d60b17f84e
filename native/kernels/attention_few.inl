// Attention of a handful of query vectors (decoding: the heads of one group): keys are transposed in registers and values are
// widened as they are read, so that nothing but the cache rows themselves passes through memory. Same arithmetic, in the same
// order, as the panels of attention.inl. Included once per instruction-set level.

namespace sv {
namespace SV_LEVEL {

#if defined(SV_AVX512)
constexpr int kFewQueries = 8;
constexpr int few_strips(int m) { return m <= 4 ? 4 : 2; }
#elif defined(SV_AVX2)
constexpr int kFewQueries = 5;
constexpr int few_strips(int m) { return m <= 2 ? 2 : 1; }
#elif defined(SV_NEON)
constexpr int kFewQueries = 6;
constexpr int few_strips(int m) { return m <= 2 ? 2 : 1; }
#else
constexpr int kFewQueries = 4;
constexpr int few_strips(int) { return 1; }
#endif

/** Cache lines of rows [i, end), which the next chunk reads: each call fetches one. Reading and arithmetic overlap only if the lines are asked
 *  for evenly, because a processor waits when more than a dozen or so are on their way. */
struct LineFetcher {
  const AttentionRows& rows;
  const char* base;
  int64_t i, end, at = 0;
  __attribute__((always_inline)) inline void operator()() {
    if (i >= end) return;
    __builtin_prefetch(base + row_at(rows, i) * rows.stride + at, 0, 2);
    at += 64;
    if (at < rows.stride) return;
    at = 0;
    i++;
  }
};

/** s[i] = q_i . k_j for the 16 keys at `rows`; one chain over ascending c. c is a multiple of 16; q is [c][M]. */
template <int M, bool kBf16>
SV_INLINE void few_scores(const float* q, int64_t c, const uint32_t* const* rows, float* s, int64_t stride, LineFetcher& fetch) {
  vec acc[M];
#pragma GCC unroll 8
  for (int i = 0; i < M; i++) acc[i] = zero();
  const int64_t words = kBf16 ? c / 2 : c;
  alignas(64) uint32_t t[16 * 16];
  for (int64_t w0 = 0; w0 < words; w0 += 16) {
    const int64_t wn = words - w0 < 16 ? words - w0 : 16;
    if (wn == 16) transpose16(rows, w0, t, 16);
    else
      for (int64_t w = 0; w < wn; w++)
        for (int r = 0; r < 16; r++) t[w * 16 + r] = load_u32(rows[r], w0 + w);
    for (int64_t w = 0; w < wn; w++) {
      fetch();
      if (kBf16) {
        const vec even = even_bf16(t + w * 16), odd = odd_bf16(t + w * 16);
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) acc[i] = fma(splat(q[i]), even, acc[i]);
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) acc[i] = fma(splat(q[M + i]), odd, acc[i]);
        q += 2 * M;
      } else {
        const vec k = load((const float*)t + w * 16);
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) acc[i] = fma(splat(q[i]), k, acc[i]);
        q += M;
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; i++) store(s + i * stride, acc[i]);
}

/** o[i] = sum_j p_ij v_j over n rows; one chain over ascending j. */
template <int M, bool kBf16>
SV_INLINE void few_values(const AttentionStrip& a, const char* const* rows, int64_t n, const float* p, float* o, LineFetcher& fetch) {
  constexpr int S = few_strips(M);
  for (int64_t c0 = 0; c0 < a.c; c0 += S * kLanes) {
    vec acc[M][S];
    const int64_t strips = (a.c - c0) / kLanes < S ? (a.c - c0) / kLanes : S;
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 4
      for (int s = 0; s < S; s++) acc[i][s] = zero();
    for (int64_t j = 0; j < n; j++) {
      fetch();
      vec v[S];
#pragma GCC unroll 4
      for (int s = 0; s < S; s++) {
        const int64_t at = c0 + (s < strips ? s : 0) * kLanes;  // a strip that is not there repeats the first
        v[s] = kBf16 ? load_bf16((const uint16_t*)rows[j] + at) : load((const float*)rows[j] + at);
      }
#pragma GCC unroll 8
      for (int i = 0; i < M; i++) {
        const vec w = splat(p[i * kAttentionChunk + j]);
#pragma GCC unroll 4
        for (int s = 0; s < S; s++) acc[i][s] = fma(w, v[s], acc[i][s]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 4
      for (int s = 0; s < S; s++)
        if (s < strips) store(o + i * a.c + c0 + s * kLanes, acc[i][s]);
  }
}

/** Cache lines of a row on their way: hardware prefetchers see neither gathered rows nor the turn from keys to values. */
SV_INLINE void fetch_row(const char* row, int64_t bytes) {
  for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(row + b);
}

/** One chunk for M query vectors. qt: [c][M] scratch; p: [M][128] probabilities. */
template <int M, bool kBf16, bool kValues>
static void few_chunk(const AttentionStrip& a, int64_t begin, int64_t n, SoftmaxState out, float* s, float* p, float* qt) {
  const int64_t width = (n + 15) / 16 * 16;
  const char *k[kAttentionChunk], *v[kAttentionChunk];
  for (int64_t i = 0; i < width; i++) {
    const int64_t row = row_at(a.rows, begin + (i < n ? i : n - 1)) * a.rows.stride;
    k[i] = a.rows.k + row;
    v[i] = a.rows.v + row;
  }
  if (!a.fetched)
    for (int64_t i = 0; i < 32 && i < width; i++) fetch_row(k[i], a.rows.stride);
  const int64_t next = begin + kAttentionChunk, to = a.fetch_to < next + kAttentionChunk ? a.fetch_to : next + kAttentionChunk;
  LineFetcher keys = {a.rows, a.rows.k, next, to}, values = {a.rows, a.rows.v, next, to};
  for (int i = 0; i < M; i++)
    for (int64_t c = 0; c < a.c; c++) qt[c * M + i] = a.q[i * a.c + c];
  for (int64_t g = 0; g < width; g += 16) {
    if (!a.fetched) {
      for (int64_t i = g + 32; i < g + 48 && i < width; i++) fetch_row(k[i], a.rows.stride);
      if (kValues)
        for (int64_t i = g; i < g + 16; i++) fetch_row(v[i], a.rows.stride);
    }
    few_scores<M, kBf16>(qt, a.c, (const uint32_t* const*)(k + g), s + g, a.score_stride, keys);
  }
  for (int64_t i = 0; i < M; i++) {
    if (a.softcap > 0) cap_scores(s + i * a.score_stride, width, a.softcap);
    const int64_t seen = seen_in_chunk(a, i, begin, n, s + i * a.score_stride);
    softmax_row(s + i * a.score_stride, seen, kValues ? p + i * kAttentionChunk : nullptr, width, out.max + i, out.sum + i);
  }
  if (kValues) few_values<M, kBf16>(a, v, n, p, out.o, values);
}

template <int M, bool kValues>
static void few_dispatch(const AttentionStrip& a, int64_t begin, int64_t n, SoftmaxState out, float* s, float* p, float* qt) {
  if (a.m == M)
    return a.rows.bf16 ? few_chunk<M, true, kValues>(a, begin, n, out, s, p, qt) : few_chunk<M, false, kValues>(a, begin, n, out, s, p, qt);
  if constexpr (M > 1) few_dispatch<M - 1, kValues>(a, begin, n, out, s, p, qt);
}

}  // namespace SV_LEVEL
}  // namespace sv
