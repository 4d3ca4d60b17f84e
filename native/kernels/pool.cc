// Thread pool and scratch memory. See pool.h.
#include "pool.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace sv {
namespace {

constexpr int kMaxThreads = 256;
constexpr auto kSpin = std::chrono::microseconds(150);

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/** The floating-point mode: TensorFlow flushes tiny numbers to zero on the thread that runs an op, so ours must as well. */
#if defined(__x86_64__)
using FloatMode = unsigned;
inline FloatMode float_mode() { return __builtin_ia32_stmxcsr(); }
inline void set_float_mode(FloatMode mode) { __builtin_ia32_ldmxcsr(mode); }
#elif defined(__aarch64__)
using FloatMode = uint64_t;
inline FloatMode float_mode() {
  FloatMode mode;
  asm volatile("mrs %0, fpcr"
               : "=r"(mode));
  return mode;
}
inline void set_float_mode(FloatMode mode) {
  asm volatile("msr fpcr, %0"
               :
               : "r"(mode));
}
#else
using FloatMode = int;
inline FloatMode float_mode() { return 0; }
inline void set_float_mode(FloatMode) {}
#endif

/** Processors allowed by the affinity mask and by the cgroup's quota. */
int available() {
  int n = (int)sysconf(_SC_NPROCESSORS_ONLN);
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
#endif
  if (FILE* f = fopen("/sys/fs/cgroup/cpu.max", "r")) {  // Linux's
    long quota = 0, period = 0;
    if (fscanf(f, "%ld %ld", &quota, &period) == 2 && period > 0) {
      int limit = (int)((quota + period - 1) / period);
      if (limit >= 1 && limit < n) n = limit;
    }
    fclose(f);
  }
  return n < 1 ? 1 : (n > kMaxThreads ? kMaxThreads : n);
}

struct alignas(128) Padded {
  std::atomic<uint64_t> value{0};
};

/** One parallel region: `pieces` pieces of `step` items. */
struct Region {
  ParallelFn fn = nullptr;
  void* context = nullptr;
  int64_t n = 0, step = 1;
  uint32_t pieces = 0;
  FloatMode mode = 0;  // the caller's
};

/**
 * A region ends when its pieces are done, not when every worker has seen it, so that a worker that the system has suspended
 * delays no one. `ticket` is the region's generation (high half) and its next piece (low half); taking a piece is one
 * addition, so a late worker cannot take a piece of another region than it sees.
 */
struct Pool {
  std::vector<std::thread> workers;
  Padded ticket, done;
  Region regions[2];  // by generation: a region's entry is rewritten only after the next region is over
  std::atomic<int> sleeping{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable wake;

  uint32_t generation(std::memory_order order = std::memory_order_acquire) const { return (uint32_t)(ticket.value.load(order) >> 32); }

  void work(int thread) {
    for (;;) {
      const uint64_t t = ticket.value.fetch_add(1, std::memory_order_acq_rel);
      const uint32_t mine = (uint32_t)(t >> 32), piece = (uint32_t)t;
      const Region r = regions[mine & 1];
      // A piece that is taken keeps its region alive; if the generation has moved on, there was none left to take.
      if (generation() != mine || piece >= r.pieces) return;
      set_float_mode(r.mode);
      const int64_t begin = piece * r.step, end = begin + r.step < r.n ? begin + r.step : r.n;
      r.fn(r.context, begin, end, thread);
      done.value.fetch_add(1, std::memory_order_release);
    }
  }

  void run_region(const Region& r) {
    const uint32_t next = generation() + 1;
    regions[next & 1] = r;
    done.value.store(0, std::memory_order_relaxed);
    announce(next);
    work(0);
    while (done.value.load(std::memory_order_acquire) != r.pieces) pause();
  }

  /** Publishes a generation and wakes whoever sleeps. */
  void announce(uint32_t next) {
    ticket.value.store((uint64_t)next << 32, std::memory_order_seq_cst);
    if (sleeping.load(std::memory_order_seq_cst) || stop) {
      std::lock_guard<std::mutex> lock(mutex);
      wake.notify_all();
    }
  }

  void wait_for_change(uint32_t seen) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 1; generation() == seen; i++) {
      if (i % 64 == 0 && std::chrono::steady_clock::now() - start > kSpin) {
        std::unique_lock<std::mutex> lock(mutex);
        sleeping++;
        wake.wait(lock, [&] { return generation(std::memory_order_seq_cst) != seen; });
        sleeping--;
        return;
      }
      pause();
    }
  }

