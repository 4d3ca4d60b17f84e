// A TensorFlow PluggableDevice of type "GPU" on CUDA's runtime: memory, streams, events, copies. TensorFlow calls it from many
// threads; each call sets its device first. Knows no op and no kernel. With SV_STANDIN the same source runs on a processor.
// Interface: tensorflow/c/experimental/stream_executor/stream_executor.h.
//
// TensorFlow takes memory in growing regions as needed, up to about nineteen twentieths of what SPARSEVILA_GPU_MEMORY allows (see
// devices.h), and never gives it back. With SPARSEVILA_GPU_GUARD=1 every tensor is an allocation of its own, so that the stand-in
// or compute-sanitizer sees its ends; that is slow.
//
// A CUDA error becomes a TF_Status that names the failed call and a remedy. After an unrecoverable error every later call fails
// with the same error. TensorFlow itself ends the process when a copy fails, so ops report errors of their launches first.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "../cuda/cuda.h"
#include "devices.h"
#include "stream.h"
#include "tensorflow/c/experimental/stream_executor/stream_executor.h"
#include "tensorflow/c/tf_status.h"

struct SP_Event_st {
  cudaEvent_t event;
};
struct SP_Timer_st {
  cudaEvent_t start, stop;
};

namespace sv {
namespace {

/** Counters of the process; see sparsevila_gpu_counters. */
struct Counters {
  std::atomic<int64_t> to_device[2], to_host[2], on_device[2];  // copies, bytes
  std::atomic<int64_t> allocations, bytes, peak, largest;
} counters;

struct Device {
  Gpu gpu;
  std::atomic<int64_t> allocations{0}, used{0}, peak{0}, largest{0};
  std::mutex mutex;                          // for the three below
  std::unordered_map<void*, int64_t> sizes;  // of what is allocated: TensorFlow does not always tell when it gives back
  cudaEvent_t order = nullptr;               // recorded and waited for at once, again and again
  cudaStream_t copies = nullptr;             // for copies that the caller waits for
};

Device& of(const SP_Device* device) { return *static_cast<Device*>(device->device_handle); }
cudaStream_t of(SP_Stream stream) { return static_cast<cudaStream_t>(stream->stream); }

// --- errors ------------------------------------------------------------------------------------------------

const char* advice(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return "Close other programs that use the GPU, raise SPARSEVILA_GPU_MEMORY if it is set, or use a smaller context.";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
      return "A kernel before this has crashed, and the GPU cannot be used again in this process: start it anew. `compute-sanitizer node ...` "
             "names the kernel; please report it.";
    default:
      return "Start the process anew; if it comes again, please report it.";
  }
}

std::string message(const Device& device, cudaError_t error, const char* what) {
  return "GPU " + std::to_string(device.gpu.index) + " (" + device.gpu.name + "): " + what + " failed: " + cudaGetErrorString(error) + " (" +
         cudaGetErrorName(error) + "). " + advice(error);
}

/** Makes the device current and runs `call`. An error is only returned, and not left in CUDA's state. */
template <class F> cudaError_t attempt(Device& device, F call) {
  cudaError_t error = cudaSetDevice(device.gpu.index);
  if (error == cudaSuccess) error = call();
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}
/** ... for callbacks with a status. */
template <class F> void attempt(const SP_Device* device, TF_Status* status, const char* what, F call) {
  const cudaError_t error = attempt(of(device), call);
  if (error == cudaSuccess) TF_SetStatus(status, TF_OK, "");
  else
    TF_SetStatus(status, error == cudaErrorMemoryAllocation ? TF_RESOURCE_EXHAUSTED : TF_INTERNAL, message(of(device), error, what).c_str());
}
/** ... for callbacks without a status: errors that cannot be returned are printed on stderr. */
template <class F> bool attempt(const SP_Device* device, const char* what, F call) {
  const cudaError_t error = attempt(of(device), call);
  if (error != cudaSuccess) fprintf(stderr, "sparsevila: %s\n", message(of(device), error, what).c_str());
  return error == cudaSuccess;
}

// --- memory ------------------------------------------------------------------------------------------------

void raise_to(std::atomic<int64_t>& most, int64_t value) {
  for (int64_t old = most; old < value && !most.compare_exchange_weak(old, value);) {}
}

void allocate(const SP_Device* device, uint64_t size, int64_t, SP_DeviceMemoryBase* memory) {
  Device& d = of(device);
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
  Device& d = of(device);
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
  const Device& d = of(device);
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
  const Device& d = of(device);
  size_t free_now = 0, all = 0;
  if (!attempt(device, "asking for free memory", [&] { return cudaMemGetInfo(&free_now, &all); })) return 0;
  *total = d.gpu.limit;
  *free = std::max<int64_t>(0, std::min(int64_t(free_now), d.gpu.limit - d.used));
  return 1;
}

// --- streams and events ------------------------------------------------------------------------------------

void create_stream(const SP_Device* device, SP_Stream* stream, TF_Status* status) {
  *stream = nullptr;
  attempt(device, status, "creating a stream", [&] {
    cudaStream_t made;
    const cudaError_t error = cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking);
    if (error == cudaSuccess) *stream = new SP_Stream_st{made, of(device).gpu.index};
    return error;
  });
}
void destroy_stream(const SP_Device* device, SP_Stream stream) {
  if (!stream) return;
  attempt(device, "destroying a stream", [&] { return cudaStreamDestroy(of(stream)); });
  delete stream;
}
void create_stream_dependency(const SP_Device* device, SP_Stream dependent, SP_Stream other, TF_Status* status) {
  attempt(device, status, "ordering streams", [&] {
    Device& d = of(device);
    std::lock_guard<std::mutex> lock(d.mutex);
    const cudaError_t error = cudaEventRecord(d.order, of(other));
    return error == cudaSuccess ? cudaStreamWaitEvent(of(dependent), d.order, 0) : error;
  });
}
void get_stream_status(const SP_Device* device, SP_Stream stream, TF_Status* status) {
  attempt(device, status, "work on a stream", [&] {
    const cudaError_t error = cudaStreamQuery(of(stream));
    return error == cudaErrorNotReady ? cudaGetLastError(), cudaSuccess : error;
  });
}
void block_host_until_done(const SP_Device* device, SP_Stream stream, TF_Status* status) {
  attempt(device, status, "waiting for a stream", [&] { return cudaStreamSynchronize(of(stream)); });
}
/** TensorFlow reports the failure but not the reason, so the reason is also printed on stderr. */
void synchronize_all_activity(const SP_Device* device, TF_Status* status) {
  attempt(device, status, "waiting for the device", [] { return cudaDeviceSynchronize(); });
  if (TF_GetCode(status) != TF_OK) fprintf(stderr, "sparsevila: %s\n", TF_Message(status));
}

