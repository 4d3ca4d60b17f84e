// Advanced Matrix Extensions: eight tiles of up to 16 rows x 64 bytes; one instruction multiplies A [16][64 bytes] with
// B [16][16 outputs x 4 bytes] into C [16][16] of 32 bits. Only the files compiled for it include this.
// The compiler's own wrappers (GCC 12) lack memory dependences: a store into a configuration or an operand may be dropped
// or moved past its use. Hence these.
#pragma once
#include <stdint.h>

namespace sv {

/** Which shapes the tiles have. Tiles 0-3: sums, 4-5: activations, 6-7: weights. */
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {0};
  uint16_t bytes[16] = {0};
  uint8_t rows[16] = {0};
};

/** Sums of `first` rows in tiles 0 and 2, of `second` rows in 1 and 3; `depth` bytes of inputs per step (at most 64). */
static inline __attribute__((always_inline)) void tile_shape(int first, int second, int depth) {
  TileConfig c;
  for (int i = 0; i < 4; i++) {
    c.rows[i] = (uint8_t)(i % 2 ? second : first);
    c.bytes[i] = 64;
  }
  for (int i = 4; i < 6; i++) {
    c.rows[i] = (uint8_t)(i % 2 ? second : first);
    c.bytes[i] = (uint16_t)depth;
  }
  for (int i = 6; i < 8; i++) {
    c.rows[i] = (uint8_t)(depth / 4);
    c.bytes[i] = 64;
  }
  for (int i = 0; i < 8; i++)
    if (!c.rows[i]) c.rows[i] = 1;  // not used then, but a tile of no rows is not allowed to be named
  asm volatile("ldtilecfg %0"
               :
               : "m"(c)
               : "memory");
}

// clang-format off
#define SV_TILE_ZERO(t) asm volatile("tilezero %%tmm" #t : : :)
#define SV_TILE_LOAD(t, from, stride) \
  asm volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"((const void*)(from)), "r"((int64_t)(stride)) : "memory")
#define SV_TILE_STORE(t, to, stride) \
  asm volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"((void*)(to)), "r"((int64_t)(stride)) : "memory")
/** c += a b: signed by unsigned bytes, unsigned by signed bytes, pairs of bf16. */
#define SV_TILE_SU(c, a, b) asm volatile("tdpbsud %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : :)
#define SV_TILE_US(c, a, b) asm volatile("tdpbusd %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : :)
#define SV_TILE_BF16(c, a, b) asm volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : :)
#define SV_TILE_RELEASE() asm volatile("tilerelease" : : : "memory")
// clang-format on

}  // namespace sv
