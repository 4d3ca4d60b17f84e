// Products with 4-bit matrices at one instruction-set level. Layout and arithmetic in int4.h.
// The including file defines SV_LEVEL, the level macro (SV_AVX512 with VNNI, and SV_AMX for tiles; SV_AVX2; SV_NEON, and SV_DOTPROD or
// SV_I8MM; SV_PORTABLE) and SV_TABLE.
#include "int4.h"
#include "vec.h"

namespace sv {
namespace SV_LEVEL {

// --- quantizing one activation row ---------------------------------------------------------------------------------

/** out: planes x [kp] s8, then per group {d, d/254, d (sum a + sum b / 254), 0}. A NaN or infinity makes its group NaN. */
static void quantize_row(const float* x, int64_t k, int64_t group, int planes, int8_t* out) {
  const int64_t groups = int4_groups(k, group), kp = groups * group;
  float* meta = (float*)(out + planes * kp);
  for (int64_t g = 0; g < groups; g++) {
    const int64_t begin = g * group, n = k - begin < group ? k - begin : group;
    vec top = zero(), poison = zero();
    for (int64_t i = 0; i < n; i += 16) {
      vec v = (n - i < 16 ? load_n(x + begin + i, (int)(n - i)) : load(x + begin + i));
      top = max(top, max(v, sub(zero(), v)));
      poison = fma(v, zero(), poison);
    }
    const float largest = max_lanes(top), d = largest / 127.f + sum_lanes(poison);
    const bool fits = d > 1e-36f;  // its inverses are finite; smaller ones and NaN count 0 times
    const float inverse = fits ? 127.f / largest : 0, magic = 12582912.f;
    const vec vd = splat(d), vi = splat(inverse), vm = splat(magic), fine = splat(fits ? 254.f / d : 0);
    vec sum_a = zero(), sum_b = zero();  // of whole numbers: exact
    for (int64_t i = 0; i < group; i += 16) {
      const vec v = i >= n ? zero() : (n - i < 16 ? load_n(x + begin + i, (int)(n - i)) : load(x + begin + i));
      const vec a = sub(add(mul(v, vi), vm), vm);  // rounds half to even
      store_s8(out + begin + i, a);
      sum_a = add(sum_a, a);
      if (planes == 1) continue;
      const vec b = sub(add(mul(sub(v, mul(a, vd)), fine), vm), vm);
      store_s8(out + kp + begin + i, b);
      sum_b = add(sum_b, b);
    }
    meta[g * 4] = d;
    meta[g * 4 + 1] = d / 254.f;
    meta[g * 4 + 2] = d * sum_lanes(sum_a) + d / 254.f * sum_lanes(sum_b);
    meta[g * 4 + 3] = 0;
  }
}

// --- integer sums of one tile ----------------------------------------------------------------------------------------

#if defined(SV_AVX512)

/** sums[v][s] = sum over the tile of nibble times activation byte, for V byte rows and S strips. Fetches the tile at `later`. */
template <int V, int S>
SV_INLINE void tile_sums(const int8_t* const* x, const char* w, const char* later, int64_t strip_bytes, int64_t vectors, vec (*out)[S]) {
  __m512i acc[V][S];
  const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 16
  for (int v = 0; v < V; v++)
#pragma GCC unroll 4
    for (int s = 0; s < S; s++) acc[v][s] = _mm512_setzero_si512();
  for (int64_t j = 0; j < vectors; j++) {
    __m512i lo[S], hi[S];
#pragma GCC unroll 4
    for (int s = 0; s < S; s++) {
      __builtin_prefetch(later + s * strip_bytes + j * 64);
      const __m512i p = _mm512_loadu_si512(w + s * strip_bytes + j * 64);
      lo[s] = _mm512_and_si512(p, low);
      hi[s] = _mm512_and_si512(_mm512_srli_epi16(p, 4), low);
    }
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) {
      const __m512i a = _mm512_set1_epi32(*(const int32_t*)(x[v] + 4 * j));
      const __m512i b = _mm512_set1_epi32(*(const int32_t*)(x[v] + 4 * (j + vectors)));
#pragma GCC unroll 4
      for (int s = 0; s < S; s++) {
        acc[v][s] = _mm512_dpbusd_epi32(acc[v][s], lo[s], a);
        acc[v][s] = _mm512_dpbusd_epi32(acc[v][s], hi[s], b);
      }
    }
  }
#pragma GCC unroll 16
  for (int v = 0; v < V; v++)
#pragma GCC unroll 4
    for (int s = 0; s < S; s++) out[v][s] = {_mm512_cvtepi32_ps(acc[v][s])};
}
constexpr int kMaxByteRows = 12;
constexpr int strips_for(int byte_rows) { return byte_rows <= 4 ? 4 : 2; }

#elif defined(SV_AVX2)

/** Products of an unsigned nibble and a signed byte, paired, fit 3810; eight of them fit 16 bits, then they are widened. */
template <int V, int S>
SV_INLINE void tile_sums(const int8_t* const* x, const char* w, const char* later, int64_t strip_bytes, int64_t vectors, vec (*out)[S]) {
  const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
  for (int s = 0; s < S; s++) {
    __m256i total[V][2];
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      const char* p = w + s * strip_bytes + half * 32;
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) total[v][half] = _mm256_setzero_si256();
      for (int64_t j = 0; j < vectors; j += 4) {
        __m256i t[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) t[v] = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
          if (half == 0) __builtin_prefetch(later + s * strip_bytes + (j + i) * 64);
          const __m256i q = _mm256_loadu_si256((const __m256i*)(p + (j + i) * 64));
          const __m256i lo = _mm256_and_si256(q, low), hi = _mm256_and_si256(_mm256_srli_epi16(q, 4), low);
#pragma GCC unroll 4
          for (int v = 0; v < V; v++) {
            const __m256i a = _mm256_set1_epi32(*(const int32_t*)(x[v] + 4 * (j + i)));
            const __m256i b = _mm256_set1_epi32(*(const int32_t*)(x[v] + 4 * (j + i + vectors)));
            t[v] = _mm256_add_epi16(t[v], _mm256_add_epi16(_mm256_maddubs_epi16(lo, a), _mm256_maddubs_epi16(hi, b)));
          }
        }
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) total[v][half] = _mm256_add_epi32(total[v][half], _mm256_madd_epi16(t[v], ones));
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) out[v][s] = {_mm256_cvtepi32_ps(total[v][0]), _mm256_cvtepi32_ps(total[v][1])};
  }
}
constexpr int kMaxByteRows = 4;
constexpr int strips_for(int) { return 1; }

