// Integer sums of one tile of a 4-bit matrix on NEON (SMLAL), its dot product (SDOT) or its matrix product (SMMLA). Included by int4.inl.

namespace sv {
namespace SV_LEVEL {

SV_INLINE int8x16_t low_nibbles(uint8x16_t p) { return vreinterpretq_s8_u8(vandq_u8(p, vdupq_n_u8(15))); }
SV_INLINE int8x16_t high_nibbles(uint8x16_t p) { return vreinterpretq_s8_u8(vshrq_n_u8(p, 4)); }
SV_INLINE uint8x16_t load_tile(const char* p) { return vld1q_u8((const uint8_t*)p); }
SV_INLINE void fetch_line(const char* later, int64_t strip_bytes, int s, int64_t j) { __builtin_prefetch(later + s * strip_bytes + j * 64); }

#if defined(SV_DOTPROD)

/** V byte rows by S strips; four outputs by four inputs an instruction. */
template <int V, int S>
SV_INLINE void dot_sums(const int8_t* const* x, const char* w, const char* later, int64_t strip_bytes, int64_t vectors, vec (*out)[S]) {
  int32x4_t acc[V][S][4];
#pragma GCC unroll 8
  for (int v = 0; v < V; v++)
#pragma GCC unroll 8
    for (int i = 0; i < S * 4; i++) acc[v][i / 4][i % 4] = vdupq_n_s32(0);
  for (int64_t j = 0; j < vectors; j += 4) {
    int8x16_t a[V], b[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) {
      a[v] = vld1q_s8(x[v] + 4 * j);
      b[v] = vld1q_s8(x[v] + 4 * (j + vectors));
    }
#define SV_DOT_STEP(i)                                                                           \
  _Pragma("GCC unroll 8") for (int s = 0; s < S; s++) {                                          \
    fetch_line(later, strip_bytes, s, j + i);                                                    \
    _Pragma("GCC unroll 4") for (int q = 0; q < 4; q++) {                                        \
      const uint8x16_t p = load_tile(w + s * strip_bytes + (j + i) * 64 + q * 16);               \
      const int8x16_t lo = low_nibbles(p), hi = high_nibbles(p);                                 \
      _Pragma("GCC unroll 8") for (int v = 0; v < V; v++) {                                      \
        acc[v][s][q] = vdotq_laneq_s32(vdotq_laneq_s32(acc[v][s][q], lo, a[v], i), hi, b[v], i); \
      }                                                                                          \
    }                                                                                            \
  }
    SV_DOT_STEP(0)
    SV_DOT_STEP(1)
    SV_DOT_STEP(2)
    SV_DOT_STEP(3)
#undef SV_DOT_STEP
  }
#pragma GCC unroll 8
  for (int v = 0; v < V; v++)
#pragma GCC unroll 2
    for (int s = 0; s < S; s++) out[v][s] = from_sums(acc[v][s]);
}

#endif

#if defined(SV_I8MM)

/** Sums of two rows, [row][2 outputs] and [row][the next 2] -> of each row 4 outputs. */
SV_INLINE int32x4_t first_row(int32x4_t a, int32x4_t b) { return vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b))); }
SV_INLINE int32x4_t second_row(int32x4_t a, int32x4_t b) { return vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b))); }

/** Rows of a group's bytes -> for every two vectors of the tile P pairs of rows: their eight inputs for low nibbles, then for high ones. */
template <int P>
SV_INLINE void pack_pairs(const int8_t* const* x, int64_t vectors, int8_t* out) {
  for (int64_t j = 0; j < vectors; j += 4)
#pragma GCC unroll 4
    for (int p = 0; p < P; p++)
#pragma GCC unroll 2
      for (int half = 0; half < 2; half++) {
        const int8_t *a = x[2 * p] + 4 * (j + half * vectors), *b = x[2 * p + 1] + 4 * (j + half * vectors);
        const int64x2_t first = vreinterpretq_s64_s8(vld1q_s8(a)), second = vreinterpretq_s64_s8(vld1q_s8(b));
        int8_t* to = out + (j / 2 * P + p) * 32 + half * 16;
        vst1q_s8(to, vreinterpretq_s8_s64(vzip1q_s64(first, second)));
        vst1q_s8(to + P * 32, vreinterpretq_s8_s64(vzip2q_s64(first, second)));
      }
}

/** P pairs of byte rows by Q quarters of a strip; two rows by two outputs by eight inputs an instruction. */
template <int P, int Q>
SV_INLINE void pair_sums(const int8_t* x, const char* w, int64_t ahead, int64_t vectors, int32x4_t (*acc)[8]) {
#pragma GCC unroll 4
  for (int p = 0; p < P; p++)
#pragma GCC unroll 8
    for (int i = 0; i < 2 * Q; i++) acc[p][i] = vdupq_n_s32(0);
  for (int64_t j = 0; j < vectors; j += 2, x += P * 32, w += 128) {
    __builtin_prefetch(w + ahead);
    if (Q == 4) __builtin_prefetch(w + ahead + 64);
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) {
      const uint32x4_t even = vreinterpretq_u32_u8(load_tile(w + q * 16)), odd = vreinterpretq_u32_u8(load_tile(w + 64 + q * 16));
      const uint8x16_t z[2] = {vreinterpretq_u8_u32(vzip1q_u32(even, odd)), vreinterpretq_u8_u32(vzip2q_u32(even, odd))};
      const int8x16_t lo[2] = {low_nibbles(z[0]), low_nibbles(z[1])}, hi[2] = {high_nibbles(z[0]), high_nibbles(z[1])};
#pragma GCC unroll 4
      for (int p = 0; p < P; p++) {
        const int8x16_t a = vld1q_s8(x + p * 32), b = vld1q_s8(x + p * 32 + 16);
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) acc[p][2 * q + i] = vmmlaq_s32(vmmlaq_s32(acc[p][2 * q + i], a, lo[i]), b, hi[i]);
      }
    }
  }
}

