// Products of many rows with 4-bit matrices on matrix tiles: a group of a strip is unpacked to bytes, which lie as a tile
// wants them, once for all rows. The integer sums are exact and what follows them is `add_group`, so the bits are those of
// every other level. Included by int4.inl.
#include "amx.h"

namespace sv {
namespace SV_LEVEL {

constexpr int64_t kTileRows = 96;  // rows that pass while a group's bytes stay in the first-level cache

/** Nibbles of one group -> bytes [group / 4][16 outputs][4 inputs]. */
SV_INLINE void unpack_group(const char* w, int64_t vectors, char* out) {
  const __m512i low = _mm512_set1_epi8(15);
  for (int64_t j = 0; j < vectors; j++) {
    const __m512i p = _mm512_loadu_si512(w + j * 64);
    _mm512_store_si512(out + j * 64, _mm512_and_si512(p, low));
    _mm512_store_si512(out + (j + vectors) * 64, _mm512_and_si512(_mm512_srli_epi16(p, 4), low));
  }
}

/** Sums over one group of two activation tiles by two strips -> sums[strip][tile][16][16]. */
template <bool kSecond, bool kTwoStrips>
SV_INLINE void group_sums(const int8_t* a0, const int8_t* a1, int64_t lda, const char (*w)[16 * 128], int64_t steps, int64_t depth,
                          int32_t (*sums)[2][256]) {
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
  SV_TILE_STORE(0, sums[0][0], 64);
  if (kSecond) SV_TILE_STORE(1, sums[0][1], 64);
  if (kTwoStrips) SV_TILE_STORE(2, sums[1][0], 64);
  if (kSecond && kTwoStrips) SV_TILE_STORE(3, sums[1][1], 64);
}

/** One or two strips by rows [row, row + n), n <= kTileRows: out starts at zero and takes one group after the other. */
template <int P, bool kTwoStrips>
SV_INLINE void tile_block(const QuantizedRows& x, int64_t row, int64_t n, const PackedHeader& h, const char* w, float* out,
                          int64_t ldo) {
  constexpr int64_t most = P == 2 ? 16 : 32;
  const int64_t tile = int4_tile_bytes(h.group), depth = h.group < 64 ? h.group : 64, steps = h.group / depth;
  alignas(64) char bytes[2][16 * 128];
  alignas(64) int32_t sums[2][2][256];
  int64_t shape = -1;
  for (int64_t r = 0; r < n; r++)
    for (int s = 0; s < (kTwoStrips ? 2 : 1); s++) store(out + r * ldo + s * kLanes, zero());
  for (int64_t g = 0; g < x.groups; g++) {
    for (int s = 0; s < (kTwoStrips ? 2 : 1); s++) unpack_group(w + s * h.strip_bytes + g * tile, h.group / 8, bytes[s]);
    for (int64_t r = 0; r < n; r += most) {
      const int64_t rows = n - r < most ? n - r : most, first = rows < 16 ? rows : 16, second = P == 2 ? first : rows - first;
      if (shape != rows) tile_shape((int)first, (int)second, (int)depth);
      shape = rows;
      const int8_t* a0 = x.data + (row + r) * x.stride + g * h.group;
      const int8_t* a1 = P == 2 ? a0 + x.kp : a0 + 16 * x.stride;
      if (second) group_sums<true, kTwoStrips>(a0, a1, x.stride, bytes, steps, depth, sums);
      else group_sums<false, kTwoStrips>(a0, a1, x.stride, bytes, steps, depth, sums);
#pragma GCC unroll 2
      for (int s = 0; s < (kTwoStrips ? 2 : 1); s++) {
        const GroupEnd end = group_end(w + s * h.strip_bytes + g * tile + tile - 64, h);
        for (int64_t i = 0; i < rows; i++) {
          const float* meta = (const float*)(x.data + (row + r + i) * x.stride + P * x.kp) + g * 4;
          const int32_t* a = P == 2 ? sums[s][0] + i * 16 : sums[s][i / 16] + i % 16 * 16;
          const vec sa = {_mm512_cvtepi32_ps(_mm512_load_si512(a))};
          const vec sb = P == 2 ? vec{_mm512_cvtepi32_ps(_mm512_load_si512(sums[s][1] + i * 16))} : sa;
          add_group<P>(sa, sb, meta, end, out + (r + i) * ldo + s * kLanes);
        }
      }
    }
  }
}

template <int P>
static void matmul_tiles(const QuantizedRows& x, int64_t row, int64_t rows, const PackedHeader& h, const char* w, int64_t strips,
                         float* out, int64_t ldo) {
  for (int64_t r = 0; r < rows; r += kTileRows) {
    const int64_t n = rows - r < kTileRows ? rows - r : kTileRows;
    int64_t s = 0;
    for (; s + 2 <= strips; s += 2) tile_block<P, true>(x, row + r, n, h, w + s * h.strip_bytes, out + r * ldo + s * kLanes, ldo);
    if (s < strips) tile_block<P, false>(x, row + r, n, h, w + s * h.strip_bytes, out + r * ldo + s * kLanes, ldo);
  }
  SV_TILE_RELEASE();
}

}  // namespace SV_LEVEL
}  // namespace sv
