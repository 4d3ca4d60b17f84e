// The headers of packed matrices in device memory, which the host cannot read. Filled where a matrix is made, for all threads.
//
// An entry stays when its tensor goes: the C API tells no kernel of a tensor's end, and TensorFlow's allocator none of what a
// block was for. It is replaced when a matrix is packed at the same address, and removed when other opaque memory (a KV cache)
// comes to lie there; what else is at an address does not have the bytes of the matrix that was, or is not of its type.
#pragma once
#include "../kernels/kernels.h"

namespace sv {

void remember_header(const void* packed, int64_t bytes, const PackedHeader&);
void forget_header(const void* packed);
/** False when no matrix of that size lies there. */
bool find_header(const void* packed, int64_t bytes, PackedHeader* found);

}  // namespace sv
