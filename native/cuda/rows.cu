// Norms, rotary embedding and sums of rows. A norm is one block per row, so a row's result does not depend on the others.
// Knows no matrices.
#include "epilogue.cuh"
#include "launch.h"
#include "launchers.h"

namespace sv {
namespace gpu {
namespace {

__global__ void rms_norm_rows(const float* x, int64_t ldx, const float* w, const float* eps, int64_t d, float* y, int64_t ldy) {
  __shared__ float shared[kWarp];
  x += blockIdx.x * ldx + blockIdx.y * d;
  y += blockIdx.x * ldy + blockIdx.y * d;
  float s = 0;
  for (int64_t i = threadIdx.x; i < d; i += blockDim.x) s = fmaf(x[i], x[i], s);
  const float inverse = 1.f / sqrtf(block_reduce(s, Sum(), shared) / (float)d + *eps);
  for (int64_t i = threadIdx.x; i < d; i += blockDim.x) y[i] = x[i] * inverse * w[i];
}

/** The variance from centerd values. */
__global__ void layer_norm_rows(const float* x, int64_t ldx, const float* w, const float* b, const float* eps, int64_t d, float* y,
                                int64_t ldy) {
  __shared__ float shared[kWarp];
  x += blockIdx.x * ldx;
  y += blockIdx.x * ldy;
  float s = 0, q = 0;
  for (int64_t i = threadIdx.x; i < d; i += blockDim.x) s += x[i];
  const float mean = block_reduce(s, Sum(), shared) / (float)d;
  for (int64_t i = threadIdx.x; i < d; i += blockDim.x) {
    const float v = x[i] - mean;
    q = fmaf(v, v, q);
  }
  const float inverse = 1.f / sqrtf(block_reduce(q, Sum(), shared) / (float)d + *eps);
  for (int64_t i = threadIdx.x; i < d; i += blockDim.x) y[i] = fmaf((x[i] - mean) * inverse, w[i], b[i]);
}

/** A thread per rotated pair: it reads both of its elements before it writes them, so y may be x. */
__global__ void rope_pairs(const float* x, int64_t ldx, const float* cos, const float* sin, int64_t pairs, int64_t heads, int64_t width,
                           int64_t half, float* y, int64_t ldy) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= pairs) return;
  const int64_t i = at % half, head = at / half % heads, token = at / half / heads, in = head * width + i;
  const float a = x[token * ldx + in], b = x[token * ldx + in + half];
  const float c = cos[token * half + i], s = sin[token * half + i];
  y[token * ldy + in] = a * c - b * s;
  y[token * ldy + in + half] = b * c + a * s;
}

__global__ void add_elements(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t total, int64_t d, float* y, int64_t ldy) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= total) return;
  const int64_t row = at / d, i = at % d;
  y[row * ldy + i] = a[row * lda + i] + b[row * ldb + i];
}

__global__ void gate_elements(const float* gate, int64_t ldg, const float* x, int64_t ldx, int64_t total, int64_t n, int32_t activation,
                              float* y, int64_t ldy) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= total) return;
  const int64_t row = at / n, i = at % n;
  y[row * ldy + i] = activate(gate[row * ldg + i], activation) * x[row * ldx + i];
}

}  // namespace

void rms_norm(GpuStream stream, const float* x, int64_t ldx, const float* w, const float* eps, int64_t rows, int64_t d, float* y,
              int64_t ldy, int64_t heads) {
  if (rows <= 0 || d <= 0 || heads <= 0) return;
  const dim3 grid((unsigned)rows, (unsigned)heads);
  SV_LAUNCH(rms_norm_rows, grid, row_threads(d), 0, stream_of(stream), x, ldx, w, eps, d, y, ldy);
}

void layer_norm(GpuStream stream, const float* x, int64_t ldx, const float* w, const float* b, const float* eps, int64_t rows,
                int64_t d, float* y, int64_t ldy) {
  if (rows > 0 && d > 0)
    SV_LAUNCH(layer_norm_rows, (unsigned)rows, row_threads(d), 0, stream_of(stream), x, ldx, w, b, eps, d, y, ldy);
}

void rope(GpuStream stream, const float* x, int64_t ldx, const float* cos, const float* sin, int64_t t, int64_t heads, int64_t c,
          int64_t half, float* y, int64_t ldy) {
  const int64_t pairs = t * heads * half;
  if (pairs > 0)
    SV_LAUNCH(rope_pairs, (unsigned)ceil_div(pairs, 256), 256, 0, stream_of(stream), x, ldx, cos, sin, pairs, heads, c, half, y, ldy);
}

void gated_mul(GpuStream stream, const float* gate, int64_t ldg, const float* x, int64_t ldx, int64_t rows, int64_t n, int32_t activation,
               float* y, int64_t ldy) {
  const int64_t total = rows * n;
  if (total > 0)
    SV_LAUNCH(gate_elements, (unsigned)ceil_div(total, 256), 256, 0, stream_of(stream), gate, ldg, x, ldx, total, n, activation, y, ldy);
}

void add_rows(GpuStream stream, const float* a, int64_t lda, const float* b, int64_t ldb, int64_t rows, int64_t d, float* y, int64_t ldy) {
  const int64_t total = rows * d;
  if (total > 0)
    SV_LAUNCH(add_elements, (unsigned)ceil_div(total, 256), 256, 0, stream_of(stream), a, lda, b, ldb, total, d, y, ldy);
}

}  // namespace gpu
}  // namespace sv
