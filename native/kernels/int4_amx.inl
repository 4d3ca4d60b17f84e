// Products of many rows with 4-bit matrices on matrix tiles: a group of a strip is unpacked to bytes, which lie as a tile
// wants them, once for all rows. The integer sums are exact and what follows them is `add_group`, so the bits are those of
// every other level. Included by int4.inl.
#include "amx.h"

namespace sv {
namespace SV_LEVEL {

constexpr int64_t kTileRows = 96;  // rows that pass while a group's bytes stay in the first-level cache

/** Nibbles of one group -> bytes [group / 4][16 outputs][4 inputs]. Fetches a later group. */
SV_INLINE void unpack_group(const char* w, int64_t vectors, char* out, const char* later) {
  const __m512i low = _mm512_set1_epi8(15);
  __builtin_prefetch(later + vectors * 64);
  for (int64_t j = 0; j < vectors; j++) {
    __builtin_prefetch(later + j * 64);
    const __m512i p = _mm512_loadu_si512(w + j * 64);
    _mm512_store_si512(out + j * 64, _mm512_and_si512(p, low));
    _mm512_store_si512(out + (j + vectors) * 64, _mm512_and_si512(_mm512_srli_epi16(p, 4), low));
  }
}

/** Sums over one group of two activation tiles by two strips, left in tiles 0 to 3. */
template <bool kSecond, bool kTwoStrips>
SV_INLINE void group_sums(const int8_t* a0, const int8_t* a1, int64_t lda, const char (*w)[16 * 128], int64_t steps, int64_t depth) {
  SV_TILE_ZERO(0);
  if (kSecond) SV_TILE_ZERO(1);
  if (kTwoStrips) SV_TILE_ZERO(2);
  if (kSecond && kTwoStrips) SV_TILE_ZERO(3);
  for (int64_t i = 0; i < steps; i++) {
    SV_TILE_LOAD(4, a0 + i * depth, lda);
    SV_TILE_LOAD(6, w[0] + i * 1024, 64);
    SV_TILE_SU(0, 4, 6);
    if (kSecond) {
      SV_TILE_LOAD(5, a1 + i * depth, lda);
      SV_TILE_SU(1, 5, 6);
    }
    if (kTwoStrips) {
      SV_TILE_LOAD(7, w[1] + i * 1024, 64);
      SV_TILE_SU(2, 4, 7);
      if (kSecond) SV_TILE_SU(3, 5, 7);
    }
  }
}

template <bool kSecond, bool kTwoStrips>
SV_INLINE void store_sums(int32_t (*sums)[2][256]) {
  SV_TILE_STORE(0, sums[0][0], 64);
  if (kSecond) SV_TILE_STORE(1, sums[0][1], 64);
  if (kTwoStrips) SV_TILE_STORE(2, sums[1][0], 64);
  if (kSecond && kTwoStrips) SV_TILE_STORE(3, sums[1][1], 64);
}

/** Rows [r, r + rows) of a block in one group. */
struct TileRows {
  int64_t group, r, rows;
};

/** out += the sums of some rows in one group. */
template <int P, bool kTwoStrips>
SV_INLINE void add_sums(const QuantizedRows& x, int64_t row, const TileRows& at, const PackedHeader& h, const char* w,
                        const int32_t (*sums)[2][256], float* out, int64_t ldo) {
  const int64_t tile = int4_tile_bytes(h.group);
#pragma GCC unroll 2
  for (int s = 0; s < (kTwoStrips ? 2 : 1); s++) {
    const GroupEnd end = group_end(w + s * h.strip_bytes + at.group * tile + tile - 64, h);
    for (int64_t i = 0; i < at.rows; i++) {
      const float* meta = (const float*)(x.data + (row + at.r + i) * x.stride + P * x.kp) + at.group * 4;
      const int32_t* a = P == 2 ? sums[s][0] + i * 16 : sums[s][i / 16] + i % 16 * 16;
      const vec sa = {_mm512_cvtepi32_ps(_mm512_load_si512(a))};
      const vec sb = P == 2 ? vec{_mm512_cvtepi32_ps(_mm512_load_si512(sums[s][1] + i * 16))} : sa;
      add_group<P>(sa, sb, meta, end, out + (at.r + i) * ldo + s * kLanes);
    }
  }
}

/** One or two strips by rows [row, row + n), n <= kTileRows: out starts at zero and takes one group after the other. While the tiles multiply,
 *  the next group is unpacked and the sums before are added. `shape`: the number of rows that the tiles have. */
template <int P, bool kTwoStrips>
SV_INLINE void tile_block(const QuantizedRows& x, int64_t row, int64_t n, const PackedHeader& h, const char* w, float* out,
                          int64_t ldo, int64_t* shape) {
  constexpr int64_t most = P == 2 ? 16 : 32;
  constexpr int strips = kTwoStrips ? 2 : 1;
  const int64_t tile = int4_tile_bytes(h.group), depth = h.group < 64 ? h.group : 64, steps = h.group / depth;
  alignas(64) char bytes[2][2][16 * 128];
  alignas(64) int32_t sums[2][2][2][256];
  const auto unpack = [&](int64_t g) __attribute__((always_inline)) {
    const char* later = w + later_tile(h, g, x.groups, strips);
    for (int s = 0; s < strips; s++) {
      unpack_group(w + s * h.strip_bytes + g * tile, h.group / 8, bytes[g & 1][s], later + s * h.strip_bytes);
    }
  };
  for (int64_t r = 0; r < n; r++)
    for (int s = 0; s < strips; s++) store(out + r * ldo + s * kLanes, zero());
  unpack(0);
  TileRows before = {0, 0, 0};
  int turn = 0;
  for (int64_t g = 0; g < x.groups; g++)
    for (int64_t r = 0; r < n; r += most, turn ^= 1) {
      const int64_t rows = n - r < most ? n - r : most, first = rows < 16 ? rows : 16, second = P == 2 ? first : rows - first;
      if (*shape != rows) tile_shape((int)first, (int)second, (int)depth);
      *shape = rows;
      const int8_t* a0 = x.data + (row + r) * x.stride + g * h.group;
      const int8_t* a1 = P == 2 ? a0 + x.kp : a0 + 16 * x.stride;
      if (second) group_sums<true, kTwoStrips>(a0, a1, x.stride, bytes[g & 1], steps, depth);
      else group_sums<false, kTwoStrips>(a0, a1, x.stride, bytes[g & 1], steps, depth);
      if (r == 0 && g + 1 < x.groups) unpack(g + 1);
      add_sums<P, kTwoStrips>(x, row, before, h, w, sums[turn ^ 1], out, ldo);
      if (second) store_sums<true, kTwoStrips>(sums[turn]);
      else store_sums<false, kTwoStrips>(sums[turn]);
      before = {g, r, rows};
    }
  add_sums<P, kTwoStrips>(x, row, before, h, w, sums[turn ^ 1], out, ldo);
}

template <int P>
static void matmul_tiles(const QuantizedRows& x, int64_t row, int64_t rows, const PackedHeader& h, const char* w, int64_t strips,
                         float* out, int64_t ldo) {
  int64_t shape = -1;
  for (int64_t r = 0; r < rows; r += kTileRows) {
    const int64_t n = rows - r < kTileRows ? rows - r : kTileRows;
    int64_t s = 0;
    for (; s + 2 <= strips; s += 2) tile_block<P, true>(x, row + r, n, h, w + s * h.strip_bytes, out + r * ldo + s * kLanes, ldo, &shape);
    if (s < strips) tile_block<P, false>(x, row + r, n, h, w + s * h.strip_bytes, out + r * ldo + s * kLanes, ldo, &shape);
  }
  SV_TILE_RELEASE();
}

}  // namespace SV_LEVEL
}  // namespace sv
