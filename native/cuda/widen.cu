// Widens rows of a packed matrix to f32: equal to kernels/linear.h's gather_rows and the dequantize functions of int4.h and
// int8.h give, bit for bit. Knows no products.
#include "../kernels/int4.h"
#include "../kernels/int8.h"
#include "fragments.cuh"
#include "launchers.h"
#include "mma.h"

namespace sv {
namespace gpu {
namespace {

__device__ float int4_weight(const PackedHeader& h, const char* strip, int lane, int64_t input) {
  const int64_t bytes = 8 * h.group + 64;
  const int in = (int)(input % h.group), half = h.group / 2;
  const char* tile = strip + input / h.group * bytes;
  const uint32_t byte = (uint8_t)tile[in % half / 4 * 64 + lane * 4 + in % 4];
  const uint16_t* end = (const uint16_t*)(tile + bytes - 64);
  const float q = (float)(in < half ? byte & 15 : byte >> 4), zero = half_to_float(end[kLanes + lane]);
  const float scale = h.scale_bf16 ? bf16_low(end[lane]) : half_to_float(end[lane]);
  return h.zero_scaled ? q * scale + zero : (q - zero) * scale;  // q s is exact: fused or not is the same
}

__device__ float weight(const PackedHeader& h, const char* strip, int lane, int64_t input) {
  const auto* half = (const uint16_t*)strip;
  switch (h.type) {
    case kF32: return ((const float*)strip)[input * kLanes + lane];
    case kF16: return half_to_float(half[input * kLanes + lane]);
    case kBf16: return bf16_low(half[(input / 2 * kLanes + lane) * 2 + input % 2]);
    case kInt4: return int4_weight(h, strip, lane, input);
    default: {
      const float scale = ((const float*)(strip + (h.k + 3) / 4 * 64))[lane];
      return scale * (float)(int8_t)strip[input / 4 * 64 + lane * 4 + input % 4];
    }
  }
}

/** Row i is ids[i], or begin + i where there are none. */
__global__ void widen_rows(PackedHeader h, const char* body, const int32_t* ids, int64_t begin, int64_t total, float* y) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= total) return;
  const int64_t row = ids ? ids[at / h.k] : begin + at / h.k;
  y[at] = weight(h, body + row / kLanes * h.strip_bytes, (int)(row % kLanes), at % h.k);
}

void widen(GpuStream stream, const GpuMatrix* m, const int32_t* ids, int64_t begin, int64_t rows, float* y) {
  const int64_t total = rows * m->header.k;
  if (total <= 0) return;
  SV_LAUNCH(widen_rows, (unsigned)ceil_div(total, 256), 256, 0, stream_of(stream), m->header, m->body, ids, begin, total, y);
}

}  // namespace

void gather_rows(GpuStream stream, const GpuMatrix* m, const int32_t* ids, int64_t count, float* y) { widen(stream, m, ids, 0, count, y); }
void dequantize(GpuStream stream, const GpuMatrix* m, int64_t row, int64_t rows, float* y) { widen(stream, m, nullptr, row, rows, y); }

}  // namespace gpu
}  // namespace sv
