// The functions behind the table of kernels.h, in its order; what each does is said there. Each lives in the .cu file of its
// topic. Knows no CUDA.
#pragma once
#include "kernels.h"

namespace sv {
namespace gpu {

// rows.cu
void rms_norm(GpuStream, const float* x, int64_t ldx, const float* w, const float* eps, int64_t rows, int64_t d, float* y, int64_t ldy);
void layer_norm(GpuStream, const float* x, int64_t ldx, const float* w, const float* b, const float* eps, int64_t rows, int64_t d, float* y, int64_t ldy);
void rope(GpuStream, const float* x, int64_t ldx, const float* cos, const float* sin, int64_t t, int64_t heads, int64_t c, float* y, int64_t ldy);

// linear.cu, widen.cu
void linear(GpuStream, GpuScratch, const float* x, int64_t ldx, int64_t rows, const GpuMatrix*, const Epilogue*, float* y, int64_t ldy, int64_t strips);
void gather_rows(GpuStream, const GpuMatrix*, const int32_t* ids, int64_t count, float* y);
void dequantize(GpuStream, const GpuMatrix*, int64_t row, int64_t rows, float* y);

// attention.cu, cache.cu
void attend(GpuStream, GpuScratch, const Attention*);
void kv_write(GpuStream, char* k, char* v, int32_t bf16, int64_t head_stride, int64_t row_stride, int64_t at, const float* keys,
              const float* values, int64_t ld, int64_t t, int64_t kv_heads, int64_t c);
void kv_read(GpuStream, const char* kv, int32_t bf16, int64_t heads, int64_t capacity, int64_t row_stride, int64_t begin, int64_t end, int64_t c, float* y);

// sample.cu
void sample(GpuStream, GpuScratch, const float* logits, int64_t n, const GpuSampling*, int32_t* id);
void top_k(GpuStream, GpuScratch, const float* x, int64_t n, int64_t k, int32_t* indices);

// elementwise.cu
void binary(GpuStream, int32_t op, int32_t rank, const int64_t* dims, const float* a, const int64_t* a_strides, const float* b, const int64_t* b_strides, float* y);
void copy(GpuStream, int32_t rank, const int64_t* dims, const void* x, const int64_t* x_strides, void* y, const int64_t* y_strides, int32_t width);
void gather(GpuStream, const void* x, const int32_t* ids, int64_t outer, int64_t n, int64_t count, int64_t inner, int32_t width, void* y);
void upload(GpuStream, void* device, const void* host, int64_t bytes);
void move(GpuStream, void* to, const void* from, int64_t bytes);

// errors.cu
const char* last_error();
/** What last_error says next: an argument that a kernel cannot take. The text lives for ever. */
void refuse(const char* why);

}  // namespace gpu
}  // namespace sv
