// Matrices with one 8-bit scale per output (W8A8): w = s q, q in -128 .. 127, multiplied with activations that are rounded to
// 8 bits per row: x ~ d a, d = max|x| / 127. y = d s sum q a, the sum exact in 32 bits. (SmoothQuant, arXiv 2211.10438, as
// TinyChat's vision tower uses it.)
//
// A strip of 16 outputs: k/4 vectors of 64 bytes (dword lane r is output r, its bytes four consecutive inputs), then 16 f32
// scales and 16 int32 sums 128 sum q, which undo the +128 that makes activations unsigned for VNNI. k is padded to 4.
#pragma once
#include "kernels.h"

namespace sv {

/** A row-major [rows, k] matrix: 8-bit with scales (type kInt8), or floats that are rounded here. */
struct Int8Part {
  const void* data;
  int32_t type;
  int64_t rows;
  const float* scales;
};

inline int64_t int8_padded_k(int64_t k) { return (k + 3) / 4 * 4; }
/** gated: two parts (gate, up) of equal rows, interleaved strip by strip; else parts are stacked. */
int64_t packed_int8_bytes(const Int8Part* parts, int count, int64_t k, bool gated);
void pack_int8(const Int8Part* parts, int count, int64_t k, bool gated, void* out);
/** Rows of the dequantized matrix, f32 [rows][k]. */
void dequantize_int8(const void* packed, int64_t row, int64_t rows, float* out);

/** The 8-bit kernels of one instruction-set level. */
struct Int8Kernels {
  const char* name;
  /** x [k] -> kp bytes in the form that `matmul` of this level reads; returns d. */
  float (*quantize_row)(const float* x, int64_t k, int8_t* out);
  /** Rows of quantized activations (stride bytes apart) times strips at w -> out[rows][ldo]. */
  void (*matmul)(const int8_t* x, int64_t stride, const float* d, int64_t rows, int64_t kp, const char* w,
                 int64_t strip_bytes, int64_t strips, float* out, int64_t ldo);
  /** For machine_peak.h: as those of kernels.h; null where products are plain loops. */
  double (*int8_loop)(int64_t iterations);
};
extern const Int8Kernels int8_portable;
#if defined(__x86_64__)
extern const Int8Kernels int8_avx2, int8_avx512vnni, int8_avx512amx;
#elif defined(__aarch64__)
extern const Int8Kernels int8_neon, int8_dotprod, int8_i8mm;
#endif
const Int8Kernels& int8_kernels();

}  // namespace sv
