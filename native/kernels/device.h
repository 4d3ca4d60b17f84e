// The kernels in the form in which layers and ops call them: one interface for the processor (`cpu_device`) and for a GPU
// (native/ops/gpu_device.h). A composition of kernels is written once over it. Knows neither TensorFlow nor Node.
//
// Pointers are to the device's memory unless said otherwise: on a GPU the host can read none of them.
#pragma once
#include <functional>

#include "attention.h"
#include "delta.h"
#include "linear.h"
#include "pool.h"
#include "sample.h"

namespace sv {

/** A packed matrix: a copy of its header, which the host reads, and its address, header included. */
struct Matrix {
  PackedHeader header;
  const void* packed;
};

/** The KV cache of one layer: [2 (keys, values)][heads][capacity] rows of c bf16 or f32. */
struct KvCache {
  char* data;
  int64_t heads, capacity, c;
  bool bf16;
  int64_t row_stride() const { return c * (bf16 ? 2 : 4); }
  int64_t head_stride() const { return capacity * row_stride(); }
  char* k() const { return data; }
  char* v() const { return data + heads * head_stride(); }
};

/** Writes all bytes of the host memory it is given. */
using Fill = std::function<void(void*)>;

class Device {
 public:
  virtual ~Device() = default;

  /** y[i] = w x[i] / sqrt(mean(x[i]^2) + eps); eps is one float. y may be x. A row may be of several `heads`,
   *  d floats each side by side, that are normed by themselves, with the same w. */
  virtual void rms_norm(const float* x, int64_t ldx, const float* w, const float* eps, int64_t rows, int64_t d, float* y, int64_t ldy,
                        int64_t heads = 1) = 0;
  virtual void layer_norm(const float* x, int64_t ldx, const float* w, const float* b, const float* eps, int64_t rows, int64_t d,
                          float* y, int64_t ldy) = 0;
  /** x [t][ldx], head i at i * c; cos and sin [t][c / 2]. y may be x. */
  virtual void rope(const float* x, int64_t ldx, const float* cos, const float* sin, int64_t t, int64_t heads, int64_t c, float* y,
                    int64_t ldy) = 0;
  /** y = activation(gate) x, rows of n floats; y may be x. */
  virtual void gated_mul(const float* gate, int64_t ldg, const float* x, int64_t ldx, int64_t rows, int64_t n, int32_t activation, float* y,
                         int64_t ldy) = 0;

  /** y = a + b, rows of d floats. */
  virtual void add(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t rows, int64_t d, float* y, int64_t ldy) = 0;
  /** Rows [rows][ldx] of `width` floats, to y [rows][width]. */
  virtual void copy_rows(const float* x, int64_t ldx, int64_t rows, int64_t width, float* y) = 0;
  /** c floats of each of `heads` heads, `step` apart in a row of x and side by side in a row of y. */
  virtual void copy_heads(const float* x, int64_t ldx, int64_t rows, int64_t heads, int64_t step, int64_t c, float* y, int64_t ldy) = 0;

  /** See linear.h. */
  virtual void linear(const float* x, int64_t ldx, int64_t rows, const Matrix&, const Epilogue&, float* y, int64_t ldy,
                      int64_t strips = -1) = 0;
  /** Rows of a matrix, widened; ids within [0, n) and on the host. */
  virtual void gather_rows(const Matrix&, const int32_t* ids, int64_t count, float* y) = 0;
  /** Rows [row, row + rows) as stored, widened. */
  virtual void dequantize(const Matrix&, int64_t row, int64_t rows, float* y) = 0;

  /** See attention.h. */
  virtual void attend(const Attention&) = 0;
  virtual void attend_all(const Attention* calls, int64_t count) {
    for (int64_t i = 0; i < count; i++) attend(calls[i]);
  }
  /** Keys and values [t][ld], head i at i * c, to rows at, at + 1, ... of every head. */
  virtual void kv_write(const KvCache&, int64_t at, const float* keys, const float* values, int64_t ld, int64_t t) = 0;
  /** Rows [begin, end) of keys, then of values: f32 [2][heads][end - begin][c]. */
  virtual void kv_read(const KvCache&, int64_t begin, int64_t end, float* y) = 0;
  /** Rows [0, rows) of one cache to those of another with the same heads, width and type. */
  virtual void kv_copy(const KvCache& from, int64_t rows, const KvCache& to) = 0;
  /** Rows [t][ld] of query heads, key heads, value heads: rotates the first 2 `half` numbers of queries and keys in place, then writes
   *  keys and values. cos and sin [t][half]. */
  virtual void rope_and_append(float* qkv, int64_t ld, int64_t t, int64_t query_width, const float* cos, const float* sin, int64_t half,
                               const KvCache&, int64_t at) = 0;
  /** See delta.h; the list of sequences is on the host. */
  virtual void delta_rule(const Delta&) = 0;

  /** See sample.h. logits [rows][n] -> ids [rows], both in the device's memory; samplings [rows] are on the host. */
  virtual void sample(const float* logits, int64_t rows, int64_t n, const Sampling* samplings, int32_t* ids) = 0;

  /** Memory for intermediate results, valid until the op ends or the slot is asked for again. Throws std::bad_alloc. */
  virtual float* scratch(SharedSlot, int64_t floats) = 0;
  /** `body` writes `bytes` bytes of host memory, which become those at `to`. */
  virtual void fill(void* to, int64_t bytes, const Fill& body) = 0;
  /** Writes a packed matrix, which `find_matrix` finds from then on. */
  virtual void fill_matrix(void* to, int64_t bytes, const Fill& body) = 0;
  /** Null, or why the bytes at `packed` are no matrix. */
  virtual const char* find_matrix(const void* packed, int64_t bytes, Matrix* found) = 0;
  /** The memory from `memory` on is now used for something else. */
  virtual void forget_matrix(const void* memory) = 0;
  /** Whether the host can read the memory: whether values can be checked. */
  virtual bool is_host() const = 0;
};

/** The processor's kernels on all threads. */
Device& cpu_device();

}  // namespace sv
