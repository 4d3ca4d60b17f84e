// Group-quantized 4-bit matrices, w = (q - z) s or q s + sz, in the one internal form that every format is repacked to.
// Knows no file format.
//
// A strip of 16 outputs is a row of tiles, one per group of G inputs (G = 32, 64 or 128):
//   nibbles  G/8 vectors of 64 bytes: vector j holds quad j (inputs 4j .. 4j+3) in low and quad j + G/8 in high nibbles;
//            dword lane r is output r, byte b of it input b of the quad
//   scales   16 x u16 (f16 or bf16), zeros 16 x u16 (f16: z itself, or -z s)
// 4.25 bits per weight at G = 128. A product unpacks nibbles to unsigned bytes and multiplies with signed 8-bit activations
// (u8 x s8 is what maddubs and VNNI take), one exact integer sum per group:
//   x ~ d (a + b / 254)   a = round(x / d), b = round(254 (x / d - a)), d = max|x| / 127 over the group; b only in exact mode
//   y = sum over groups of s d (sum q a + sum q b / 254 - z (sum a + sum b / 254))
// Groups are accumulated in ascending order by fused multiply-adds, so results do not depend on rows, threads or AVX2/AVX-512.
#pragma once
#include "kernels.h"

namespace sv {

/** One tile of a source matrix, decoded: 16 outputs by `group` inputs. What lies past the matrix is zero. */
struct Int4Tile {
  uint8_t q[16][128];
  uint16_t scale[16], zero[16];
};

/** Fills the tile of 16 outputs from 16 `strip` on and of the inputs of group `group` from some format. */
using Int4Decode = void (*)(const void* part, int64_t strip, int64_t group, Int4Tile* out);

/** A matrix (or one of several stacked by rows, or gate and up) to pack. rows a multiple of 16 except in the last part. */
struct Int4Part {
  const void* part;
  Int4Decode decode;
  int64_t rows;
};

inline int64_t int4_tile_bytes(int64_t group) { return 16 * group / 2 + 64; }
inline int64_t int4_groups(int64_t k, int64_t group) { return (k + group - 1) / group; }
int64_t packed_int4_bytes(const Int4Part* parts, int count, int64_t k, int64_t group);
void pack_int4(const Int4Part* parts, int count, int64_t k, int64_t group, bool gated, bool scale_bf16, bool zero_scaled,
               int planes, void* out);

/** Rows of the dequantized matrix as f32 [rows][k], exactly (q - z) s or q s + sz evaluated in f32. */
void dequantize_int4(const void* packed, int64_t row, int64_t rows, float* out);

/** Activations of one product, quantized: per row `stride` bytes: planes x [kp] s8, then per group 4 f32: d, d/254,
 *  d (sum a + sum b / 254), 0. */
struct QuantizedRows {
  const int8_t* data;
  int64_t stride, kp, groups;
  int planes;
};

/** The 4-bit kernels of one instruction-set level. */
struct Int4Kernels {
  const char* name;
  /** x [k] -> one row of QuantizedRows. */
  void (*quantize_row)(const float* x, int64_t k, int64_t group, int planes, int8_t* out);
  /** Rows [row, row + rows) times `strips` strips at w -> out[rows][ldo]. */
  void (*matmul)(const QuantizedRows& x, int64_t row, int64_t rows, const PackedHeader& h, const char* w, int64_t strips,
                 float* out, int64_t ldo);
};
extern const Int4Kernels int4_portable;
#if defined(__x86_64__)
extern const Int4Kernels int4_avx2, int4_avx512vnni, int4_avx512amx;
#elif defined(__aarch64__)
extern const Int4Kernels int4_neon, int4_dotprod, int4_i8mm;
#endif
/** The kernels of the level in use (AVX-512 without VNNI uses AVX2's). */
const Int4Kernels& int4_kernels();

}  // namespace sv
