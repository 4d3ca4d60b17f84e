// Finds the usable GPUs of this machine, or why there are none. Does not know TensorFlow.
//
//   SPARSEVILA_GPU_MEMORY  how much memory of each to use at most: bytes, with K, M, G or T (1024s) after them if you like (40G),
//                          or up to 1 a share (0.5). Unset: what is free.
#pragma once
#include <stdint.h>

#include <string>
#include <vector>

namespace sv {

struct Gpu {
  int index;  // CUDA's number of it
  std::string name, bus;
  int major, minor, multiprocessors;
  int64_t memory, limit;  // bytes: in all; that this process may use
};

struct Gpus {
  std::vector<Gpu> usable;
  std::string reason;   // why there are none; empty when there are
  int driver, runtime;  // versions as CUDA writes them, 13000 for 13.0; driver 0: no driver
};
/** Determined once per process. */
const Gpus& gpus();

/** "13.0" of 13000. */
std::string version_text(int version);

}  // namespace sv
