// Copies and fills for TensorFlow, on its streams and, for those that wait, on one of ours.
#include <algorithm>

#include "device.h"

namespace sv {
namespace {

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
cudaError_t copy_now(OpenDevice& d, void* to, const void* from, uint64_t size, cudaMemcpyKind kind) {
  std::lock_guard<std::mutex> lock(d.copying);
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

}  // namespace

void add_copies(SP_StreamExecutor& e) {
  e.memcpy_dtoh = memcpy_dtoh;
  e.memcpy_htod = memcpy_htod;
  e.memcpy_dtod = memcpy_dtod;
  e.sync_memcpy_dtoh = sync_memcpy_dtoh;
  e.sync_memcpy_htod = sync_memcpy_htod;
  e.sync_memcpy_dtod = sync_memcpy_dtod;
  e.mem_zero = set_zero;
  e.memset = set_bytes;
  e.memset32 = set_words;
}

}  // namespace sv
