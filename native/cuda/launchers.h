// The functions behind the table of kernels.h. Each lives in the .cu file of its topic. Knows no CUDA.
#pragma once
#include "kernels.h"

namespace sv {
namespace gpu {

#define SV_KERNEL(name, ...) void name(GpuStream, __VA_ARGS__);
#include "kernels.def"

// errors.cu
const char* last_error();
/** What last_error says next: an argument that a kernel cannot take. The text lives for ever. */
void refuse(const char* why);

}  // namespace gpu
}  // namespace sv
