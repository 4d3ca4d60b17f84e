// A TensorFlow PluggableDevice of type "GPU" on CUDA's runtime: here the platform and its one device; memory.cc, copies.cc and
// streams.cc beside it. TensorFlow calls it from many threads; each call sets its device first. Knows no op and no kernel. With
// SV_STANDIN the same source runs on a processor. Interface: tensorflow/c/experimental/stream_executor/stream_executor.h.
//
// TensorFlow takes memory in growing regions as needed, up to about nineteen twentieths of what SPARSEVILA_GPU_MEMORY allows (see
// devices.h), and never gives it back. With SPARSEVILA_GPU_GUARD=1 every tensor is an allocation of its own, so that the stand-in
// or compute-sanitizer sees its ends; that is slow.
//
// A CUDA error becomes a TF_Status that names the failed call and a remedy. After an unrecoverable error every later call fails
// with the same error. TensorFlow itself ends the process when a copy fails, so ops report errors of their launches first.

#include "device.h"

#include <stdlib.h>
#include <string.h>

#include <iterator>

namespace sv {

Counters counters;

namespace {

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

}  // namespace

std::string message(const OpenDevice& device, cudaError_t error, const char* what) {
  return "GPU " + std::to_string(device.gpu.index) + " (" + device.gpu.name + "): " + what + " failed: " + cudaGetErrorString(error) + " (" +
         cudaGetErrorName(error) + "). " + advice(error);
}

namespace {

/** At most one: of several, tfjs-node makes its tensors on the last and TensorFlow runs ops on the first, with a copy between them
 * for each. CUDA_VISIBLE_DEVICES says which one is the first. */
void get_device_count(const SP_Platform*, int* count, TF_Status* status) {
  *count = gpus().usable.empty() ? 0 : 1;
  TF_SetStatus(status, TF_OK, "");
}

void create_device(const SP_Platform*, SE_CreateDeviceParams* params, TF_Status* status) {
  auto* made = new OpenDevice;
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
void destroy_device(const SP_Platform*, SP_Device* device) { delete static_cast<OpenDevice*>(device->device_handle); }

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
  add_memory(e);
  add_copies(e);
  add_streams(e);
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
