// The kernels of a GPU as a table of functions, which native/ops calls, and which a test without TensorFlow calls through
// ctypes. Pointers, sizes and a stream: knows neither TensorFlow nor Node, and needs no CUDA header to be read.
//
// Every function enqueues on `stream` and returns; nothing synchronizes, allocates or waits. Pointers are device memory
// unless stated otherwise. `last_error` reports a failed launch. Matrices are in device memory in the packed form of
// kernels/kernels.h, int4.h and int8.h, byte for byte as on the processor; their headers are read on the host.
#pragma once
#include <stdint.h>

#include "../kernels/attention.h"
#include "../kernels/delta.h"
#include "../kernels/linear.h"

namespace sv {

/** A cudaStream_t. */
using GpuStream = void*;

/** A packed matrix: its header on the host, its strips (what follows the header) on the device. */
struct GpuMatrix {
  PackedHeader header;
  const char* body;
};

/** Device memory for intermediate results, valid for all work that is enqueued on the stream before it is returned. */
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

/** Operations of `binary`. */
enum GpuBinary : int32_t {
  kAdd = 0,
  kSub = 1,
  kMul = 2,
  kDiv = 3
};

/** Every function takes the stream, then the parameters in kernels.def. */
struct GpuKernels {
  int64_t bytes;  // sizeof(GpuKernels) of the library: a table of another version is refused
  /** The first error since the last call, as text on the host, or null. Clears it. */
  const char* (*last_error)();
  /** Makes a GPU, by CUDA's number, the one that the calling thread launches on; its streams are that GPU's. */
  void (*use_device)(int32_t device);
#define SV_KERNEL(name, ...) void (*name)(GpuStream, __VA_ARGS__);
#include "kernels.def"
};

}  // namespace sv

/** The table; exported by sparsevila_gpu.so and by its stand-in. */
extern "C" const sv::GpuKernels* sparsevila_gpu_kernels();
