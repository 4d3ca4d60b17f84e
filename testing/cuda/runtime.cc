// Streams, events and copies of the stand-in: each stream is a queue with an OS thread that works it off, so that what is not
// waited for is really not there yet. Stricter than CUDA: a device-to-host copy is always asynchronous; a call from a host
// function, a stream of another device than the current one, and cudaErrorNotReady leave an error behind.

#include "cuda_runtime.h"

#include <stdio.h>
#include <stdlib.h>

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
#include "memory.h"

using namespace sv_standin;

namespace {

constexpr int kRuntime = 13000;
constexpr size_t kSharedDefault = size_t(48) << 10, kSharedMost = size_t(227) << 10;

[[noreturn]] void die(const std::string& what) {
  fprintf(stderr, "stand-in: %s\n", what.c_str());
  abort();
}

// --- settings ----------------------------------------------------------------------------------------------

struct Settings {
  int devices = 1, capability = 90, driver = kRuntime;
  size_t memory = size_t(8) << 30;
  Settings() {
    const char* text = getenv("SPARSEVILA_STANDIN");
    std::string rest = text ? text : "";
    while (!rest.empty()) {
      const size_t comma = rest.find(',');
      set(rest.substr(0, comma));
      rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    }
  }
  void set(const std::string& pair) {
    const size_t equals = pair.find('=');
    const std::string key = pair.substr(0, equals), value = equals == std::string::npos ? "" : pair.substr(equals + 1);
    const auto order = [&] { return value == "forward" ? 0 : (value == "reverse" ? 1 : (value == "shuffled" && key == "blocks" ? 2 : -1)); };
    char* end = nullptr;
    const long long number = strtoll(value.c_str(), &end, 10);
    const bool is_number = !value.empty() && *end == 0 && number >= 0;
    if (key == "devices" && is_number && number <= 16) devices = int(number);
    else if (key == "memory" && is_number) memory = size_t(number);
    else if (key == "capability" && is_number) capability = int(number);
    else if (key == "driver" && is_number) driver = int(number);
    else if (key == "threads" && is_number && number >= 1 && number <= 64) schedule.threads = int(number);
    else if (key == "blocks" && order() >= 0) schedule.blocks = order();
    else if (key == "fibers" && order() >= 0) schedule.fibers = order();
    else die("SPARSEVILA_STANDIN: '" + pair + "' is not a setting; see testing/cuda/cuda_runtime.h");
  }
};
const Settings& settings() {
  static const Settings* const all = new Settings;
  return *all;
}

// --- errors ------------------------------------------------------------------------------------------------

std::atomic<int> sticky{0};

cudaError_t fail(cudaError_t error) {
  if (error != cudaSuccess) current.last_error = error;
  return error;
}

/** What every call that needs a working device begins with. */
cudaError_t begin() {
  if (current.in_host_function) return cudaErrorNotPermitted;
  if (settings().driver < kRuntime) return cudaErrorInsufficientDriver;
  if (settings().devices == 0) return cudaErrorNoDevice;
  return cudaError_t(sticky.load());
}
#define SV_BEGIN() \
  if (const cudaError_t begun = begin()) return fail(begun)

// --- streams and events ------------------------------------------------------------------------------------

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

}  // namespace

struct CUstream_st {
  int device;
  bool blocking;  // waits for, and is waited for by, the default stream
  std::shared_ptr<Queue> queue = std::make_shared<Queue>();
  CUstream_st(int device_, bool blocking_) : device(device_), blocking(blocking_) {
    std::thread([q = queue] { q->serve(); }).detach();
  }
};

struct CUevent_st {
  int device;
  bool timed;
  std::shared_ptr<Mark> mark;  // of the last recording; null: never recorded
};

