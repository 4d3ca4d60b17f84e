// Calls native/device as TensorFlow does, through SE_InitPlugin's tables, on the stand-in: what no tensor in a test would reach.
// Compiled and run by device.spec.ts. Prints what failed.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "cuda/cuda.h"
#include "device/stream.h"
#include "tensorflow/c/experimental/stream_executor/stream_executor.h"
#include "tensorflow/c/tf_status.h"

extern "C" const char* sparsevila_gpu_reason();
extern "C" int sparsevila_gpu_devices(char* json, int64_t size);
extern "C" void sparsevila_gpu_counters(int64_t* out, int32_t n);

namespace {

int failures = 0;
#define CHECK(condition)                                                                          \
  do {                                                                                            \
    if (!(condition)) failures++, fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
  } while (0)
#define OK(call)                        \
  do {                                  \
    call;                               \
    CHECK(TF_GetCode(status) == TF_OK); \
  } while (0)

TF_Status* const status = TF_NewStatus();
SP_Platform platform;
SP_PlatformFns platform_fns;
SP_Device device;
SP_StreamExecutor gpu;
SP_TimerFns timers;

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

int start() {
  SE_PlatformRegistrationParams params = {};
  params.platform = &platform;
  params.platform_fns = &platform_fns;
  OK(SE_InitPlugin(&params, status));
  CHECK(params.struct_size == SE_PLATFORM_REGISTRATION_PARAMS_STRUCT_SIZE && strcmp(platform.type, "GPU") == 0);
  int count = -1;
  OK(platform_fns.get_device_count(&platform, &count, status));
  if (count == 0) return 0;
  SE_CreateDeviceParams device_params = {SE_CREATE_DEVICE_PARAMS_STRUCT_SIZE, nullptr, 0, &device};
  OK(platform_fns.create_device(&platform, &device_params, status));
  SE_CreateStreamExecutorParams executor_params = {SE_CREATE_STREAM_EXECUTOR_PARAMS_STRUCT_SIZE, nullptr, &gpu};
  OK(platform_fns.create_stream_executor(&platform, &executor_params, status));
  OK(platform_fns.create_timer_fns(&platform, &timers, status));
  return count;
}

SP_DeviceMemoryBase take(uint64_t bytes) {
  SP_DeviceMemoryBase memory;
  gpu.allocate(&device, bytes, 0, &memory);
  return memory;
}
SP_Stream stream() {
  SP_Stream made = nullptr;
  OK(gpu.create_stream(&device, &made, status));
  CHECK(made && made->stream);
  return made;
}
SP_Event event() {
  SP_Event made = nullptr;
  OK(gpu.create_event(&device, &made, status));
  return made;
}

/** As TensorFlow calls it: from any thread, with any device current. */
void check_memory() {
  int64_t free = 0, total = 0;
  CHECK(gpu.device_memory_usage(&device, &free, &total) && free == total);
  CHECK(take(uint64_t(total) + 1).opaque == nullptr);
  CHECK(take(UINT64_MAX).opaque == nullptr);
  CHECK(take(0).opaque == nullptr);
  SP_DeviceMemoryBase a = take(1000), b = take(3000);
  CHECK(a.opaque && a.size == 1000 && b.opaque);
  CHECK(take(uint64_t(total) - 3999).opaque == nullptr);
  int64_t now;
  CHECK(gpu.device_memory_usage(&device, &now, &total) && now == free - 4000);
  SP_AllocatorStats stats;
  CHECK(gpu.get_allocator_stats(&device, &stats));
  CHECK(stats.bytes_in_use == 4000 && stats.peak_bytes_in_use == 4000 && stats.largest_alloc_size == 3000 && stats.num_allocs == 2);
  CHECK(stats.has_bytes_limit && stats.bytes_limit == total);
  a.size = 0;  // TensorFlow does not always say
  gpu.deallocate(&device, &a);
  gpu.deallocate(&device, &a);
  gpu.deallocate(&device, &b);
  CHECK(gpu.device_memory_usage(&device, &now, &total) && now == free);
  CHECK(gpu.get_allocator_stats(&device, &stats) && stats.bytes_in_use == 0 && stats.peak_bytes_in_use == 4000);
}

void check_copies() {
  const SP_Stream one = stream(), two = stream();
  SP_DeviceMemoryBase a = take(4 * 1001), b = take(4 * 1001);
  int64_t before[9], after[9];
  sparsevila_gpu_counters(before, 9);
  auto* pinned = static_cast<uint32_t*>(gpu.host_memory_allocate(&device, 4 * 1001));
  std::vector<uint32_t> out(1001);
  for (uint32_t i = 0; i < 1001; i++) pinned[i] = i * 7;
  OK(gpu.memcpy_htod(&device, one, &a, pinned, 4 * 1001, status));
  OK(gpu.create_stream_dependency(&device, two, one, status));
  OK(gpu.memcpy_dtod(&device, two, &b, &a, 4 * 1001, status));
  OK(gpu.memset32(&device, two, &a, 0x01020304, 4 * 333, status));
  OK(gpu.memcpy_dtoh(&device, two, pinned, &b, 4 * 1001, status));
  OK(gpu.block_host_until_done(&device, two, status));
  OK(gpu.get_stream_status(&device, two, status));
  for (uint32_t i = 0; i < 1001; i++) CHECK(pinned[i] == i * 7);
  OK(gpu.sync_memcpy_dtoh(&device, out.data(), &a, 4 * 1001, status));
  for (uint32_t i = 0; i < 1001; i++) CHECK(out[i] == (i < 333 ? 0x01020304 : i * 7));
  OK(gpu.memset(&device, one, &a, 9, 5, status));
  OK(gpu.mem_zero(&device, one, &b, 2, status));
  OK(gpu.block_host_until_done(&device, one, status));
  OK(gpu.sync_memcpy_dtod(&device, &b, &a, 4, status));
  OK(gpu.sync_memcpy_dtoh(&device, out.data(), &b, 4 * 1001, status));
  CHECK(out[0] == 0x09090909 && out[1] == 7 && out[1000] == 7000);
  pinned[0] = 5;
  OK(gpu.sync_memcpy_htod(&device, &b, pinned, 4, status));
  OK(gpu.sync_memcpy_dtoh(&device, out.data(), &b, 8, status));
  CHECK(out[0] == 5 && out[1] == 7);
  sparsevila_gpu_counters(after, 9);
  const int64_t copies[6] = {2, 4004 + 4, 4, 3 * 4004 + 8, 2, 4004 + 4};
  for (int i = 0; i < 6; i++) CHECK(after[i] - before[i] == copies[i]);
  CHECK(after[7] == 8008 && after[8] >= 8008);
  // A copy that makes no sense is reported, and leaves no error behind.
  gpu.memcpy_dtoh(&device, one, out.data(), &a, 4 * 1002, status);
  CHECK(TF_GetCode(status) == TF_INTERNAL && contains(TF_Message(status), "copying to the host failed: invalid argument (cudaErrorInvalidValue)"));
  CHECK(cudaPeekAtLastError() == cudaSuccess);
  gpu.host_memory_deallocate(&device, pinned);
  gpu.deallocate(&device, &a);
  gpu.deallocate(&device, &b);
  gpu.destroy_stream(&device, one);
  gpu.destroy_stream(&device, two);
}

struct Called {
  int times = 0;
};
void check_events() {
  const SP_Stream one = stream(), two = stream();
  const SP_Event done = event();
  CHECK(gpu.get_event_status(&device, done) == SE_EVENT_COMPLETE);
  // The host callback waits until the event behind it was seen pending.
  static std::atomic<bool> is_open{false};
  is_open = false;
  Called called;
  CHECK(gpu.host_callback(
      &device, one, [](void* const data, TF_Status* const s) {
        while (!is_open) std::this_thread::yield();
        static_cast<Called*>(data)->times++;
        TF_SetStatus(s, TF_OK, "");
      },
      &called));
  OK(gpu.record_event(&device, one, done, status));
  OK(gpu.wait_for_event(&device, two, done, status));
  CHECK(gpu.get_event_status(&device, done) == SE_EVENT_PENDING);
  OK(gpu.get_stream_status(&device, two, status));
  CHECK(cudaPeekAtLastError() == cudaSuccess);  // "not ready" is no error
  is_open = true;
  OK(gpu.block_host_for_event(&device, done, status));
  CHECK(gpu.get_event_status(&device, done) == SE_EVENT_COMPLETE);
  OK(gpu.synchronize_all_activity(&device, status));
  CHECK(called.times == 1);

  SP_Timer timer = nullptr;
  OK(gpu.create_timer(&device, &timer, status));
  CHECK(timers.nanoseconds(timer) == 0);  // never started
  OK(gpu.start_timer(&device, one, timer, status));
  CHECK(gpu.host_callback(
      &device, one, [](void* const, TF_Status* const) { std::this_thread::sleep_for(std::chrono::milliseconds(3)); }, nullptr));
  OK(gpu.stop_timer(&device, one, timer, status));
  CHECK(timers.nanoseconds(timer) >= 2900000);
  gpu.destroy_timer(&device, timer);
  gpu.destroy_event(&device, done);
  gpu.destroy_stream(&device, one);
  gpu.destroy_stream(&device, two);
}

/** After a crash every callback fails and says so, nothing hangs; what has no status gives what TensorFlow takes for a failure. */
void check_crash() {
  const SP_Stream one = stream();
  const SP_Event done = event();
  SP_DeviceMemoryBase a = take(100);
  uint32_t word = 0;
  sparsevila_standin_fail(cudaErrorIllegalAddress);
  const auto fails = [](const char* what) {
    CHECK(TF_GetCode(status) == TF_INTERNAL && contains(TF_Message(status), what) && contains(TF_Message(status), "illegal memory access"));
    CHECK(contains(TF_Message(status), "A kernel before this has crashed"));
    TF_SetStatus(status, TF_OK, "");
  };
  gpu.memcpy_dtoh(&device, one, &word, &a, 4, status), fails("copying to the host");
  gpu.memcpy_htod(&device, one, &a, &word, 4, status), fails("copying from the host");
  gpu.sync_memcpy_dtoh(&device, &word, &a, 4, status), fails("copying to the host");
  gpu.record_event(&device, one, done, status), fails("recording an event");
  gpu.block_host_until_done(&device, one, status), fails("waiting for a stream");
  gpu.get_stream_status(&device, one, status), fails("work on a stream");
  gpu.synchronize_all_activity(&device, status), fails("waiting for the device");
  CHECK(gpu.get_event_status(&device, done) == SE_EVENT_ERROR);
  CHECK(!gpu.host_callback(
      &device, one, [](void* const, TF_Status* const) {}, nullptr));
  CHECK(take(100).opaque == nullptr);
  int64_t free, total;
  CHECK(!gpu.device_memory_usage(&device, &free, &total));
  sparsevila_standin_fail(cudaSuccess);
  gpu.deallocate(&device, &a);
  gpu.destroy_event(&device, done);
  gpu.destroy_stream(&device, one);
}

}  // namespace

