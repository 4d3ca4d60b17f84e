// Runs the blocks of a grid. Knows neither streams nor device memory.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <functional>

#include "cuda_runtime.h"

namespace sv_standin {

/** A launch: every thread of every block calls `thread`. */
struct Grid {
  const char* name;
  dim3 grid, block;
  size_t shared;
  std::function<void()> thread;
};

/** How blocks and the threads of a block are ordered, and how many OS threads share the blocks. */
struct Schedule {
  int threads, blocks, fibers;
};
extern Schedule schedule;

/** Runs the whole grid and returns when its last block has ended. */
void run_grid(const Grid& grid);

/** Gives back what this OS thread has kept for its next grid. */
void end_thread();

/** What this OS thread runs, for a message: a thread of a kernel (true), or "the host". */
bool running(char* text, size_t size);

}  // namespace sv_standin