namespace {

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
World& world() {
  static World* const all = new World;
  return *all;
}
enum Counter {
  kAllocations,
  kBytes,
  kHostToDevice,
  kDeviceToHost = 4,
  kDeviceToDevice = 6,
  kLaunches = 8
};

bool is_live(cudaStream_t stream) {
  std::lock_guard<std::mutex> lock(world().mutex);
  for (cudaStream_t s : world().streams)
    if (s == stream) return true;
  return false;
}
bool is_live(cudaEvent_t event) {
  std::lock_guard<std::mutex> lock(world().mutex);
  for (cudaEvent_t e : world().events)
    if (e == event) return true;
  return false;
}
cudaStream_t default_stream(int device) { return world().streams[size_t(device)]; }
cudaStream_t resolve(cudaStream_t stream) { return stream ? stream : default_stream(current.device); }

/** Makes `later` wait until all that is now in `earlier` is done. */
void order(Queue& earlier, Queue& later) {
  auto mark = std::make_shared<Mark>();
  earlier.push([mark] { mark->reach(); });
  later.push([mark] { mark->wait(); });
}

/** Puts work into a stream that is_live; the default stream and the blocking ones of its device take turns. */
void push(cudaStream_t stream, std::function<void()> work) {
  const cudaStream_t own_default = default_stream(stream->device);
  if (stream->blocking) order(*own_default->queue, *stream->queue);
  if (stream == own_default) {
    std::vector<std::shared_ptr<Queue>> others;
    {
      std::lock_guard<std::mutex> lock(world().mutex);
      for (cudaStream_t s : world().streams)
        if (s->blocking && s->device == stream->device) others.push_back(s->queue);
    }
    for (auto& queue : others) order(*queue, *stream->queue);
  }
  stream->queue->push(std::move(work));
}

/** Waits for every stream of a device; -1: of all. */
void drain(int device) {
  std::vector<std::shared_ptr<Queue>> queues;
  {
    std::lock_guard<std::mutex> lock(world().mutex);
    for (cudaStream_t s : world().streams)
      if (device < 0 || s->device == device) queues.push_back(s->queue);
  }
  for (auto& queue : queues) queue->wait();
}

cudaError_t check_stream(cudaStream_t& stream) {
  SV_BEGIN();
  stream = resolve(stream);
  return is_live(stream) ? cudaSuccess : fail(cudaErrorInvalidResourceHandle);
}

bool is_pinned(const void* pointer, size_t bytes) {
  std::lock_guard<std::mutex> lock(world().mutex);
  auto after = world().pinned.upper_bound(static_cast<const char*>(pointer));
  if (after == world().pinned.begin()) return false;
  --after;
  return static_cast<const char*>(pointer) + bytes <= after->first + after->second;
}

/** Where a copy's end really lies. Null: not where the kind says, or not all of it is allocated. */
void* real_end(const void* pointer, size_t bytes, bool device) {
  if (is_device_address(pointer) != device) return nullptr;
  return device ? memory_behind(pointer, bytes) : const_cast<void*>(pointer);
}

}  // namespace

// --- devices -----------------------------------------------------------------------------------------------

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  SV_BEGIN();
  *count = settings().devices;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  SV_BEGIN();
  *device = current.device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  SV_BEGIN();
  if (device < 0 || device >= settings().devices) return fail(cudaErrorInvalidDevice);
  current.device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  SV_BEGIN();
  if (device < 0 || device >= settings().devices) return fail(cudaErrorInvalidDevice);
  *p = cudaDeviceProp();
  snprintf(p->name, sizeof p->name, "Stand-in for a GPU");
  p->totalGlobalMem = settings().memory;
  p->sharedMemPerBlock = kSharedDefault;
  p->sharedMemPerBlockOptin = kSharedMost;
  p->sharedMemPerMultiprocessor = kSharedMost + 1024;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->multiProcessorCount = 6;
  p->major = settings().capability / 10;
  p->minor = settings().capability % 10;
  p->pciBusID = device + 1;
  p->l2CacheSize = 1 << 20;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  if (const cudaError_t error = cudaGetDeviceProperties(&p, device)) return error;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = int(p.sharedMemPerBlockOptin); return cudaSuccess;
  }
  return fail(cudaErrorInvalidValue);
}
cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int device) {
  cudaDeviceProp p;
  if (const cudaError_t error = cudaGetDeviceProperties(&p, device)) return error;
  snprintf(id, size_t(size), "%04x:%02x:%02x.0", p.pciDomainID, p.pciBusID, p.pciDeviceID);
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  SV_BEGIN();
  drain(current.device);
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = settings().driver;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kRuntime;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  SV_BEGIN();
  std::lock_guard<std::mutex> lock(world().mutex);
  *total = settings().memory;
  *free = *total - world().used[size_t(current.device)];
  return cudaSuccess;
}

cudaError_t cudaPeekAtLastError() { return sticky ? cudaError_t(sticky.load()) : current.last_error; }
cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  current.last_error = cudaSuccess;
  return error;
}
namespace {
struct ErrorText {
  cudaError_t error;
  const char *name, *text;
};
const ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotPermitted, "cudaErrorNotPermitted", "operation not permitted"},
};
const ErrorText& text_of(cudaError_t error) {
  static const ErrorText unknown = {cudaSuccess, "unknown", "unrecognized error code"};
  for (const ErrorText& entry : kErrors)
    if (entry.error == error) return entry;
  return unknown;
}
}  // namespace
const char* cudaGetErrorName(cudaError_t error) { return text_of(error).name; }
const char* cudaGetErrorString(cudaError_t error) { return text_of(error).text; }