  void run(int thread, uint32_t seen) {
    for (;;) {
      wait_for_change(seen);
      // The generation is read before `stop`: a worker that reads stop too early then waits for an older generation, and wakes again.
      seen = generation();
      if (stop) return;
      work(thread);
    }
  }

  void resize(int threads) {
    stop = true;
    regions[(generation() + 1) & 1] = Region();
    announce(generation() + 1);
    for (auto& w : workers) w.join();
    workers.clear();
    stop = false;
    for (int i = 1; i < threads; i++) workers.emplace_back([this, i, seen = generation()] { run(i, seen); });
  }
};

/** Never destroyed: workers may still wait when the process exits. */
Pool& pool() {
  static Pool* p = [] {
    auto* made = new Pool;
    const char* wanted = getenv("SPARSEVILA_THREADS");
    int n = wanted ? atoi(wanted) : 0;
    made->resize(n >= 1 && n <= kMaxThreads ? n : available());
    return made;
  }();
  return *p;
}

struct Buffer {
  float* data = nullptr;
  int64_t bytes = 0;
  float* get(int64_t floats) {
    const int64_t want = (floats * 4 + 4095) / 4096 * 4096;
    if (want > bytes) {
      free(data);
      data = nullptr;
      bytes = 0;
      if (posix_memalign((void**)&data, 64, (size_t)want) != 0) throw std::bad_alloc();
      bytes = want;
    }
    return data;
  }
};
/** Of OnlyCaller: the number that a caller draws, and the one whose turn it is. Never destroyed, as the pool. */
struct Turns {
  std::mutex mutex;
  std::condition_variable changed;
  uint64_t drawn = 0, now = 0;
};
Turns& turns() {
  static Turns* const t = new Turns;
  return *t;
}

Buffer thread_buffers[kMaxThreads][kThreadSlots], shared_buffers[kSharedSlots];

}  // namespace

OnlyCaller::OnlyCaller() {
  Turns& t = turns();
  std::unique_lock<std::mutex> lock(t.mutex);
  const uint64_t mine = t.drawn++;
  t.changed.wait(lock, [&] { return t.now == mine; });
}
OnlyCaller::~OnlyCaller() {
  Turns& t = turns();
  std::lock_guard<std::mutex> lock(t.mutex);
  t.now++;
  if (t.now != t.drawn) t.changed.notify_all();
}

int thread_count() { return (int)pool().workers.size() + 1; }
void set_thread_count(int n) { pool().resize(n < 1 ? 1 : (n > kMaxThreads ? kMaxThreads : n)); }

void parallel_region(int64_t n, int64_t grain, ParallelFn fn, void* context) {
  if (n <= 0) return;
  Pool& p = pool();
  const int threads = (int)p.workers.size() + 1;
  if (threads == 1 || n <= grain) return fn(context, 0, n, 0);
  // About four pieces per thread: balances against noisy neighbors at little cost in hand-outs.
  const int64_t fair = (n + threads * 4 - 1) / (threads * 4), step = fair < grain ? grain : fair;
  p.run_region({fn, context, n, step, (uint32_t)((n + step - 1) / step), float_mode()});
}

void reserve_thread_scratch(ScratchSlot slot, int64_t floats) {
  for (int t = 0; t < thread_count(); t++) thread_buffers[t][slot].get(floats);
}
float* thread_scratch(int thread, ScratchSlot slot) { return thread_buffers[thread][slot].data; }
float* shared_scratch(SharedSlot slot, int64_t floats) { return shared_buffers[slot].get(floats); }

int64_t scratch_bytes() {
  int64_t sum = 0;
  for (auto& slots : thread_buffers)
    for (auto& b : slots) sum += b.bytes;
  for (auto& b : shared_buffers) sum += b.bytes;
  return sum;
}

}  // namespace sv
