// Device memory and pinned host memory for TensorFlow.
#include <algorithm>

#include "device.h"

namespace sv {
namespace {

void raise_to(std::atomic<int64_t>& most, int64_t value) {
  for (int64_t old = most; old < value && !most.compare_exchange_weak(old, value);) {}
}

void allocate(const SP_Device* device, uint64_t size, int64_t, SP_DeviceMemoryBase* memory) {
  OpenDevice& d = of(device);
  *memory = {SP_DEVICE_MEMORY_BASE_STRUCT_SIZE, nullptr, nullptr, 0, 0};
  const int64_t bytes = int64_t(size);
  if (size == 0) return;
  if (size > uint64_t(d.gpu.limit) || d.used.fetch_add(bytes) > d.gpu.limit - bytes) {
    if (size <= uint64_t(d.gpu.limit)) d.used -= bytes;
    return;  // TensorFlow tries less, then reports that memory is exhausted
  }
  void* pointer = nullptr;
  const cudaError_t error = attempt(d, [&] { return cudaMalloc(&pointer, size); });
  if (error != cudaSuccess) {
    d.used -= bytes;
    if (error != cudaErrorMemoryAllocation) fprintf(stderr, "sparsevila: %s\n", message(d, error, "allocating memory").c_str());
    return;
  }
  memory->opaque = pointer;
  memory->size = size;
  {
    std::lock_guard<std::mutex> lock(d.mutex);
    d.sizes[pointer] = bytes;
  }
  d.allocations++;
  raise_to(d.peak, d.used);
  raise_to(d.largest, bytes);
  counters.allocations++;
  raise_to(counters.peak, counters.bytes += bytes);
}

void deallocate(const SP_Device* device, SP_DeviceMemoryBase* memory) {
  if (!memory->opaque) return;
  OpenDevice& d = of(device);
  int64_t bytes = 0;
  {
    std::lock_guard<std::mutex> lock(d.mutex);
    const auto it = d.sizes.find(memory->opaque);
    if (it != d.sizes.end()) bytes = it->second, d.sizes.erase(it);
  }
  attempt(device, "freeing memory", [&] { return cudaFree(memory->opaque); });
  d.used -= bytes;
  counters.bytes -= bytes;
  memory->opaque = nullptr;
  memory->size = 0;
}

void* host_memory_allocate(const SP_Device* device, uint64_t size) {
  void* pointer = nullptr;
  attempt(device, "allocating pinned host memory", [&] { return cudaHostAlloc(&pointer, size, cudaHostAllocPortable); });
  return pointer;
}
void host_memory_deallocate(const SP_Device* device, void* pointer) {
  attempt(device, "freeing pinned host memory", [&] { return cudaFreeHost(pointer); });
}

TF_Bool get_allocator_stats(const SP_Device* device, SP_AllocatorStats* stats) {
  const OpenDevice& d = of(device);
  *stats = {};
  stats->struct_size = SP_ALLOCATORSTATS_STRUCT_SIZE;
  stats->num_allocs = d.allocations;
  stats->bytes_in_use = stats->bytes_reserved = d.used;
  stats->peak_bytes_in_use = stats->peak_bytes_reserved = d.peak;
  stats->largest_alloc_size = d.largest;
  stats->has_bytes_limit = stats->has_bytes_reservable_limit = 1;
  stats->bytes_limit = stats->bytes_reservable_limit = d.gpu.limit;
  return 1;
}

/** Free and total memory, within the limit: TensorFlow never takes more than is free at its start. */
TF_Bool device_memory_usage(const SP_Device* device, int64_t* free, int64_t* total) {
  const OpenDevice& d = of(device);
  size_t free_now = 0, all = 0;
  if (!attempt(device, "asking for free memory", [&] { return cudaMemGetInfo(&free_now, &all); })) return 0;
  *total = d.gpu.limit;
  *free = std::max<int64_t>(0, std::min(int64_t(free_now), d.gpu.limit - d.used));
  return 1;
}

}  // namespace

void add_memory(SP_StreamExecutor& e) {
  e.allocate = allocate;
  e.deallocate = deallocate;
  e.host_memory_allocate = host_memory_allocate;
  e.host_memory_deallocate = host_memory_deallocate;
  e.get_allocator_stats = get_allocator_stats;
  e.device_memory_usage = device_memory_usage;
}

}  // namespace sv
