// A small thread pool: the calling thread works as well; workers spin briefly between regions and then sleep.
// Does not know what it runs. Callers must make sure that results do not depend on how work is split.
// A process has one pool and one set of scratch memory. Several threads may call ops (worker_threads of Node), one at a time:
// each holds an OnlyCaller while it uses the pool, scratch, or anything below that reads the kernel table.
#pragma once
#include <stdint.h>

namespace sv {

/** Waits until no other thread holds one, in order of arrival: a thread that calls op after op cannot starve another. */
class OnlyCaller {
 public:
  OnlyCaller();
  ~OnlyCaller();
  OnlyCaller(const OnlyCaller&) = delete;
};

/** Threads in use, the caller included: SPARSEVILA_THREADS, else the processors this process may use. */
int thread_count();
/** Resizes the pool (1..256). Not while a region runs. */
void set_thread_count(int n);

using ParallelFn = void (*)(void* context, int64_t begin, int64_t end, int thread);
void parallel_region(int64_t n, int64_t grain, ParallelFn fn, void* context);

/** Runs fn(begin, end, thread) over [0, n) in pieces of at least `grain`, handed out dynamically. */
template <class F>
void parallel(int64_t n, int64_t grain, F&& fn) {
  parallel_region(
      n, grain, [](void* c, int64_t b, int64_t e, int t) { (*static_cast<F*>(c))(b, e, t); }, &fn);
}

/** Scratch: memory kept between calls, 64-byte aligned. Reserve on the calling thread (throws std::bad_alloc), then any
 *  thread may fetch its own part. A slot belongs to one use at a time. */
enum ScratchSlot : int {
  kTileSlot,
  kStripSlot,
  kChunkSlot,
  kThreadSlots
};
enum SharedSlot : int {
  kPaddedInput,
  kRoundedInput,
  kPartials,
  kColumns,
  kPackedRows,
  kNormed,
  kQkv,
  kWide,
  kGates,
  kContext,
  kHidden,
  kMlp,
  kLayers,
  kSharedSlots
};
void reserve_thread_scratch(ScratchSlot slot, int64_t floats);
float* thread_scratch(int thread, ScratchSlot slot);
float* shared_scratch(SharedSlot slot, int64_t floats);
/** Bytes of scratch held. */
int64_t scratch_bytes();

}  // namespace sv
