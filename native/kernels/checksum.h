// A checksum of weights, which finds damage and changes, not forgery: 64 bits, any changed word changes it.
#pragma once
#include <stdint.h>

namespace sv {

/** The checksum of `bytes` bytes, on all threads. Does not depend on their number. */
uint64_t checksum(const void* data, int64_t bytes);

}  // namespace sv
