// Devices, versions and errors of the stand-in.
#include <stdio.h>

#include "runtime.h"

using namespace sv_standin;

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