#elif defined(SV_NEON)

}  // namespace SV_LEVEL
}  // namespace sv
#include "int4_neon.inl"
namespace sv {
namespace SV_LEVEL {

#else

template <int V, int S>
SV_INLINE void tile_sums(const int8_t* const* x, const char* w, const char*, int64_t strip_bytes, int64_t vectors, vec (*out)[S]) {
  for (int s = 0; s < S; s++)
    for (int v = 0; v < V; v++) {
      int32_t acc[16] = {0};
      for (int64_t j = 0; j < vectors; j++)
        for (int r = 0; r < 16; r++)
          for (int b = 0; b < 4; b++) {
            const uint8_t p = (uint8_t)w[s * strip_bytes + j * 64 + r * 4 + b];
            acc[r] += (p & 15) * x[v][4 * j + b] + (p >> 4) * x[v][4 * (j + vectors) + b];
          }
      for (int r = 0; r < 16; r++) out[v][s].v[r] = (float)acc[r];
    }
}
constexpr int kMaxByteRows = 4;
constexpr int strips_for(int) { return 1; }

#endif

// --- rows by strips ----------------------------------------------------------------------------------------------------

SV_INLINE vec load_scale(const uint16_t* p, int32_t bf16) { return bf16 ? load_bf16(p) : load_f16(p); }

/** Offset of the tile that is fetched while group g of `strips` strips is read: two groups later, at the end one of the next strips. */
SV_INLINE int64_t later_tile(const PackedHeader& h, int64_t g, int64_t groups, int64_t strips) {
  const int64_t at = g + 2, tile = int4_tile_bytes(h.group);
  return at < groups ? at * tile : strips * h.strip_bytes + (at - groups) * tile;
}

/** The scales and zero points that end a tile. */
struct GroupEnd {
  vec scale, zero;
  int32_t zero_scaled;
};
SV_INLINE GroupEnd group_end(const char* p, const PackedHeader& h) {
  return {load_scale((const uint16_t*)p, h.scale_bf16), load_f16((const uint16_t*)p + 16), h.zero_scaled};
}

/** out[0..16) += one group's share: its integer sums a (and b, of the second plane) scaled, its zero points taken off. */
template <int P>
SV_INLINE void add_group(vec a, vec b, const float* meta, const GroupEnd& end, float* out) {
  vec v = mul(a, splat(meta[0]));
  if (P == 2) v = fma(b, splat(meta[1]), v);
  const vec t = splat(meta[2]), y = load(out);
  store(out, end.zero_scaled ? fma(end.scale, v, fma(end.zero, t, y)) : fma(end.scale, fma(sub(zero(), end.zero), t, v), y));
}

/** R activation rows of P planes by S strips over all groups: out += (out starts at zero). */
template <int R, int P, int S>
SV_INLINE void block(const QuantizedRows& x, int64_t row, const PackedHeader& h, const char* w, float* out, int64_t ldo) {
  const int64_t tile = int4_tile_bytes(h.group), vectors = h.group / 8;
  for (int r = 0; r < R; r++)
    for (int s = 0; s < S; s++) store(out + r * ldo + s * kLanes, zero());
  for (int64_t g = 0; g < x.groups; g++) {
    const int8_t* bytes[R * P];
    for (int r = 0; r < R; r++)
      for (int p = 0; p < P; p++) bytes[r * P + p] = x.data + (row + r) * x.stride + p * x.kp + g * h.group;
    vec sums[R * P][S];
    const char* later = w + later_tile(h, g, x.groups, S);
    tile_sums<R * P, S>(bytes, w + g * tile, later, h.strip_bytes, vectors, sums);
#pragma GCC unroll 4
    for (int s = 0; s < S; s++) {
      __builtin_prefetch(later + s * h.strip_bytes + tile - 64);
      const GroupEnd end = group_end(w + s * h.strip_bytes + g * tile + tile - 64, h);
#pragma GCC unroll 12
      for (int r = 0; r < R; r++)
        add_group<P>(sums[r * P][s], sums[r * P + P - 1][s], (const float*)(x.data + (row + r) * x.stride + P * x.kp) + g * 4,
                     end, out + r * ldo + s * kLanes);
    }
  }
}

template <int R, int P>
static void rows_by_strips(int rows, const QuantizedRows& x, int64_t row, const PackedHeader& h, const char* w, int64_t strips,
                           float* out, int64_t ldo) {
  if (rows < R) {
    if constexpr (R > 1) rows_by_strips<R - 1, P>(rows, x, row, h, w, strips, out, ldo);
    return;
  }
  constexpr int S = strips_for(R * P);
  int64_t s = 0;
  for (; s + S <= strips; s += S) block<R, P, S>(x, row, h, w + s * h.strip_bytes, out + s * kLanes, ldo);
  for (; s < strips; s++) block<R, P, 1>(x, row, h, w + s * h.strip_bytes, out + s * kLanes, ldo);
}

}  // namespace SV_LEVEL
}  // namespace sv