void create_event(const SP_Device* device, SP_Event* event, TF_Status* status) {
  *event = nullptr;
  attempt(device, status, "creating an event", [&] {
    cudaEvent_t made;
    const cudaError_t error = cudaEventCreateWithFlags(&made, cudaEventDisableTiming);
    if (error == cudaSuccess) *event = new SP_Event_st{made};
    return error;
  });
}
void destroy_event(const SP_Device* device, SP_Event event) {
  if (!event) return;
  attempt(device, "destroying an event", [&] { return cudaEventDestroy(event->event); });
  delete event;
}
SE_EventStatus get_event_status(const SP_Device* device, SP_Event event) {
  bool is_pending = false;
  const bool is_well = attempt(device, "work before an event", [&] {
    const cudaError_t error = cudaEventQuery(event->event);
    is_pending = error == cudaErrorNotReady;
    return is_pending ? cudaGetLastError(), cudaSuccess : error;
  });
  return !is_well ? SE_EVENT_ERROR : (is_pending ? SE_EVENT_PENDING : SE_EVENT_COMPLETE);
}
void record_event(const SP_Device* device, SP_Stream stream, SP_Event event, TF_Status* status) {
  attempt(device, status, "recording an event", [&] { return cudaEventRecord(event->event, of(stream)); });
}
void wait_for_event(const SP_Device* const device, SP_Stream stream, SP_Event event, TF_Status* const status) {
  attempt(device, status, "waiting for an event", [&] { return cudaStreamWaitEvent(of(stream), event->event, 0); });
}
void block_host_for_event(const SP_Device* device, SP_Event event, TF_Status* status) {
  attempt(device, status, "waiting for an event", [&] { return cudaEventSynchronize(event->event); });
}

