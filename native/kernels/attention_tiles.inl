// Attention over many rows on matrix tiles: queries, keys, probabilities and values are two planes of bf16 each, x ~ hi + lo, and a product is
// hi hi + lo hi + hi lo (relative error 2^-16). A result depends on its own query and on the fixed chunks of rows alone, as in
// attention.inl. Keys and values are packed once for all strips. Included once, by the level that has tiles.

namespace sv {
namespace SV_LEVEL {

/** One chunk: per plane, strips of 16 keys [c32 / 2][16][2]; then per plane, strips of 16 value columns [64][16][2]. */
SV_INLINE int64_t key_plane_bytes(int64_t c) { return kAttentionChunk * ((c + 31) / 32 * 32) * 2; }
SV_INLINE int64_t value_plane_bytes(int64_t c) { return kAttentionChunk * ((c + 15) / 16 * 16) * 2; }
static int64_t tile_chunk_bytes(int64_t c) { return 2 * (key_plane_bytes(c) + value_plane_bytes(c)); }

/** f32 [c] -> bf16 hi and lo [c32], padded with zeros. */
static void split_row(const float* x, int64_t c, uint16_t* hi, uint16_t* lo) {
  const int64_t padded = (c + 31) / 32 * 32;
  to_bf16_row(x, c, hi);
  bf16_rest_row(x, c, hi, lo);
  memset(hi + c, 0, (size_t)(padded - c) * 2);
  memset(lo + c, 0, (size_t)(padded - c) * 2);
}

/** Asks for f32 rows [from, from + 16) of those below n. Rows of a head lie pages apart, where the processor does not look ahead itself. */
SV_INLINE void fetch_rows(const char* base, const AttentionRows& rows, int64_t begin, int64_t from, int64_t n, int64_t c) {
  for (int64_t i = from; i < from + 16 && i < n; i++)
    for (int64_t byte = 0; byte < c * 4; byte += 64) __builtin_prefetch(base + row_at(rows, begin + i) * rows.stride + byte);
}

/** f32 rows [begin, begin + n) of one head, n <= 128. Rows that are missing are zeros. */
static void pack_tile_chunk(const AttentionRows& rows, int64_t c, int64_t begin, int64_t n, char* out) {
  const int64_t c32 = (c + 31) / 32 * 32, plane = key_plane_bytes(c);
  uint16_t planes[2][16][kMostTileWidth];
  fetch_rows(rows.k, rows, begin, 0, n, c);
  for (int64_t g = 0; g < kAttentionChunk; g += 16) {
    fetch_rows(rows.k, rows, begin, g + 16, n, c);
    const uint32_t* pointers[2][16];
    for (int64_t i = 0; i < 16; i++) {
      uint16_t *hi = planes[0][i], *lo = planes[1][i];
      if (g + i < n) split_row((const float*)(rows.k + row_at(rows, begin + g + i) * rows.stride), c, hi, lo);
      else {
        memset(hi, 0, (size_t)c32 * 2);
        memset(lo, 0, (size_t)c32 * 2);
      }
      pointers[0][i] = (const uint32_t*)hi;
      pointers[1][i] = (const uint32_t*)lo;
    }
    for (int p = 0; p < 2; p++) transpose_words(pointers[p], c32 / 2, (uint32_t*)(out + p * plane + g * c32 * 2), 16);
  }
  char* values = out + 2 * plane;
  const int64_t value_plane = value_plane_bytes(c);
  fetch_rows(rows.v, rows, begin, 0, n, c);
  for (int64_t j = 0; j < kAttentionChunk; j += 2) {  // a word is a column of two rows
    if (j % 16 == 0) fetch_rows(rows.v, rows, begin, j + 16, n, c);
    for (int64_t i = 0; i < 2; i++) {
      uint16_t *hi = planes[0][i], *lo = planes[1][i];
      if (j + i < n) split_row((const float*)(rows.v + row_at(rows, begin + j + i) * rows.stride), c, hi, lo);
      else {
        memset(hi, 0, (size_t)c32 * 2);
        memset(lo, 0, (size_t)c32 * 2);
      }
    }
    for (int p = 0; p < 2; p++)
      for (int64_t col = 0; col < c; col += 16) {
        const __m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(planes[p][0] + col)));
        const __m512i odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(planes[p][1] + col)));
        _mm512_storeu_si512(values + p * value_plane + col * kAttentionChunk * 2 + j * 32, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
      }
  }
}

