// The state of the stand-in: settings, streams as queues, events, and what belongs to which device. Each .cc file here has the
// calls of one topic: runtime.cc (the state itself), devices.cc, copies.cc (memory and copies), streams.cc (streams, events,
// launches).
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "blocks.h"
#include "cuda_runtime.h"
#include "memory.h"

namespace sv_standin {

constexpr int kRuntime = 13000;
constexpr size_t kSharedDefault = size_t(48) << 10, kSharedMost = size_t(227) << 10;

[[noreturn]] void die(const std::string& what);

/** SPARSEVILA_STANDIN; see cuda_runtime.h. */
struct Settings {
  int devices = 1, capability = 90, driver = kRuntime;
  size_t memory = size_t(8) << 30;
  Settings();

 private:
  void set(const std::string& pair);
};
const Settings& settings();

/** The error that every later call returns, once there is one. */
extern std::atomic<int> sticky;
/** Notes an error for cudaGetLastError, and returns it. */
cudaError_t fail(cudaError_t);
/** What every call that needs a working device begins with. */
cudaError_t begin();
#define SV_BEGIN() \
  if (const cudaError_t begun = begin()) return fail(begun)

using Clock = std::chrono::steady_clock;

/** One recording of an event. */
struct Mark {
  std::mutex mutex;
  std::condition_variable changed;
  bool reached = false;
  Clock::time_point at;
  void reach() {
    std::lock_guard<std::mutex> lock(mutex);
    reached = true;
    at = Clock::now();
    changed.notify_all();
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [this] { return reached; });
  }
  bool is_reached() {
    std::lock_guard<std::mutex> lock(mutex);
    return reached;
  }
};

/** Shared by the handle and the thread, which ends when the handle is gone and the queue is empty. */
struct Queue {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> waiting;
  uint64_t pushed = 0, done = 0;
  bool closed = false;

  void push(std::function<void()> work) {
    std::lock_guard<std::mutex> lock(mutex);
    waiting.push_back(std::move(work));
    pushed++;
    changed.notify_all();
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [this, until = pushed] { return done >= until; });
  }
  bool is_idle() {
    std::lock_guard<std::mutex> lock(mutex);
    return done == pushed;
  }
  void close() {
    std::lock_guard<std::mutex> lock(mutex);
    closed = true;
    changed.notify_all();
  }
  void serve() {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      changed.wait(lock, [this] { return closed || !waiting.empty(); });
      if (waiting.empty()) return end_thread();
      {
        const std::function<void()> work = std::move(waiting.front());
        waiting.pop_front();
        lock.unlock();
        work();
      }
      lock.lock();
      done++;
      changed.notify_all();
    }
  }
};

}  // namespace sv_standin

struct CUstream_st {
  int device;
  bool blocking;  // waits for, and is waited for by, the default stream
  std::shared_ptr<sv_standin::Queue> queue = std::make_shared<sv_standin::Queue>();
  CUstream_st(int device_, bool blocking_) : device(device_), blocking(blocking_) {
    std::thread([q = queue] { q->serve(); }).detach();
  }
};

struct CUevent_st {
  int device;
  bool timed;
  std::shared_ptr<sv_standin::Mark> mark;  // of the last recording; null: never recorded
};

namespace sv_standin {

/** All that lives as long as the process: never destroyed, since threads outlive main. */
struct World {
  std::mutex mutex;
  std::vector<cudaStream_t> streams;  // live ones, the default stream of each device first
  std::vector<cudaEvent_t> events;
  std::map<const char*, size_t> pinned;
  std::unordered_map<const void*, int> owner;  // of device memory
  std::unordered_map<const void*, size_t> shared_limit;
  std::vector<size_t> used;
  std::atomic<int64_t> counters[9] = {};
  World() : used(size_t(settings().devices)) {
    for (int i = 0; i < settings().devices; i++) streams.push_back(new CUstream_st(i, false));
  }
};
World& world();
enum Counter {
  kAllocations,
  kBytes,
  kHostToDevice,
  kDeviceToHost = 4,
  kDeviceToDevice = 6,
  kLaunches = 8
};

bool is_live(cudaStream_t);
bool is_live(cudaEvent_t);
/** Puts work into a stream that is_live; the default stream and the blocking ones of its device take turns. */
void push(cudaStream_t, std::function<void()> work);
/** Waits for every stream of a device; -1: of all. */
void drain(int device);
/** Begins a call on a stream, and makes the default stream out of null. */
cudaError_t check_stream(cudaStream_t&);

}  // namespace sv_standin