/** Prints the number of devices, the limit of memory, the reason and the JSON; then runs every check if there is a device. */
int main() {
  const int count = start();
  int64_t free = 0, total = 0;
  if (count > 0) gpu.device_memory_usage(&device, &free, &total);
  int devices = 0, current = -1;
  cudaGetDeviceCount(&devices);
  if (devices > 1) cudaSetDevice(1);
  char json[4000];
  const int length = sparsevila_gpu_devices(json, sizeof json);
  if (devices > 1) CHECK(cudaGetDevice(&current) == cudaSuccess && current == 1);
  CHECK(length == int(strlen(json)));
  char some[10];
  CHECK(sparsevila_gpu_devices(some, sizeof some) == length && strlen(some) == 9 && strncmp(some, json, 9) == 0);
  const char* reason = sparsevila_gpu_reason();
  printf("%d\n%lld\n%d\n%s\n%s\n", count, static_cast<long long>(total), int(platform.use_bfc_allocator), reason ? reason : "", json);
  if (count == 0) return failures == 0 ? 0 : 1;
  cudaSetDevice(0);
  for (const auto check : {check_memory, check_copies, check_events, check_crash}) check();
  CHECK(sparsevila_standin_check() == 0);
  platform_fns.destroy_stream_executor(&platform, &gpu);
  platform_fns.destroy_device(&platform, &device);
  return failures == 0 ? 0 : 1;
}
