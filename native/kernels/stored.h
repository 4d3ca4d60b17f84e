// Where a matrix to be packed lies: in memory, or somewhere that is read piece by piece, by several threads at once.
#pragma once
#include <stdint.h>

namespace sv {

struct Stored {
  const char* data = nullptr;  // of what lies in memory
  /** Fills `to` with `bytes` bytes from `offset` on. It does not throw: `state` remembers what failed. */
  void (*read)(const void* state, int64_t offset, int64_t bytes, void* to) = nullptr;
  const void* state = nullptr;
  int64_t begin = 0;  // of the matrix, for `read`

  Stored() = default;
  Stored(const void* memory) : data(static_cast<const char*>(memory)) {}  // NOLINT: a pointer is the usual case

  /** Bytes [offset, offset + bytes): where they lie, or a copy in `buffer`. */
  const char* at(int64_t offset, int64_t bytes, void* buffer) const {
    if (data) return data + offset;
    read(state, begin + offset, bytes, buffer);
    return static_cast<const char*>(buffer);
  }
};

}  // namespace sv