// --- memory ------------------------------------------------------------------------------------------------

cudaError_t sv_standin_malloc(void** pointer, size_t bytes) {
  SV_BEGIN();
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  World& w = world();
  {
    std::lock_guard<std::mutex> lock(w.mutex);
    size_t& used = w.used[size_t(current.device)];
    if (bytes > settings().memory - used) return fail(cudaErrorMemoryAllocation);
    used += bytes;
  }
  *pointer = take_memory(bytes);
  std::lock_guard<std::mutex> lock(w.mutex);
  if (!*pointer) {
    w.used[size_t(current.device)] -= bytes;
    return fail(cudaErrorMemoryAllocation);
  }
  w.owner[*pointer] = current.device;
  w.counters[kAllocations]++;
  w.counters[kBytes] += int64_t(bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
  SV_BEGIN();
  if (!pointer) return cudaSuccess;
  World& w = world();
  drain(-1);
  const size_t bytes = memory_size(pointer);
  if (bytes == 0) return fail(cudaErrorInvalidValue);
  give_memory(pointer);
  std::lock_guard<std::mutex> lock(w.mutex);
  w.used[size_t(w.owner[pointer])] -= bytes;
  w.owner.erase(pointer);
  w.counters[kBytes] -= int64_t(bytes);
  return cudaSuccess;
}
cudaError_t sv_standin_host_alloc(void** pointer, size_t bytes) {
  SV_BEGIN();
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  const size_t room = (bytes + 4095) / 4096 * 4096;
  *pointer = aligned_alloc(4096, room);
  if (!*pointer) return fail(cudaErrorMemoryAllocation);
  memset(*pointer, 0xff, room);
  std::lock_guard<std::mutex> lock(world().mutex);
  world().pinned[static_cast<char*>(*pointer)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* pointer) {
  SV_BEGIN();
  if (!pointer) return cudaSuccess;
  drain(-1);
  std::lock_guard<std::mutex> lock(world().mutex);
  if (world().pinned.erase(static_cast<char*>(pointer)) == 0) return fail(cudaErrorInvalidValue);
  free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (const cudaError_t error = check_stream(stream)) return error;
  const bool to_device = kind == cudaMemcpyDefault ? is_device_address(to) : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDefault ? is_device_address(from) : kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (bytes == 0) return cudaSuccess;
  void* target = real_end(to, bytes, to_device);
  const void* source = real_end(from, bytes, from_device);
  if (!target || !source) return fail(cudaErrorInvalidValue);
  if (to_device || from_device) {
    const Counter counter = !from_device ? kHostToDevice : (!to_device ? kDeviceToHost : kDeviceToDevice);
    world().counters[counter]++;
    world().counters[counter + 1] += int64_t(bytes);
  }
  std::shared_ptr<char> staged;
  if (!from_device && !is_pinned(from, bytes)) {  // the caller may change it as soon as we return
    staged.reset(static_cast<char*>(malloc(bytes)), free);
    if (!staged) return fail(cudaErrorMemoryAllocation);
    memcpy(staged.get(), from, bytes);
  }
  push(stream, [=] { memmove(target, staged ? staged.get() : source, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr)) return error;
  return cudaStreamSynchronize(nullptr);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  if (const cudaError_t error = check_stream(stream)) return error;
  if (bytes == 0) return cudaSuccess;
  void* target = real_end(to, bytes, true);
  if (!target) return fail(cudaErrorInvalidValue);
  push(stream, [=] { memset(target, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) { return cudaMemsetAsync(to, value, bytes, nullptr); }

// --- streams and events ------------------------------------------------------------------------------------

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  SV_BEGIN();
  *stream = new CUstream_st(current.device, flags != cudaStreamNonBlocking);
  std::lock_guard<std::mutex> lock(world().mutex);
  world().streams.push_back(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  SV_BEGIN();
  World& w = world();
  std::lock_guard<std::mutex> lock(w.mutex);
  for (size_t i = size_t(settings().devices); i < w.streams.size(); i++) {
    if (w.streams[i] != stream) continue;
    w.streams.erase(w.streams.begin() + std::ptrdiff_t(i));
    stream->queue->close();
    delete stream;
    return cudaSuccess;
  }
  return fail(cudaErrorInvalidResourceHandle);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (const cudaError_t error = check_stream(stream)) return error;
  stream->queue->wait();
  return fail(cudaError_t(sticky.load()));
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (const cudaError_t error = check_stream(stream)) return error;
  return fail(stream->queue->is_idle() ? cudaSuccess : cudaErrorNotReady);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (const cudaError_t error = check_stream(stream)) return error;
  if (!is_live(event)) return fail(cudaErrorInvalidResourceHandle);
  if (event->mark) push(stream, [mark = event->mark] { mark->wait(); });
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  if (const cudaError_t error = check_stream(stream)) return error;
  push(stream, [=] {
    current.in_host_function = true;
    function(data);
    current.in_host_function = false;
  });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  SV_BEGIN();
  *event = new CUevent_st{current.device, (flags & cudaEventDisableTiming) == 0, nullptr};
  std::lock_guard<std::mutex> lock(world().mutex);
  world().events.push_back(*event);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  SV_BEGIN();
  World& w = world();
  std::lock_guard<std::mutex> lock(w.mutex);
  for (size_t i = 0; i < w.events.size(); i++) {
    if (w.events[i] != event) continue;
    w.events.erase(w.events.begin() + std::ptrdiff_t(i));
    delete event;
    return cudaSuccess;
  }
  return fail(cudaErrorInvalidResourceHandle);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (const cudaError_t error = check_stream(stream)) return error;
  if (!is_live(event) || event->device != stream->device) return fail(cudaErrorInvalidResourceHandle);
  event->mark = std::make_shared<Mark>();
  push(stream, [mark = event->mark] { mark->reach(); });
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  SV_BEGIN();
  if (!is_live(event)) return fail(cudaErrorInvalidResourceHandle);
  return fail(!event->mark || event->mark->is_reached() ? cudaSuccess : cudaErrorNotReady);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  SV_BEGIN();
  if (!is_live(event)) return fail(cudaErrorInvalidResourceHandle);
  if (event->mark) event->mark->wait();
  return fail(cudaError_t(sticky.load()));
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  SV_BEGIN();
  if (!is_live(from) || !is_live(to) || !from->timed || !to->timed || !from->mark || !to->mark) return fail(cudaErrorInvalidResourceHandle);
  if (!from->mark->is_reached() || !to->mark->is_reached()) return fail(cudaErrorNotReady);
  *milliseconds = std::chrono::duration<float, std::milli>(to->mark->at - from->mark->at).count();
  return cudaSuccess;
}

// --- launches ----------------------------------------------------------------------------------------------

cudaError_t sv_standin_function_attribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  SV_BEGIN();
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || size_t(value) > kSharedMost) return fail(cudaErrorInvalidValue);
  std::lock_guard<std::mutex> lock(world().mutex);
  world().shared_limit[kernel] = size_t(value);
  return cudaSuccess;
}

namespace sv_standin {

void launch_grid(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream, std::function<void()> thread) {
  if (check_stream(stream) != cudaSuccess) return;
  if (stream->device != current.device) {
    fail(cudaErrorInvalidResourceHandle);
    return;
  }
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
      grid.z > 65535) {
    fail(cudaErrorInvalidConfiguration);
    return;
  }
  size_t limit = kSharedDefault;
  {
    std::lock_guard<std::mutex> lock(world().mutex);
    auto found = world().shared_limit.find(kernel);
    if (found != world().shared_limit.end() && found->second > limit) limit = found->second;
  }
  if (shared > limit) {
    fail(cudaErrorInvalidValue);
    return;
  }
  world().counters[kLaunches]++;
  push(stream, [g = Grid{name, grid, block, shared, std::move(thread)}] { run_grid(g); });
}

}  // namespace sv_standin

// --- what tests ask ----------------------------------------------------------------------------------------

#define SV_EXPORT __attribute__((visibility("default")))

SV_EXPORT void sparsevila_standin_counters(int64_t* out, int32_t n) {
  for (int32_t i = 0; i < n && i < 9; i++) out[i] = world().counters[i];
}
SV_EXPORT int64_t sparsevila_standin_check() {
  drain(-1);
  return count_damaged();
}
SV_EXPORT void sparsevila_standin_schedule(int32_t threads, int32_t blocks, int32_t fibers) {
  drain(-1);
  if (threads < 1 || blocks < 0 || blocks > 2 || fibers < 0 || fibers > 1) die("no such schedule; see testing/cuda/cuda_runtime.h");
  schedule = {threads, blocks, fibers};
}
SV_EXPORT void sparsevila_standin_fail(int32_t error) { sticky = error; }