#if defined(SV_AMX)
#include "int4_amx.inl"
#endif

namespace sv {
namespace SV_LEVEL {

static void matmul_int4(const QuantizedRows& x, int64_t row, int64_t rows, const PackedHeader& h, const char* w,
                        int64_t strips, float* out, int64_t ldo) {
  constexpr int one = kMaxByteRows, two = kMaxByteRows / 2;
#if defined(SV_AMX)
  if (rows * x.planes > 4)
    return (x.planes == 2 ? matmul_tiles<2> : matmul_tiles<1>)(x, row, rows, h, w, strips, out, ldo);
#endif
  for (int64_t r = 0; r < rows;) {
    const int64_t left = rows - r, most = x.planes == 2 ? two : one;
    const int n = left <= most ? (int)left : (left < 2 * most ? (int)((left + 1) / 2) : (int)most);
    if (x.planes == 2) rows_by_strips<two, 2>(n, x, row + r, h, w, strips, out + r * ldo, ldo);
    else rows_by_strips<one, 1>(n, x, row + r, h, w, strips, out + r * ldo, ldo);
    r += n;
  }
}

}  // namespace SV_LEVEL

const Int4Kernels SV_TABLE = {SV_LEVEL_NAME, SV_LEVEL::quantize_row, SV_LEVEL::matmul_int4};

}  // namespace sv