/** Two blocks of 16 rows by two strips. */
template <bool kSecond, bool kTwoStrips>
SV_INLINE void plane_block(const char* a, int64_t lda, int64_t a_plane, const char* b, int64_t strip_bytes, int64_t b_plane, int64_t steps,
                           float* out, int64_t out_stride) {
  const char* below = a + 16 * lda;
  SV_TILE_ZERO(0);
  if (kSecond) SV_TILE_ZERO(1);
  if (kTwoStrips) SV_TILE_ZERO(2);
  if (kSecond && kTwoStrips) SV_TILE_ZERO(3);
  for (int64_t i = 0; i < steps; i++) {
#pragma GCC unroll 3
    for (int part = 0; part < 3; part++) {  // hi hi, lo hi, hi lo
      if (part != 1) {
        SV_TILE_LOAD(6, b + part / 2 * b_plane + i * 1024, 64);
        if (kTwoStrips) SV_TILE_LOAD(7, b + part / 2 * b_plane + strip_bytes + i * 1024, 64);
      }
      SV_TILE_LOAD(4, a + part % 2 * a_plane + i * 64, lda);
      SV_TILE_BF16(0, 4, 6);
      if (kTwoStrips) SV_TILE_BF16(2, 4, 7);
      if (kSecond) {
        SV_TILE_LOAD(5, below + part % 2 * a_plane + i * 64, lda);
        SV_TILE_BF16(1, 5, 6);
        if (kTwoStrips) SV_TILE_BF16(3, 5, 7);
      }
    }
  }
  SV_TILE_STORE(0, out, out_stride);
  if (kSecond) SV_TILE_STORE(1, out + 4 * out_stride, out_stride);
  if (kTwoStrips) SV_TILE_STORE(2, out + 16, out_stride);
  if (kSecond && kTwoStrips) SV_TILE_STORE(3, out + 4 * out_stride + 16, out_stride);
}

/** out[m][strips * 16] = a b over `steps` steps of 32: a two planes of rows, b two planes of strips, strip_bytes apart. */
SV_INLINE void plane_product(const char* a, int64_t lda, int64_t a_plane, int64_t m, const char* b, int64_t strip_bytes, int64_t b_plane,
                             int64_t steps, int64_t strips, float* out, int64_t ldo) {
  int64_t shape = -1;
  for (int64_t r = 0; r < m; r += 32) {
    const int64_t n = m - r < 32 ? m - r : 32;
    if (shape != n) tile_shape((int)(n < 16 ? n : 16), (int)(n < 16 ? 0 : n - 16), 64);
    shape = n;
    for (int64_t s = 0; s < strips; s += 2) {
      const char *a0 = a + r * lda, *b0 = b + s * strip_bytes;
      float* to = out + r * ldo + s * 16;
      (n > 16 ? (s + 1 < strips ? plane_block<true, true> : plane_block<true, false>)
              : (s + 1 < strips ? plane_block<false, true> : plane_block<false, false>))(a0, lda, a_plane, b0, strip_bytes, b_plane, steps, to, ldo * 4);
    }
  }
}

