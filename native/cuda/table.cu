// The table of GPU kernels. Knows no kernel.
#include "launchers.h"

extern "C" __attribute__((visibility("default"))) const sv::GpuKernels* sparsevila_gpu_kernels() {
  using namespace sv::gpu;
  static const sv::GpuKernels table = {
      (int64_t)sizeof(sv::GpuKernels),
      rms_norm, layer_norm, rope,
      linear, gather_rows, dequantize,
      attend, kv_write, kv_read,
      sample, top_k,
      binary, copy, gather,
      upload, move,
      last_error};
  return &table;
}
