// Packed weight matrices and their product with activation rows, on all threads: y = epilogue(x W^T).
// Knows neither TensorFlow nor which layer it serves.
#pragma once
#include "kernels.h"

namespace sv {

/** A row-major [rows, k] matrix as it lies in a file or tensor. */
struct WeightPart {
  const void* data;
  int32_t type;
  int64_t rows;
};

/** Bytes of the packed form. gated: two parts (gate, up) of equal rows, interleaved strip by strip. */
int64_t packed_bytes(const WeightPart* parts, int count, int64_t k, int32_t type, bool gated);
/** Fills `out`. The stored type must be able to hold the source exactly or is rounded to nearest even (f32 -> bf16). */
void pack(const WeightPart* parts, int count, int64_t k, int32_t type, bool gated, bool dot_bf16, void* out);
/** Null, or why `data` is not a packed matrix. */
const char* check_packed(const void* data, int64_t bytes);

struct Epilogue {
  const float* bias = nullptr;      // [n]; of a gated matrix [2n], the gate's first
  int32_t activation = kNone;       // of a gated matrix that of the gate
  const float* scale = nullptr;     // [n]
  const float* residual = nullptr;  // [rows][ld]; may alias y
  int64_t residual_ld = 0;
};

/** y[rows][ldy] = activation(x W^T + bias) scale + residual; of gated weights activation(x G^T + bias) (x U^T + bias) takes the place of
 *  the activation. Leading strips only when strips >= 0. Strides in floats. */
void linear(const float* x, int64_t ldx, int64_t rows, const void* packed, const Epilogue&, float* y, int64_t ldy,
            int64_t strips = -1);

/** out[i][:] = row ids[i] of the packed matrix, as f32. ids are within [0, n). */
void gather_rows(const void* packed, const int32_t* ids, int64_t count, float* out);

/** A leading dimension for activations that keeps rows of equal length off the same cache sets. */
inline int64_t padded_ld(int64_t n) { return (n + 15) / 16 * 16 + 16; }

}  // namespace sv
