// Rows of a KV cache: written from f32 (as bf16, rounded to nearest even, or as they are) and read back as f32.
#include "cuda.h"
#include "launchers.h"

namespace sv {
namespace gpu {
namespace {

constexpr int kThreads = 256;

int blocks_for(int64_t n) {
  const int64_t blocks = (n + kThreads - 1) / kThreads;
  return (int)(blocks < 65536 ? blocks : 65536);  // kernels stride over the rest
}

/** As to_bf16 of kernels/vec.h: ties to even; NaN stays NaN. */
__device__ void store(uint16_t* to, float x) {
  const uint32_t u = __float_as_uint(x);
  *to = (u & 0x7fffffffu) > 0x7f800000u ? (uint16_t)((u >> 16) | 64) : (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
__device__ void store(float* to, float x) { *to = x; }
__device__ float widened(uint16_t x) { return __uint_as_float((uint32_t)x << 16); }
__device__ float widened(float x) { return x; }

struct CacheRows {
  int64_t head_stride, row_stride, at, ld, t, kv_heads, c;
};

template <typename T>
__global__ void write_kernel(CacheRows r, const float* keys, const float* values, char* k, char* v) {
  const int64_t step = (int64_t)gridDim.x * blockDim.x, width = r.kv_heads * r.c, count = r.t * width;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
    const int64_t row = i / width, column = i - row * width, head = column / r.c;
    const int64_t to = head * r.head_stride + (r.at + row) * r.row_stride;
    store((T*)(k + to) + column - head * r.c, keys[row * r.ld + column]);
    store((T*)(v + to) + column - head * r.c, values[row * r.ld + column]);
  }
}

template <typename T>
__global__ void read_kernel(const char* kv, int64_t heads, int64_t capacity, int64_t row_stride, int64_t begin, int64_t rows, int64_t c, float* y) {
  const int64_t step = (int64_t)gridDim.x * blockDim.x, count = heads * rows * c;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
    const int64_t line = i / c, head = line / rows;
    const T* from = (const T*)(kv + (head * capacity + begin + line - head * rows) * row_stride);
    y[i] = widened(from[i - line * c]);
  }
}

}  // namespace

void kv_write(GpuStream stream, char* k, char* v, int32_t bf16, int64_t head_stride, int64_t row_stride, int64_t at,
              const float* keys, const float* values, int64_t ld, int64_t t, int64_t kv_heads, int64_t c) {
  const CacheRows r = {head_stride, row_stride, at, ld, t, kv_heads, c};
  if (t <= 0 || kv_heads <= 0 || c <= 0) return;
  const int blocks = blocks_for(t * kv_heads * c);
  if (bf16) SV_LAUNCH(write_kernel<uint16_t>, blocks, kThreads, 0, (cudaStream_t)stream, r, keys, values, k, v);
  else SV_LAUNCH(write_kernel<float>, blocks, kThreads, 0, (cudaStream_t)stream, r, keys, values, k, v);
}

void kv_read(GpuStream stream, const char* kv, int32_t bf16, int64_t heads, int64_t capacity, int64_t row_stride,
             int64_t begin, int64_t end, int64_t c, float* y) {
  if (heads <= 0 || end <= begin || c <= 0) return;
  const int blocks = blocks_for(heads * (end - begin) * c);
  const cudaStream_t s = (cudaStream_t)stream;
  if (bf16) SV_LAUNCH(read_kernel<uint16_t>, blocks, kThreads, 0, s, kv, heads, capacity, row_stride, begin, end - begin, c, y);
  else SV_LAUNCH(read_kernel<float>, blocks, kThreads, 0, s, kv, heads, capacity, row_stride, begin, end - begin, c, y);
}

}  // namespace gpu
}  // namespace sv
