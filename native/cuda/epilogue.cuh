// The epilogue of a finished sum: y = activation(sum + bias) scale + residual, or with activation(gate + bias) (up + bias). As
// in kernels/linear.h.
// Does not know how the sum was computed.
#pragma once
#include "cuda.h"
#include "product.h"

namespace sv {
namespace gpu {

__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

__device__ __forceinline__ float activate(float x, int32_t kind) {
  if (kind == kGeluTanh) return x * sigmoid(x * fmaf(x * x, 0.044715f * 1.5957691216057308f, 1.5957691216057308f));
  if (kind == kGeluErf) return 0.5f * x * (1.f + erff(0.70710678118654752f * x));
  if (kind == kQuickGelu) return x * sigmoid(1.702f * x);
  if (kind == kSilu) return x * sigmoid(x);
  if (kind == kSigmoid) return sigmoid(x);
  return x;
}

__device__ __forceinline__ void store(const Product& p, int64_t row, int64_t col, float y) {
  if (p.scale) y *= p.scale[col];
  if (p.residual) y += p.residual[row * p.residual_ld + col];
  p.y[row * p.ldy + col] = y;
}

/** Output `out` of S neighboring strips in one row; of gated matrices the first strip is gate, the second up. */
template <int S>
__device__ __forceinline__ void store_strips(const Product& p, int64_t row, int64_t strip, int out, const float (&sums)[S]) {
  if (S % 2 == 0 && p.gated) {
    for (int s = 0; s + 1 < S; s += 2) {
      const int64_t col = (strip + s) / 2 * kLanes + out;
      if (strip + s >= p.strips || col >= p.n) continue;
      float gate = sums[s], up = sums[s + 1];
      if (p.bias) gate += p.bias[col], up += p.bias[p.n + col];
      store(p, row, col, activate(gate, p.activation) * up);
    }
    return;
  }
  for (int s = 0; s < S; s++) {
    const int64_t col = (strip + s) * kLanes + out;
    if (strip + s < p.strips && col < p.n) store(p, row, col, activate(p.bias ? sums[s] + p.bias[col] : sums[s], p.activation));
  }
}

}  // namespace gpu
}  // namespace sv
