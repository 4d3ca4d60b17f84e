// Integer sums of a strip of an 8-bit matrix on NEON (SMULL, SMLAL), its dot product (SDOT) or its matrix product (SMMLA).
// Included by int8.inl.

namespace sv {
namespace SV_LEVEL {

SV_INLINE int8x16_t load_bytes(const char* p) { return vld1q_s8((const int8_t*)p); }
/** Four bytes of activations, four times. */
SV_INLINE int8x16_t splat_bytes(const int8_t* p) {
  int32_t word;
  memcpy(&word, p, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(word));
}

#if defined(SV_DOTPROD)

template <int R>
SV_INLINE void dot_sums(const int8_t* x, int64_t stride, int64_t kp, const char* w, int32x4_t (*acc)[4]) {
#pragma GCC unroll 32
  for (int i = 0; i < R * 4; i++) acc[i / 4][i % 4] = vdupq_n_s32(0);
  for (int64_t j = 0; j < kp / 4; j++) {
    int8x16_t b[4];
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) b[q] = load_bytes(w + j * 64 + q * 16);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const int8x16_t a = splat_bytes(x + r * stride + 4 * j);
#pragma GCC unroll 4
      for (int q = 0; q < 4; q++) acc[r][q] = vdotq_s32(acc[r][q], b[q], a);
    }
  }
}

template <int R, int S>
SV_INLINE void row_sums(const int8_t* x, int64_t stride, int64_t kp, const char* w, int64_t strip_bytes, vec (*out)[S]) {
#pragma GCC unroll 2
  for (int s = 0; s < S; s++) {
    int32x4_t acc[R][4];
    dot_sums<R>(x, stride, kp, w + s * strip_bytes, acc);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) out[r][s] = from_sums(acc[r]);
  }
}

#endif

#if defined(SV_I8MM)

/** Eight bytes of activations of two rows; of the last four alone where inputs end. */
SV_INLINE int8x16_t two_rows(const int8_t* x, const int8_t* next, bool whole) {
  if (whole) return vcombine_s8(vld1_s8(x), vld1_s8(next));
  int64_t rows[2] = {0, 0};
  memcpy(rows, x, 4);
  memcpy(rows + 1, next, 4);
  return vreinterpretq_s8_s64(vld1q_s64(rows));
}

/** P pairs of rows by half a strip: two rows by two outputs by eight inputs an instruction. */
template <int P>
SV_INLINE void pair_step(const int8_t* const* x, const char* w, int64_t j, bool whole, int32x4_t (*acc)[4]) {
  int8x16_t a[P];
#pragma GCC unroll 4
  for (int p = 0; p < P; p++) a[p] = two_rows(x[2 * p] + 4 * j, x[2 * p + 1] + 4 * j, whole);
#pragma GCC unroll 2
  for (int q = 0; q < 2; q++) {
    const int32x4_t even = vreinterpretq_s32_s8(load_bytes(w + j * 64 + q * 16));
    const int32x4_t odd = whole ? vreinterpretq_s32_s8(load_bytes(w + j * 64 + 64 + q * 16)) : vdupq_n_s32(0);
    const int8x16_t b[2] = {vreinterpretq_s8_s32(vzip1q_s32(even, odd)), vreinterpretq_s8_s32(vzip2q_s32(even, odd))};
#pragma GCC unroll 4
    for (int p = 0; p < P; p++)
#pragma GCC unroll 2
      for (int i = 0; i < 2; i++) acc[p][2 * q + i] = vmmlaq_s32(acc[p][2 * q + i], a[p], b[i]);
  }
}

template <int R, int S>
SV_INLINE void sums(const int8_t* x, int64_t stride, int64_t kp, const char* w, int64_t strip_bytes, vec (*out)[S]) {
  if constexpr (R == 1) return row_sums<R, S>(x, stride, kp, w, strip_bytes, out);
  constexpr int P = (R + 1) / 2;  // an odd row is its own partner
  const int8_t* rows[2 * P];
#pragma GCC unroll 8
  for (int r = 0; r < 2 * P; r++) rows[r] = x + (r < R ? r : R - 1) * stride;
#pragma GCC unroll 2
  for (int s = 0; s < S; s++)
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      const char* from = w + s * strip_bytes + half * 32;
      int32x4_t acc[P][4];
#pragma GCC unroll 16
      for (int i = 0; i < P * 4; i++) acc[i / 4][i % 4] = vdupq_n_s32(0);
      int64_t j = 0;
      for (; j + 2 <= kp / 4; j += 2) pair_step<P>(rows, from, j, true, acc);
      if (j < kp / 4) pair_step<P>(rows, from, j, false, acc);
#pragma GCC unroll 2
      for (int q = 0; q < 2; q++)
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
          const int64x2_t a = vreinterpretq_s64_s32(acc[r / 2][2 * q]), b = vreinterpretq_s64_s32(acc[r / 2][2 * q + 1]);
          out[r][s].q[2 * half + q] = vcvtq_f32_s32(vreinterpretq_s32_s64(r % 2 == 0 ? vzip1q_s64(a, b) : vzip2q_s64(a, b)));
        }
    }
}
constexpr int kMaxRows = 8, kStrips = 1;

