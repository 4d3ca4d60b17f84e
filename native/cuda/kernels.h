// The kernels of a GPU as a table of functions: what native/ops calls, and what a test without TensorFlow calls through
// ctypes. Pointers, sizes and a stream: knows neither TensorFlow nor Node, and needs no CUDA header to be read.
//
// Every function enqueues on `stream` and returns; nothing synchronises, allocates or waits. Pointers are device memory
// unless said otherwise. A launch that fails is seen by `last_error`. Matrices lie in device memory in the packed form of
// kernels/kernels.h, int4.h and int8.h, byte for byte as on the processor; their headers are read on the host.
#pragma once
#include <stdint.h>

#include "../kernels/attention.h"
#include "../kernels/linear.h"

namespace sv {

/** A cudaStream_t. */
using GpuStream = void*;

/** A packed matrix: its header on the host, its strips (what follows the header) on the device. */
struct GpuMatrix {
  PackedHeader header;
  const char* body;
};

/** Device memory for intermediate results, valid for all that is enqueued on the stream before it is given back. */
struct GpuScratch {
  void* (*take)(void* state, int64_t bytes);  // 256-byte aligned; null: out of memory, the function then does nothing
  void* state;
};

/** How a token is drawn from logits. temperature 0: the largest, lowest index first. */
struct GpuSampling {
  float temperature;
  int32_t top_k;  // 0: all
  float top_p;    // 1: all
  float uniform;  // in [0, 1): the one random number that the draw uses
};

struct GpuKernels {
  int64_t bytes;  // sizeof(GpuKernels) of the library: a table of another version is refused

  // Rows. Strides (ld...) in floats. eps is one float on the device.
  void (*rms_norm)(GpuStream, const float* x, int64_t ldx, const float* w, const float* eps, int64_t rows, int64_t d, float* y, int64_t ldy);
  void (*layer_norm)(GpuStream, const float* x, int64_t ldx, const float* w, const float* b, const float* eps, int64_t rows, int64_t d, float* y, int64_t ldy);
  /** x [t][ldx], head i at i * c; cos and sin [t][c / 2]. y may be x. */
  void (*rope)(GpuStream, const float* x, int64_t ldx, const float* cos, const float* sin, int64_t t, int64_t heads, int64_t c, float* y, int64_t ldy);

  // Matrices. As kernels/linear.h; strips: leading strips only when >= 0. Epilogue's pointers are device memory.
  void (*linear)(GpuStream, GpuScratch, const float* x, int64_t ldx, int64_t rows, const GpuMatrix*, const Epilogue*, float* y, int64_t ldy, int64_t strips);
  /** y[i][:] = row ids[i] of the matrix, widened; ids on the device, within [0, n). */
  void (*gather_rows)(GpuStream, const GpuMatrix*, const int32_t* ids, int64_t count, float* y);
  /** Rows [row, row + rows) as stored (of gated matrices 16 of gate, 16 of up, ...), widened. */
  void (*dequantize)(GpuStream, const GpuMatrix*, int64_t row, int64_t rows, float* y);

  // Attention and the cache. As kernels/attention.h, with AttentionRows::rows on the device. Listed rows that lie outside
  // [0, tail) are never read: they count as rows nobody sees.
  void (*attend)(GpuStream, GpuScratch, const Attention*);
  void (*kv_write)(GpuStream, char* k, char* v, int32_t bf16, int64_t head_stride, int64_t row_stride, int64_t at, const float* keys,
                   const float* values, int64_t ld, int64_t t, int64_t kv_heads, int64_t c);
  /** kv [heads][capacity] rows of row_stride bytes -> y f32 [heads][end - begin][c]. */
  void (*kv_read)(GpuStream, const char* kv, int32_t bf16, int64_t heads, int64_t capacity, int64_t row_stride, int64_t begin, int64_t end, int64_t c, float* y);

  // Choosing.
  /** One token id from logits [n]; what sampling means is said in ops/sample. id: one int32 on the device. */
  void (*sample)(GpuStream, GpuScratch, const float* logits, int64_t n, const GpuSampling*, int32_t* id);
  /** Indices of the k largest of x [n] (ties: lower index first), ascending by index. NaN is smallest. */
  void (*top_k)(GpuStream, GpuScratch, const float* x, int64_t n, int64_t k, int32_t* indices);

  // What TensorFlow's own float ops need to stay on the device.
  enum Binary : int32_t {
    kAdd = 0,
    kSub = 1,
    kMul = 2,
    kDiv = 3
  };
  /** y[i] = a op b over the broadcast shape: dims [rank], strides in elements, 0 where an operand is repeated. rank <= 6. */
  void (*binary)(GpuStream, int32_t op, int32_t rank, const int64_t* dims, const float* a, const int64_t* a_strides, const float* b, const int64_t* b_strides, float* y);
  /** Copies a box: dims [rank] elements of `width` bytes, strides in elements. Slices, concatenations, transposes. rank <= 6. */
  void (*copy)(GpuStream, int32_t rank, const int64_t* dims, const void* x, const int64_t* x_strides, void* y, const int64_t* y_strides, int32_t width);
  /** y[o][i][:] = x[o][ids[i]][:], rows of `inner` elements of `width` bytes, x [outer][n][inner]; ids on the device; one outside [0, n) gives zeros. */
  void (*gather)(GpuStream, const void* x, const int32_t* ids, int64_t outer, int64_t n, int64_t count, int64_t inner, int32_t width, void* y);

  /** Host memory -> device, in stream order; `host` may be freed or changed as soon as this returns. */
  void (*upload)(GpuStream, void* device, const void* host, int64_t bytes);
  /** Device -> device, in stream order. */
  void (*move)(GpuStream, void* to, const void* from, int64_t bytes);

  /** The first error since the last call, as text on the host, or null. Clears it. */
  const char* (*last_error)();
};

}  // namespace sv

/** The table; exported by sparsevila_gpu.so and by its stand-in. */
extern "C" const sv::GpuKernels* sparsevila_gpu_kernels();
