// Which GPUs of this machine can be used, and why none can. Knows nothing of TensorFlow.
#pragma once
#include <stdint.h>

#include <string>
#include <vector>

namespace sv {

struct Gpu {
  int index;  // CUDA's number of it
  std::string name, bus;
  int major, minor, multiprocessors;
  int64_t memory;
};

struct Gpus {
  std::vector<Gpu> usable;
  std::string reason;  // why there are none; empty when there are
  int driver, runtime;  // versions as CUDA writes them, 13000 for 13.0; driver 0: no driver
};
/** Looked at once per process. */
const Gpus& gpus();

/** "13.0" of 13000. */
std::string version_text(int version);

/** The bytes that `setting` allows of a GPU's memory: `all` when null. A number above 1 is bytes, with K, M, G or T (1024s) after
 * it if you like; a number up to 1 is a share. Throws std::invalid_argument saying what is wrong. */
int64_t memory_limit(const char* setting, int64_t all);

}  // namespace sv
