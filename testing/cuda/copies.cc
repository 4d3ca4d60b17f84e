// Memory and copies of the stand-in: device memory is memory.cc's; this counts it, and moves bytes in the order of streams.
#include <stdlib.h>

#include "runtime.h"

using namespace sv_standin;

namespace {

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
