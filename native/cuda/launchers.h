// The functions behind the table of kernels.h. Each lives in the .cu file of its topic. Knows no CUDA.
#pragma once
#include "kernels.h"

namespace sv {
namespace gpu {

#define SV_KERNEL(name, ...) void name(GpuStream, __VA_ARGS__);
#include "kernels.def"

// errors.cu
const char* last_error();
/** Sets the next result of last_error: an argument that a kernel does not accept. The text must never be freed. */
void refuse(const char* why);
/** An error is that of the next last_error. */
void use_device(int32_t device);

}  // namespace gpu
}  // namespace sv