template <int V, int S>
SV_INLINE void tile_sums(const int8_t* const* x, const char* w, const char* later, int64_t strip_bytes, int64_t vectors, vec (*out)[S]) {
  if constexpr (V <= 2) return dot_sums<V, S>(x, w, later, strip_bytes, vectors, out);
  constexpr int P = (V + 1) / 2, Q = P <= 2 ? 4 : 2;  // an odd row is its own partner
  const int8_t* rows[2 * P];
#pragma GCC unroll 8
  for (int v = 0; v < 2 * P; v++) rows[v] = x[v < V ? v : V - 1];
  int8_t pairs[2 * P * 128];
  pack_pairs<P>(rows, vectors, pairs);
  for (int s = 0; s < S; s++)
    for (int from = 0; from < 4; from += Q) {
      int32x4_t acc[P][8];
      pair_sums<P, Q>(pairs, w + s * strip_bytes + from * 16, later - w + from * 32, vectors, acc);  // a line for each half
#pragma GCC unroll 4
      for (int q = 0; q < Q; q++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) {
          const int32x4_t a = acc[v / 2][2 * q], b = acc[v / 2][2 * q + 1];
          out[v][s].q[from + q] = vcvtq_f32_s32(v % 2 == 0 ? first_row(a, b) : second_row(a, b));
        }
    }
}
constexpr int kMaxByteRows = 8;
constexpr int strips_for(int byte_rows) { return byte_rows <= 2 ? 2 : 4; }

#elif defined(SV_DOTPROD)

template <int V, int S>
SV_INLINE void tile_sums(const int8_t* const* x, const char* w, const char* later, int64_t strip_bytes, int64_t vectors, vec (*out)[S]) {
  dot_sums<V, S>(x, w, later, strip_bytes, vectors, out);
}
constexpr int kMaxByteRows = 4;
constexpr int strips_for(int byte_rows) { return byte_rows <= 2 ? 2 : 1; }

#else

/** Four bytes of activations, four times. */
SV_INLINE int8x16_t splat_bytes(const int8_t* p) {
  int32_t word;
  memcpy(&word, p, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(word));
}

/** A product of a nibble and a byte is at most 15 * 127; sixteen of them fit 16 bits, then they are widened. */
template <int V, int S>
SV_INLINE void tile_sums(const int8_t* const* x, const char* w, const char* later, int64_t strip_bytes, int64_t vectors, vec (*out)[S]) {
  constexpr int Q = V <= 2 ? 4 : 2;
#pragma GCC unroll 2
  for (int s = 0; s < S; s++)
#pragma GCC unroll 2
    for (int from = 0; from < 4; from += Q) {
      int32x4_t total[V][Q];
#pragma GCC unroll 16
      for (int i = 0; i < V * Q; i++) total[i / Q][i % Q] = vdupq_n_s32(0);
      for (int64_t begin = 0; begin < vectors; begin += 8) {
        const int64_t end = begin + 8 < vectors ? begin + 8 : vectors;
        int16x8_t low[V][Q], high[V][Q];  // of a quarter's outputs: the first two, the last two
#pragma GCC unroll 16
        for (int i = 0; i < V * Q; i++) low[i / Q][i % Q] = high[i / Q][i % Q] = vdupq_n_s16(0);
        for (int64_t j = begin; j < end; j++) {
          if (from == 0) fetch_line(later, strip_bytes, s, j);
          int8x16_t lo[Q], hi[Q];
#pragma GCC unroll 4
          for (int q = 0; q < Q; q++) {
            const uint8x16_t p = load_tile(w + s * strip_bytes + j * 64 + (from + q) * 16);
            lo[q] = low_nibbles(p);
            hi[q] = high_nibbles(p);
          }
#pragma GCC unroll 4
          for (int v = 0; v < V; v++) {
            const int8x16_t a = splat_bytes(x[v] + 4 * j), b = splat_bytes(x[v] + 4 * (j + vectors));
#pragma GCC unroll 4
            for (int q = 0; q < Q; q++) {
              low[v][q] = vmlal_s8(vmlal_s8(low[v][q], vget_low_s8(lo[q]), vget_low_s8(a)), vget_low_s8(hi[q]), vget_low_s8(b));
              high[v][q] = vmlal_high_s8(vmlal_high_s8(high[v][q], lo[q], a), hi[q], b);
            }
          }
        }
#pragma GCC unroll 16
        for (int i = 0; i < V * Q; i++) {
          const int v = i / Q, q = i % Q;
          total[v][q] = vaddq_s32(total[v][q], vpaddq_s32(vpaddlq_s16(low[v][q]), vpaddlq_s16(high[v][q])));
        }
      }
#pragma GCC unroll 16
      for (int i = 0; i < V * Q; i++) out[i / Q][s].q[from + i % Q] = vcvtq_f32_s32(total[i / Q][i % Q]);
    }
}
constexpr int kMaxByteRows = 4;
constexpr int strips_for(int) { return 1; }

#endif

}  // namespace SV_LEVEL
}  // namespace sv
