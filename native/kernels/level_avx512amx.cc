// The AVX-512 level with matrix tiles: products with bf16 weights run on tiles of bf16 activations, in two planes
// x ~ hi + lo (relative error 2^-17: as good as f32) or in one. Each output is one chain of tile steps over ascending k,
// whatever rows run together.
#define SV_LEVEL avx512amx
#define SV_AVX512
#define SV_TILES
#define SV_TABLE kernels_avx512amx
#define SV_LEVEL_NAME "avx512amx"
#include "amx.h"
#include "kernels.h"
#include "vec.h"

namespace sv {
namespace avx512amx {
template <int P>
static void matmul_planes(const void* x, int64_t x_stride, int64_t rows, const char* w, int64_t strip_stride, int64_t k,
                          int64_t strips, float* out, int64_t out_stride);
static double bf16_loop(int64_t iterations);
}
}  // namespace sv
#define SV_DOT_BF16 avx512amx::matmul_planes<1>
#define SV_SPLIT_BF16 avx512amx::matmul_planes<2>
#define SV_BF16_LOOP avx512amx::bf16_loop
#include "level.inl"

namespace sv {
namespace avx512amx {

/** The part of a product that the tiles hold at once: two blocks of 16 rows by two strips. */
struct Operands {
  const char *a0, *a1;  // rows 0-15 and 16-31, in bf16; the second plane follows after `plane` bytes
  int64_t lda, plane;
  const char *w0, *w1;  // the strips
};

/** Adds the product of one step of 32 inputs at byte `at` of the rows to the sums; `w0` and `w1` are the step's weights. */
template <int P, bool kSecond, bool kTwoStrips>
SV_INLINE void tile_step(const Operands& o, int64_t at, const char* w0, const char* w1) {
  SV_TILE_LOAD(6, w0, 64);
  if (kTwoStrips) SV_TILE_LOAD(7, w1, 64);
#pragma GCC unroll 2
  for (int p = 0; p < P; p++) {
    SV_TILE_LOAD(4, o.a0 + p * o.plane + at, o.lda);
    SV_TILE_BF16(0, 4, 6);
    if (kTwoStrips) SV_TILE_BF16(2, 4, 7);
    if (kSecond) {
      SV_TILE_LOAD(5, o.a1 + p * o.plane + at, o.lda);
      SV_TILE_BF16(1, 5, 6);
      if (kTwoStrips) SV_TILE_BF16(3, 5, 7);
    }
  }
}

/** All whole steps, then `rest` pairs of inputs. Blocks over k would keep the strips in the first-level cache, but storing the sums stops
 *  the tiles for as long as six steps take. */
template <int P, bool kSecond, bool kTwoStrips, bool kPrefetch>
static void tile_block(const Operands& o, int64_t steps, int64_t rest, float* out, int64_t out_stride) {
  float* below = out + 16 * (out_stride / 4);
  SV_TILE_ZERO(0);
  if (kSecond) SV_TILE_ZERO(1);
  if (kTwoStrips) SV_TILE_ZERO(2);
  if (kSecond && kTwoStrips) SV_TILE_ZERO(3);
  for (int64_t i = 0; i < steps; i++) {
    if (kPrefetch)
#pragma GCC unroll 16
      for (int line = 0; line < 16; line++) {
        __builtin_prefetch(o.w0 + i * 1024 + 4096 + line * 64);
        if (kTwoStrips) __builtin_prefetch(o.w1 + i * 1024 + 4096 + line * 64);
      }
    tile_step<P, kSecond, kTwoStrips>(o, i * 64, o.w0 + i * 1024, o.w1 + i * 1024);
  }
  if (rest) {  // padded with zeros; the rows are padded already
    alignas(64) char pad[2][1024];
    for (int64_t j = 0; j < 16; j++) {
      _mm512_store_si512(pad[0] + j * 64, j < rest ? _mm512_loadu_si512(o.w0 + steps * 1024 + j * 64) : _mm512_setzero_si512());
      _mm512_store_si512(pad[1] + j * 64, j < rest ? _mm512_loadu_si512(o.w1 + steps * 1024 + j * 64) : _mm512_setzero_si512());
    }
    tile_step<P, kSecond, kTwoStrips>(o, steps * 64, pad[0], pad[1]);
  }
  SV_TILE_STORE(0, out, out_stride);
  if (kSecond) SV_TILE_STORE(1, below, out_stride);
  if (kTwoStrips) SV_TILE_STORE(2, out + kLanes, out_stride);
  if (kSecond && kTwoStrips) SV_TILE_STORE(3, below + kLanes, out_stride);
}

/** x: per row P planes of bf16 [k padded to 32], x_stride bytes from row to row. A sum is one chain over ascending k, in each step the
 *  first plane before the second. */
template <int P>
static void matmul_planes(const void* x, int64_t x_stride, int64_t rows, const char* w, int64_t strip_stride, int64_t k,
                          int64_t strips, float* out, int64_t out_stride) {
  const int64_t steps = padded_k(k) / 32, rest = padded_k(k) / 2 % 16, plane = (padded_k(k) + 31) / 32 * 64;
  int shape = -1;
  for (int64_t s = 0; s < strips; s += 2) {
    const bool two = s + 1 < strips;
    const char *w0 = w + s * strip_stride, *w1 = two ? w0 + strip_stride : w0;
    for (int64_t r = 0; r < rows; r += 32) {
      const int64_t n = rows - r < 32 ? rows - r : 32, first = n < 16 ? n : 16;
      if (shape != (int)n) tile_shape((int)first, (int)(n - first), 64);
      shape = (int)n;
      const char* a = (const char*)x + r * x_stride;
      const Operands o = {a, a + 16 * x_stride, x_stride, plane, w0, w1};
      const auto run = n > 16             ? (two ? tile_block<P, true, true, false> : tile_block<P, true, false, false>)
                       : rows <= 4 && two ? tile_block<P, false, true, true>
                                          : (two ? tile_block<P, false, true, false> : tile_block<P, false, false, false>);
      run(o, steps, rest, out + r * (out_stride / 4) + s * kLanes, out_stride);
    }
  }
  SV_TILE_RELEASE();
}

static double bf16_loop(int64_t iterations) {
  tile_shape(16, 16, 64);
  SV_TILE_ZERO(4);
  SV_TILE_ZERO(5);
  SV_TILE_ZERO(6);
  SV_TILE_ZERO(7);
  for (int64_t it = 0; it < iterations; it++) {
    SV_TILE_BF16(0, 4, 6);
    SV_TILE_BF16(1, 5, 6);
    SV_TILE_BF16(2, 4, 7);
    SV_TILE_BF16(3, 5, 7);
  }
  SV_TILE_RELEASE();
  return 4.0 * 16 * 16 * 32 * 2;
}

}  // namespace avx512amx
}  // namespace sv