void create_timer(const SP_Device* device, SP_Timer* timer, TF_Status* status) {
  *timer = nullptr;
  attempt(device, status, "creating a timer", [&] {
    cudaEvent_t start, stop;
    cudaError_t error = cudaEventCreate(&start);
    if (error != cudaSuccess) return error;
    error = cudaEventCreate(&stop);
    if (error == cudaSuccess) *timer = new SP_Timer_st{start, stop};
    else
      cudaEventDestroy(start);
    return error;
  });
}
void destroy_timer(const SP_Device* device, SP_Timer timer) {
  if (!timer) return;
  attempt(device, "destroying a timer", [&] {
    const cudaError_t error = cudaEventDestroy(timer->start), other = cudaEventDestroy(timer->stop);
    return error == cudaSuccess ? other : error;
  });
  delete timer;
}
void start_timer(const SP_Device* device, SP_Stream stream, SP_Timer timer, TF_Status* status) {
  attempt(device, status, "starting a timer", [&] { return cudaEventRecord(timer->start, of(stream)); });
}
void stop_timer(const SP_Device* device, SP_Stream stream, SP_Timer timer, TF_Status* status) {
  attempt(device, status, "stopping a timer", [&] { return cudaEventRecord(timer->stop, of(stream)); });
}
/** Waits for the timer's end. 0 when it was not started and stopped. */
uint64_t nanoseconds(SP_Timer timer) {
  float ms = 0;
  if (cudaEventSynchronize(timer->stop) != cudaSuccess || cudaEventElapsedTime(&ms, timer->start, timer->stop) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return uint64_t(double(ms) * 1e6);
}

// --- copies ------------------------------------------------------------------------------------------------

void count(std::atomic<int64_t> (&counter)[2], uint64_t bytes) {
  counter[0]++;
  counter[1] += int64_t(bytes);
}

void memcpy_dtoh(const SP_Device* device, SP_Stream stream, void* to, const SP_DeviceMemoryBase* from, uint64_t size, TF_Status* status) {
  count(counters.to_host, size);
  attempt(device, status, "copying to the host", [&] { return cudaMemcpyAsync(to, from->opaque, size, cudaMemcpyDeviceToHost, of(stream)); });
}
void memcpy_htod(const SP_Device* device, SP_Stream stream, SP_DeviceMemoryBase* to, const void* from, uint64_t size, TF_Status* status) {
  count(counters.to_device, size);
  attempt(device, status, "copying from the host", [&] { return cudaMemcpyAsync(to->opaque, from, size, cudaMemcpyHostToDevice, of(stream)); });
}
void memcpy_dtod(const SP_Device* device, SP_Stream stream, SP_DeviceMemoryBase* to, const SP_DeviceMemoryBase* from, uint64_t size,
                 TF_Status* status) {
  count(counters.on_device, size);
  attempt(device, status, "copying on the device", [&] { return cudaMemcpyAsync(to->opaque, from->opaque, size, cudaMemcpyDeviceToDevice, of(stream)); });
}

/** cudaMemcpy returns before some copies have ended and waits for other streams; this does neither. */
cudaError_t copy_now(Device& d, void* to, const void* from, uint64_t size, cudaMemcpyKind kind) {
  std::lock_guard<std::mutex> lock(d.mutex);
  const cudaError_t error = cudaMemcpyAsync(to, from, size, kind, d.copies);
  return error == cudaSuccess ? cudaStreamSynchronize(d.copies) : error;
}
void sync_memcpy_dtoh(const SP_Device* device, void* to, const SP_DeviceMemoryBase* from, uint64_t size, TF_Status* status) {
  count(counters.to_host, size);
  attempt(device, status, "copying to the host", [&] { return copy_now(of(device), to, from->opaque, size, cudaMemcpyDeviceToHost); });
}
void sync_memcpy_htod(const SP_Device* device, SP_DeviceMemoryBase* to, const void* from, uint64_t size, TF_Status* status) {
  count(counters.to_device, size);
  attempt(device, status, "copying from the host", [&] { return copy_now(of(device), to->opaque, from, size, cudaMemcpyHostToDevice); });
}
void sync_memcpy_dtod(const SP_Device* device, SP_DeviceMemoryBase* to, const SP_DeviceMemoryBase* from, uint64_t size, TF_Status* status) {
  count(counters.on_device, size);
  attempt(device, status, "copying on the device", [&] { return copy_now(of(device), to->opaque, from->opaque, size, cudaMemcpyDeviceToDevice); });
}

void set_bytes(const SP_Device* device, SP_Stream stream, SP_DeviceMemoryBase* at, uint8_t pattern, uint64_t size, TF_Status* status) {
  attempt(device, status, "filling memory", [&] { return cudaMemsetAsync(at->opaque, pattern, size, of(stream)); });
}
void set_zero(const SP_Device* device, SP_Stream stream, SP_DeviceMemoryBase* at, uint64_t size, TF_Status* status) {
  set_bytes(device, stream, at, 0, size, status);
}
/** Writes the pattern once, then doubles the filled part until it is full. */
void set_words(const SP_Device* device, SP_Stream stream, SP_DeviceMemoryBase* at, uint32_t pattern, uint64_t size, TF_Status* status) {
  attempt(device, status, "filling memory", [&] {
    char* to = static_cast<char*>(at->opaque);
    uint64_t done = std::min<uint64_t>(size, sizeof pattern);
    cudaError_t error = cudaMemcpyAsync(to, &pattern, done, cudaMemcpyHostToDevice, of(stream));
    for (uint64_t part; error == cudaSuccess && done < size; done += part) {
      part = std::min(done, size - done);
      error = cudaMemcpyAsync(to + done, to, part, cudaMemcpyDeviceToDevice, of(stream));
    }
    return error;
  });
}

/** TensorFlow's function and its argument, which the function frees, so it is called once. */
struct HostCallback {
  SE_StatusCallbackFn function;
  void* argument;
};
TF_Bool host_callback(const SP_Device* device, SP_Stream stream, SE_StatusCallbackFn function, void* argument) {
  auto* callback = new HostCallback{function, argument};
  const auto run = [](void* data) {
    auto* call = static_cast<HostCallback*>(data);
    TF_Status* status = TF_NewStatus();
    call->function(call->argument, status);
    if (TF_GetCode(status) != TF_OK) fprintf(stderr, "sparsevila: a host callback failed: %s\n", TF_Message(status));
    TF_DeleteStatus(status);
    delete call;
  };
  const bool is_queued = attempt(device, "enqueuing a host callback", [&] { return cudaLaunchHostFunc(of(stream), run, callback); });
  if (!is_queued) delete callback;
  return is_queued;
}

// --- the platform ------------------------------------------------------------------------------------------

/** At most one: of several, tfjs-node makes its tensors on the last and TensorFlow runs ops on the first, with a copy between them
 * for each. CUDA_VISIBLE_DEVICES says which one is the first. */
void get_device_count(const SP_Platform*, int* count, TF_Status* status) {
  *count = gpus().usable.empty() ? 0 : 1;
  TF_SetStatus(status, TF_OK, "");
}

void create_device(const SP_Platform*, SE_CreateDeviceParams* params, TF_Status* status) {
  auto* made = new Device;
  made->gpu = gpus().usable[size_t(params->ordinal)];
  SP_Device* device = params->device;
  device->struct_size = SP_DEVICE_STRUCT_SIZE;
  device->ordinal = params->ordinal;
  device->device_handle = made;
  device->hardware_name = made->gpu.name.c_str();
  device->device_vendor = "NVIDIA";
  device->pci_bus_id = made->gpu.bus.c_str();
  attempt(device, status, "starting the device", [&] {
    const cudaError_t error = cudaStreamCreateWithFlags(&made->copies, cudaStreamNonBlocking);
    return error == cudaSuccess ? cudaEventCreateWithFlags(&made->order, cudaEventDisableTiming) : error;
  });
}
/** At the process's end, when CUDA may be gone already: the stream and the event go with it. */
void destroy_device(const SP_Platform*, SP_Device* device) { delete static_cast<Device*>(device->device_handle); }

void create_device_fns(const SP_Platform*, SE_CreateDeviceFnsParams* params, TF_Status* status) {
  *params->device_fns = {};
  params->device_fns->struct_size = SP_DEVICE_FNS_STRUCT_SIZE;
  TF_SetStatus(status, TF_OK, "");
}
void destroy_device_fns(const SP_Platform*, SP_DeviceFns*) {}

void create_stream_executor(const SP_Platform*, SE_CreateStreamExecutorParams* params, TF_Status* status) {
  SP_StreamExecutor& e = *params->stream_executor;
  e = {};
  e.struct_size = SP_STREAMEXECUTOR_STRUCT_SIZE;
  e.allocate = allocate;
  e.deallocate = deallocate;
  e.host_memory_allocate = host_memory_allocate;
  e.host_memory_deallocate = host_memory_deallocate;
  e.get_allocator_stats = get_allocator_stats;
  e.device_memory_usage = device_memory_usage;
  e.create_stream = create_stream;
  e.destroy_stream = destroy_stream;
  e.create_stream_dependency = create_stream_dependency;
  e.get_stream_status = get_stream_status;
  e.create_event = create_event;
  e.destroy_event = destroy_event;
  e.get_event_status = get_event_status;
  e.record_event = record_event;
  e.wait_for_event = wait_for_event;
  e.create_timer = create_timer;
  e.destroy_timer = destroy_timer;
  e.start_timer = start_timer;
  e.stop_timer = stop_timer;
  e.memcpy_dtoh = memcpy_dtoh;
  e.memcpy_htod = memcpy_htod;
  e.memcpy_dtod = memcpy_dtod;
  e.sync_memcpy_dtoh = sync_memcpy_dtoh;
  e.sync_memcpy_htod = sync_memcpy_htod;
  e.sync_memcpy_dtod = sync_memcpy_dtod;
  e.block_host_for_event = block_host_for_event;
  e.block_host_until_done = block_host_until_done;
  e.synchronize_all_activity = synchronize_all_activity;
  e.mem_zero = set_zero;
  e.memset = set_bytes;
  e.memset32 = set_words;
  e.host_callback = host_callback;
  TF_SetStatus(status, TF_OK, "");
}
void destroy_stream_executor(const SP_Platform*, SP_StreamExecutor*) {}

void create_timer_fns(const SP_Platform*, SP_TimerFns* fns, TF_Status* status) {
  fns->struct_size = SP_TIMER_FNS_STRUCT_SIZE;
  fns->nanoseconds = nanoseconds;
  TF_SetStatus(status, TF_OK, "");
}
void destroy_timer_fns(const SP_Platform*, SP_TimerFns*) {}
void destroy_platform(SP_Platform*) {}
void destroy_platform_fns(SP_PlatformFns*) {}

}  // namespace
}  // namespace sv

