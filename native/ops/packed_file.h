// Packed matrices in files: the place that an op packs into, beside TensorFlow's memory.
#pragma once
#include "shell.h"

namespace sv {

/** A number in two words, the low one first. */
inline int64_t wide(const int32_t* p) { return (int64_t)((uint64_t)(uint32_t)p[1] << 32 | (uint32_t)p[0]); }

/**
 * Output 0: the packed matrix that `body` writes. place: int32 [], or [source, offset (2 words)] in a created file that has the
 * bytes reserved; on the host the output then is that range of the file, and a GPU gets a copy.
 */
void packed_output(Op& op, const View& place, int64_t bytes, const Fill& body);

}  // namespace sv