#elif defined(SV_DOTPROD)

template <int R, int S>
SV_INLINE void sums(const int8_t* x, int64_t stride, int64_t kp, const char* w, int64_t strip_bytes, vec (*out)[S]) {
  row_sums<R, S>(x, stride, kp, w, strip_bytes, out);
}
constexpr int kMaxRows = 6, kStrips = 1;

#else

/** Two products of bytes (128 * 127 at most) fit 16 bits, then they are widened. */
template <int R, int S>
SV_INLINE void sums(const int8_t* x, int64_t stride, int64_t kp, const char* w, int64_t strip_bytes, vec (*out)[S]) {
#pragma GCC unroll 2
  for (int s = 0; s < S; s++)
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      int32x4_t low[R][2], high[R][2];  // of a quarter's outputs: the first two, the last two
#pragma GCC unroll 8
      for (int i = 0; i < R * 2; i++) low[i / 2][i % 2] = high[i / 2][i % 2] = vdupq_n_s32(0);
      for (int64_t j = 0; j < kp / 4; j += 2) {
        const bool two = j + 1 < kp / 4;
        int8x16_t b[2][2];
#pragma GCC unroll 2
        for (int q = 0; q < 2; q++) {
          b[0][q] = load_bytes(w + s * strip_bytes + j * 64 + half * 32 + q * 16);
          b[1][q] = two ? load_bytes(w + s * strip_bytes + j * 64 + 64 + half * 32 + q * 16) : vdupq_n_s8(0);
        }
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
          const int8x16_t a = splat_bytes(x + r * stride + 4 * j), c = two ? splat_bytes(x + r * stride + 4 * j + 4) : a;
#pragma GCC unroll 2
          for (int q = 0; q < 2; q++) {
            const int16x8_t first = vmull_s8(vget_low_s8(b[0][q]), vget_low_s8(a)), last = vmull_high_s8(b[0][q], a);
            low[r][q] = vpadalq_s16(low[r][q], vmlal_s8(first, vget_low_s8(b[1][q]), vget_low_s8(c)));
            high[r][q] = vpadalq_s16(high[r][q], vmlal_high_s8(last, b[1][q], c));
          }
        }
      }
#pragma GCC unroll 2
      for (int q = 0; q < 2; q++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) out[r][s].q[2 * half + q] = vcvtq_f32_s32(vpaddq_s32(low[r][q], high[r][q]));
    }
}
constexpr int kMaxRows = 4, kStrips = 1;

#endif

/** Of the level's own product, on registers. */
static double int8_loop(int64_t iterations) {
  int32x4_t acc[10];
#pragma GCC unroll 10  // else the sums stay in memory
  for (int i = 0; i < 10; i++) acc[i] = vdupq_n_s32(i);
  int8x16_t x = vdupq_n_s8(1);
  for (int64_t it = 0; it < iterations; it++) {
    asm volatile(""
                 : "+w"(x));
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++) {
#if defined(SV_I8MM)
      acc[i] = vmmlaq_s32(acc[i], x, x);
#elif defined(SV_DOTPROD)
      acc[i] = vdotq_s32(acc[i], x, x);
#else
      acc[i] = vreinterpretq_s32_s16(vmlal_s8(vreinterpretq_s16_s32(acc[i]), vget_low_s8(x), vget_low_s8(x)));
#endif
      asm volatile(""
                   : "+w"(acc[i]));
    }
  }
#if defined(SV_I8MM)
  return 10 * 2 * 32;
#elif defined(SV_DOTPROD)
  return 10 * 2 * 16;
#else
  return 10 * 2 * 8;
#endif
}

}  // namespace SV_LEVEL
}  // namespace sv
