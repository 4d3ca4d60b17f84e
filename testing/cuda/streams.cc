// Streams, events and launches of the stand-in, and what tests ask of it.
#include "runtime.h"

using namespace sv_standin;

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

// --- launches -----------------------------------------------------------------------------------------------------

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

// --- what tests ask -----------------------------------------------------------------------------------------------------

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
