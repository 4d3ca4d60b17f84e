// The 4-bit layouts of checkpoints, decoded strip by strip to the input of pack_int4: nibbles 0..15, scales, zeros.
// Knows the place of each nibble in a format; knows neither names in files nor the internal form.
// Source: AutoAWQ 0.2 `awq/modules/linear/{gemm,gemv,gemv_fast}.py`, compressed-tensors `pack_quantized.py`, GPTQModel
// `nn_modules/qlinear`. o: outputs, k: inputs, g: inputs per scale.
#pragma once
#include "int4.h"

namespace sv {

/** Weight words; scales; zeros of each format. Nibble i of a word is bits 4i .. 4i+3; "sequential" means nibble i is entry i. */
enum Int4Format : int32_t {
  kAwqGemm,      // i32 [k, o/8], output 8c + {0,2,4,6,1,3,5,7}[i]; [k/g, o]; i32 [k/g, o/8] ordered like the weight
  kAwqGemv,      // i32 [o, k/8] sequential; [o, 8 zw]; i32 [o, zw] sequential, zw = zero_words(k, g)
  kAwqGemvFast,  // i16 [o/4, k], see decode; [8 zw, o]; f16 [8 zw, o], holding -z s
  kCompressed,   // i32 [o, ceil(k/8)] sequential; [o, k/g]; i32 [ceil(o/8), k/g] sequential along o, or none: z = 8
  kGptq,         // i32 [k/8, o] sequential along k; [k/g, o]; i32 [k/g, o/8] sequential, holding z - 1
  kGptqV2,       // the same, holding z
  kInt4Formats
};

/** One matrix as stored in a file. Pointers need no alignment. */
struct Int4File {
  int32_t format;
  int32_t scale_type;  // WeightType
  int32_t scale_bf16;  // scales are handed on as bf16, else as f16; exact in both directions or check_int4 says no
  int64_t rows, k;
  int64_t group;                      // of the file: divides k
  int64_t stored;                     // of the internal form: 32, 64 or 128; divides `group`, unless there is one group only
  const char *weight, *scale, *zero;  // zero is null for symmetric kCompressed
};

/** Bytes that a matrix of a format takes; 0 for zeros that a format has no place for. */
struct Int4Extents {
  int64_t weight, scale, zero;
};
Int4Extents int4_extents(const Int4File& file);

/** Null, or why a matrix of these sizes cannot lie in this format. Reads no weights. */
const char* check_int4(const Int4File& file);

/** The first element of n values of a type that is NaN or infinite (or, for f32, not exactly f16 or bf16 as `bf16` says);
 *  -1 when there is none. */
int64_t first_not_finite(const char* values, int32_t type, int64_t n);
int64_t first_inexact(const char* values, int64_t n, bool bf16);

/** The decoder of a format; its `part` is an Int4File. */
Int4Decode int4_decoder(int32_t format);

/** 16 outputs per strip, w = (q - z) s; only kAwqGemvFast is zero_scaled, w = q s + sz. */
inline bool int4_zero_scaled(int32_t format) { return format == kAwqGemvFast; }

}  // namespace sv
