// A product with a packed matrix as its kernels receive it, and the functions that launch them, one per weight type.
// Knows neither CUDA nor how a type is multiplied.
#pragma once
#include "kernels.h"

namespace sv {
namespace gpu {

/** By value to a kernel; pointers are device memory. */
struct Product {
  const char* w;                           // strips, as kernels/kernels.h, int4.h and int8.h lay them out
  int64_t strip_bytes, strips, k, groups;  // groups: int4
  int32_t group, scale_bf16, zero_scaled, gated;
  const float* x;  // [rows][ldx]
  int64_t ldx, rows;
  char* fragments;  // x in the order the tensor cores read it (fragments.cuh)
  float* sums;      // int4: of each group of inputs [ceil(rows / 8)][groups][8]; int8: the scale of each row [rows]
  int64_t n;
  const float *bias, *scale, *residual;  // as Epilogue's
  int64_t residual_ld;
  int32_t activation;
  float* y;  // [rows][ldy]
  int64_t ldy;
};

/** Activations as `planes` planes of bf16, 1 or 2. */
void multiply_f32(GpuStream, const Product&);
void multiply_bf16(GpuStream, const Product&, int planes);
void multiply_f16(GpuStream, const Product&);
void multiply_int4(GpuStream, const Product&, int planes);
void multiply_int8(GpuStream, const Product&);

}  // namespace gpu
}  // namespace sv