/** Scores against their own maximum -> probabilities as two planes of bf16, [2][128]; hi is cut, lo rounded. kWhole: all 128 are seen. */
template <bool kWhole>
SV_INLINE void softmax_planes(const float* s, int64_t seen, uint16_t* p, float* max_out, float* sum_out) {
  vec m = splat(-__builtin_inff());
  if (kWhole)
#pragma GCC unroll 8
    for (int64_t i = 0; i < kAttentionChunk; i += kLanes) m = max(m, load(s + i));
  else
    SV_EACH_VEC(seen) m = max(m, first_n(load(s + i), splat(-__builtin_inff()), (int)left));
  const float top = seen > 0 ? max_lanes(m) : -__builtin_inff();
  const vec t = splat(top);
  vec sum[2] = {zero(), zero()};
  const __m512i high = _mm512_set1_epi32((int)0xffff0000), half = _mm512_set1_epi32(0x8000);
  __m512i pick = _mm512_set1_epi32(0x00020000);  // 1, 3, 5, ... 63
  pick = _mm512_add_epi16(_mm512_set1_epi16(1), _mm512_add_epi16(pick, _mm512_mullo_epi32(_mm512_set1_epi32(0x00040004), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))));
#pragma GCC unroll 4
  for (int64_t i = 0; i < kAttentionChunk; i += 32) {
    __m512i hi[2], lo[2];
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) {
      vec e = exp(sub(load(s + i + 16 * j), t));
      if (!kWhole) {
        const int64_t left = seen - i - 16 * j;
        e = left <= 0 ? zero() : left < kLanes ? first_n(e, zero(), (int)left)
                                               : e;
      }
      sum[j] = add(sum[j], e);
      hi[j] = _mm512_castps_si512(e.v);
      const vec rest = sub(e, {_mm512_castsi512_ps(_mm512_and_si512(hi[j], high))});
      lo[j] = _mm512_add_epi32(_mm512_castps_si512(rest.v), half);
    }
    _mm512_storeu_si512(p + i, _mm512_permutex2var_epi16(hi[0], pick, hi[1]));
    _mm512_storeu_si512(p + kAttentionChunk + i, _mm512_permutex2var_epi16(lo[0], pick, lo[1]));
  }
  *max_out = top;
  *sum_out = seen > 0 ? sum_lanes(add(sum[0], sum[1])) : 0;
}

template <bool kValues>
static void tile_chunk(const AttentionStrip& a, int64_t begin, SoftmaxState out, float* scratch) {
  const int64_t n = a.length - begin < kAttentionChunk ? a.length - begin : kAttentionChunk;
  const int64_t c32 = (a.c + 31) / 32 * 32, cp = (a.c + 15) / 16 * 16;
  const char* packed = a.packed + begin / kAttentionChunk * tile_chunk_bytes(a.c);
  float* s = a.scores + (a.score_stride > kAttentionChunk ? begin : 0);
  plane_product((const char*)a.planes, c32 * 4, c32 * 2, a.m, packed, c32 * 32, key_plane_bytes(a.c), c32 / 32, (n + 15) / 16, s, a.score_stride);
  auto* p = (uint16_t*)scratch;
  for (int64_t i = 0; i < a.m; i++) {
    float* row = s + i * a.score_stride;
    if (a.softcap > 0) cap_scores(row, (n + 15) / 16 * 16, a.softcap);
    const int64_t seen = seen_in_chunk(a, i, begin, n, row);
    uint16_t* own = p + i * 2 * kAttentionChunk;
    if (kValues && seen == kAttentionChunk) softmax_planes<true>(row, seen, own, out.max + i, out.sum + i);
    else if (kValues) softmax_planes<false>(row, seen, own, out.max + i, out.sum + i);
    else softmax_row(row, seen, nullptr, (n + 15) / 16 * 16, out.max + i, out.sum + i);
  }
  if (kValues)
    plane_product((const char*)p, 4 * kAttentionChunk, 2 * kAttentionChunk, a.m, packed + 2 * key_plane_bytes(a.c), kAttentionChunk * 32,
                  value_plane_bytes(a.c), (n + 31) / 32, cp / 16, out.o, cp);
  SV_TILE_RELEASE();
}

}  // namespace SV_LEVEL
}  // namespace sv
