// The table of GPU kernels, and what went wrong since somebody last asked. Knows no kernel.
#include "cuda.h"
#include "launchers.h"

namespace sv {
namespace gpu {
namespace {

thread_local const char* refused = nullptr;  // CUDA's own last error is per thread, too

}  // namespace

void refuse(const char* why) {
  if (!refused) refused = why;
}

const char* last_error() {
  const char* why = refused;
  refused = nullptr;
  const cudaError_t error = cudaGetLastError();
  if (why || error == cudaSuccess) return why;
  return cudaGetErrorString(error);
}

}  // namespace gpu
}  // namespace sv

extern "C" __attribute__((visibility("default"))) const sv::GpuKernels* sparsevila_gpu_kernels() {
  using namespace sv::gpu;
  static const sv::GpuKernels table = {
      (int64_t)sizeof(sv::GpuKernels),
      rms_norm, layer_norm, rope, space_to_depth,
      linear, gather_rows, dequantize,
      attend, kv_write, kv_read,
      sample, top_k,
      binary, copy, gather,
      upload, move,
      last_error,
  };
  return &table;
}
