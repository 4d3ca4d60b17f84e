// Register-tiled product of activation rows with packed strips. One template for every weight type and tile height.
// Layouts in kernels.h. Included once per instruction-set level.

namespace sv {
namespace SV_LEVEL {

#if defined(SV_AVX512)
constexpr int kMaxRows = 12;
constexpr int strips_for(int rows) { return rows <= 6 ? 4 : 2; }
#elif defined(SV_AVX2)
constexpr int kMaxRows = 5;
constexpr int strips_for(int rows) { return rows == 1 ? 4 : (rows <= 3 ? 2 : 1); }
#elif defined(SV_NEON)
constexpr int kMaxRows = 6;
constexpr int strips_for(int rows) { return rows <= 2 ? 2 : 1; }
#else
constexpr int kMaxRows = 4;
constexpr int strips_for(int) { return 1; }
#endif

struct F32Weights {
  static constexpr int kStep = 1;
  static constexpr int64_t kRowBytes = 64;  // per step and strip
  SV_INLINE vec get(const char* p, int) { return load((const float*)p); }
};
struct F16Weights {
  static constexpr int kStep = 1;
  static constexpr int64_t kRowBytes = 32;
  SV_INLINE vec get(const char* p, int) { return load_f16((const uint16_t*)p); }
};
struct Bf16Weights {
  static constexpr int kStep = 2;
  static constexpr int64_t kRowBytes = 64;
  SV_INLINE vec get(const char* p, int half) { return half ? odd_bf16(p) : even_bf16(p); }
};

constexpr int64_t kPrefetch = 1024;  // bytes ahead in each strip

/** A tile of R rows by S strips over k in [0, k): out += when `more`, else =. row_step: bytes from one k-step to the next. */
template <class W, int R, int S>
SV_INLINE void tile(const float* x, int64_t ldx, const char* w, int64_t strip_stride, int64_t row_step, int64_t k, float* out,
                    int64_t ldo, bool more) {
  vec acc[R][S];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int s = 0; s < S; s++) acc[r][s] = more ? load(out + r * ldo + s * kLanes) : zero();
  for (int64_t i = 0; i < k; i += W::kStep, w += row_step) {
    if (R <= 2) {
#pragma GCC unroll 4
      for (int s = 0; s < S; s++) __builtin_prefetch(w + s * strip_stride + kPrefetch);
    }
#pragma GCC unroll 2
    for (int half = 0; half < W::kStep; half++) {
      vec b[S];
#pragma GCC unroll 4
      for (int s = 0; s < S; s++) b[s] = W::get(w + s * strip_stride, half);
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) {
        vec a = splat(x[r * ldx + i + half]);
#pragma GCC unroll 4
        for (int s = 0; s < S; s++) acc[r][s] = fma(a, b[s], acc[r][s]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int s = 0; s < S; s++) store(out + r * ldo + s * kLanes, acc[r][s]);
}

/** R rows by all strips: S at a time, the rest one by one. */
template <class W, int R>
static void row_block(const float* x, int64_t ldx, const char* w, int64_t strip_stride, int64_t row_step, int64_t k,
                      int64_t strips, float* out, int64_t ldo, bool more) {
  constexpr int S = strips_for(R);
  int64_t s = 0;
  for (; s + S <= strips; s += S) tile<W, R, S>(x, ldx, w + s * strip_stride, strip_stride, row_step, k, out + s * kLanes, ldo, more);
  for (; s < strips; s++) tile<W, R, 1>(x, ldx, w + s * strip_stride, strip_stride, row_step, k, out + s * kLanes, ldo, more);
}

template <class W, int R>
static void dispatch_rows(int rows, const float* x, int64_t ldx, const char* w, int64_t strip_stride, int64_t row_step,
                          int64_t k, int64_t strips, float* out, int64_t ldo, bool more) {
  if (rows == R) return row_block<W, R>(x, ldx, w, strip_stride, row_step, k, strips, out, ldo, more);
  if constexpr (R > 1) dispatch_rows<W, R - 1>(rows, x, ldx, w, strip_stride, row_step, k, strips, out, ldo, more);
}

constexpr int64_t kBlockK = 2048, kGroupStrips = 8;

/** Blocks of k outermost (partial sums wait in `out`, so the chain over k stays one chain), then groups of strips that
 *  stay in cache while all rows pass. ldx, ldo in floats. */
template <class W>
SV_INLINE void product(const float* x, int64_t ldx, int64_t rows, const char* w, int64_t strip_stride, int64_t row_step,
                       int64_t k, int64_t strips, float* out, int64_t ldo) {
  for (int64_t k0 = 0; k0 < k; k0 += kBlockK) {
    int64_t kn = k - k0 < kBlockK ? k - k0 : kBlockK;
    for (int64_t s0 = 0; s0 < strips; s0 += kGroupStrips) {
      int64_t sn = strips - s0 < kGroupStrips ? strips - s0 : kGroupStrips;
      const char* ws = w + s0 * strip_stride + k0 / W::kStep * row_step;
      for (int64_t r = 0; r < rows;) {
        int64_t left = rows - r;
        // The last two blocks share their rows, so that no block is left with one row and idle registers.
        int n = left <= kMaxRows ? (int)left : (left < 2 * kMaxRows ? (int)((left + 1) / 2) : kMaxRows);
        dispatch_rows<W, kMaxRows>(n, x + r * ldx + k0, ldx, ws, strip_stride, row_step, kn, sn, out + r * ldo + s0 * kLanes,
                                   ldo, k0 > 0);
        r += n;
      }
    }
  }
}

template <class W>
static void matmul(const void* x, int64_t x_stride, int64_t rows, const char* w, int64_t strip_stride, int64_t k,
                   int64_t strips, float* out, int64_t out_stride) {
  product<W>((const float*)x, x_stride / 4, rows, w, strip_stride, W::kRowBytes, k, strips, out, out_stride / 4);
}

/** out[m][n] = a[m][k] * b[k][n], all f32, n a multiple of 16: the same tiles over a plain row-major b. */
SV_INLINE void product_nn(const float* a, int64_t lda, int64_t m, const float* b, int64_t ldb, int64_t k, int64_t n, float* out,
                          int64_t ldo) {
  product<F32Weights>(a, lda, m, (const char*)b, 64, ldb * 4, k, n / kLanes, out, ldo);
}

}  // namespace SV_LEVEL
}  // namespace sv
