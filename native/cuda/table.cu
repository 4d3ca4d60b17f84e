// The table of GPU kernels. Knows no kernel.
#include "launchers.h"

extern "C" __attribute__((visibility("default"))) const sv::GpuKernels* sparsevila_gpu_kernels() {
  static const sv::GpuKernels table = {
      (int64_t)sizeof(sv::GpuKernels),
      sv::gpu::last_error,
      sv::gpu::use_device,
#define SV_KERNEL(name, ...) sv::gpu::name,
#include "kernels.def"
  };
  return &table;
}
