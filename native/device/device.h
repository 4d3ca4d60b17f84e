// What the files of this folder share: the device, the process's counters, and calls of CUDA whose errors become statuses.
#pragma once
#include <stdio.h>

#include <atomic>
#include <mutex>
#include <string>
#include <unordered_map>

#include "../cuda/cuda.h"
#include "devices.h"
#include "stream.h"
#include "tensorflow/c/experimental/stream_executor/stream_executor.h"
#include "tensorflow/c/tf_status.h"

namespace sv {

/** Counters of the process; see sparsevila_gpu_counters. */
struct Counters {
  std::atomic<int64_t> to_device[2], to_host[2], on_device[2];  // copies, bytes
  std::atomic<int64_t> allocations, bytes, peak, largest;
};
extern Counters counters;

/** The device while TensorFlow has it. */
struct OpenDevice {
  Gpu gpu;
  std::atomic<int64_t> allocations{0}, used{0}, peak{0}, largest{0};
  std::mutex mutex;                          // for the two below
  std::unordered_map<void*, int64_t> sizes;  // of what is allocated: TensorFlow does not always tell when it gives back
  cudaEvent_t order = nullptr;               // recorded and waited for at once, again and again
  std::mutex copying;                        // held for a whole copy
  cudaStream_t copies = nullptr;             // for copies that the caller waits for
};

inline OpenDevice& of(const SP_Device* device) { return *static_cast<OpenDevice*>(device->device_handle); }
inline cudaStream_t of(SP_Stream stream) { return static_cast<cudaStream_t>(stream->stream); }

/** What failed on which device, why, and what to do. */
std::string message(const OpenDevice&, cudaError_t, const char* what);

/** Makes the device current and runs `call`. Its error is only returned, and not left in CUDA's state, where that of a
 * kernel before it stays. */
template <class F> cudaError_t attempt(OpenDevice& device, F call) {
  cudaError_t error = cudaSetDevice(device.gpu.index);
  if (error == cudaSuccess) error = call();
  if (error != cudaSuccess && error == cudaPeekAtLastError()) cudaGetLastError();
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

// Each file fills in the functions of its topic.
void add_memory(SP_StreamExecutor&);
void add_copies(SP_StreamExecutor&);
void add_streams(SP_StreamExecutor&);
/** Waits for the timer's end. 0 when it was not started and stopped. */
uint64_t nanoseconds(SP_Timer);

}  // namespace sv