#define SV_EXPORT extern "C" __attribute__((visibility("default")))

/** TensorFlow's entry point. TensorFlow aborts the process if this reports an error, so an error becomes a reason to have no devices. */
SV_EXPORT void SE_InitPlugin(SE_PlatformRegistrationParams* params, TF_Status* status) {
  const char* guard = getenv("SPARSEVILA_GPU_GUARD");
  params->struct_size = SE_PLATFORM_REGISTRATION_PARAMS_STRUCT_SIZE;
  params->major_version = SE_MAJOR;
  params->minor_version = SE_MINOR;
  params->patch_version = SE_PATCH;
  params->destroy_platform = sv::destroy_platform;
  params->destroy_platform_fns = sv::destroy_platform_fns;
  SP_Platform& platform = *params->platform;
  platform.struct_size = SP_PLATFORM_STRUCT_SIZE;
  platform.name = "SPARSEVILA";
  platform.type = "GPU";
  platform.use_bfc_allocator = !(guard && strcmp(guard, "1") == 0);
  platform.force_memory_growth = 1;
  SP_PlatformFns& fns = *params->platform_fns;
  fns.struct_size = SP_PLATFORM_FNS_STRUCT_SIZE;
  fns.get_device_count = sv::get_device_count;
  fns.create_device = sv::create_device;
  fns.destroy_device = sv::destroy_device;
  fns.create_device_fns = sv::create_device_fns;
  fns.destroy_device_fns = sv::destroy_device_fns;
  fns.create_stream_executor = sv::create_stream_executor;
  fns.destroy_stream_executor = sv::destroy_stream_executor;
  fns.create_timer_fns = sv::create_timer_fns;
  fns.destroy_timer_fns = sv::destroy_timer_fns;
  TF_SetStatus(status, TF_OK, "");
}

/** TensorFlow's requests to all devices: copies from the host and their bytes, copies to the host and their bytes, copies on the
 * device and their bytes, allocations, bytes allocated now, most bytes at once. Writes the first n. */
SV_EXPORT void sparsevila_gpu_counters(int64_t* out, int32_t n) {
  const sv::Counters& c = sv::counters;
  const int64_t all[] = {c.to_device[0], c.to_device[1], c.to_host[0], c.to_host[1], c.on_device[0], c.on_device[1], c.allocations, c.bytes, c.peak};
  for (int32_t i = 0; i < n && i < int32_t(std::size(all)); i++) out[i] = all[i];
}
