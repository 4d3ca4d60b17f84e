// What CUDA keeps per thread: the current device, and the last error since the previous query, which is an argument that a kernel
// refused, else CUDA's own error.
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

void use_device(int32_t device) { cudaSetDevice(device); }

const char* last_error() {
  const char* why = refused;
  refused = nullptr;
  const cudaError_t error = cudaGetLastError();
  if (why || error == cudaSuccess) return why;
  return cudaGetErrorString(error);
}

}  // namespace gpu
}  // namespace sv
