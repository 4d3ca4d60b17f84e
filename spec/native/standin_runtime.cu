// Launches, memory, streams and events against CUDA's manual; and the conversions to bf16, which kernels and the host share.
#include "standin_testing.h"

namespace standin {
namespace {

void check_bf16() {
  // clang-format off
  const struct { uint32_t f32, bf16; } table[] = {
      {0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f808001, 0x3f81}, {0x3f818000, 0x3f82}, {0x3f817fff, 0x3f81},  // ties to even
      {0x80000000, 0x8000}, {0x7f800000, 0x7f80}, {0xff800000, 0xff80}, {0x7f7fffff, 0x7f80}, {0x00018000, 0x0002}, {0x00008000, 0x0000},
  };
  // clang-format on
  for (const auto& row : table) {
    float x;
    memcpy(&x, &row.f32, sizeof x);
    CHECK_EQ(sv::bf16_bits(x), row.bf16);
    CHECK_EQ(sv::pack_bf16(x, 2.f), row.bf16 | 0x40000000u);
  }
  CHECK(isnan(sv::bf16_low(sv::bf16_bits(NAN))) && isnan(sv::bf16_high(sv::pack_bf16(0.f, -NAN))));
  uint32_t low_bits_only = 0x7f800001;
  float quiet;
  memcpy(&quiet, &low_bits_only, sizeof quiet);
  CHECK(isnan(sv::bf16_low(sv::bf16_bits(quiet))));
  CHECK_EQ(sv::bf16_low(sv::pack_bf16(1.5f, -3.f)), 1.5f);
  CHECK_EQ(sv::bf16_high(sv::pack_bf16(1.5f, -3.f)), -3.f);
}

// --- launches, memory --------------------------------------------------------------------------------------

__global__ void nothing() {}
__global__ void use_shared(int* y, int last) {
  SV_DYNAMIC_SHARED(bytes);
  bytes[last] = 5;
  y[0] = bytes[last];
}
void check_launch_errors() {
  const auto launch = [](dim3 grid, dim3 block) {
    SV_LAUNCH(nothing, grid, block, 0, nullptr);
    const cudaError_t error = cudaGetLastError();
    CHECK(cudaGetLastError() == cudaSuccess);  // it was cleared
    return error;
  };
  CHECK(launch(1, 1024) == cudaSuccess);
  CHECK(launch(1, 1025) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, dim3(64, 4, 8)) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, dim3(2, 2, 65)) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, 0) == cudaErrorInvalidConfiguration);
  CHECK(launch(0, 1) == cudaErrorInvalidConfiguration);
  CHECK(launch(dim3(1, 65536), 1) == cudaErrorInvalidConfiguration);
  CHECK(launch(dim3(1, 1, 65536), 1) == cudaErrorInvalidConfiguration);
  CHECK(launch(70000, 1) == cudaSuccess);

  Buffer<int> y(1);
  const auto with_shared = [&](int bytes) {
    SV_LAUNCH(use_shared, 1, 1, size_t(bytes), nullptr, y.device, bytes - 1);
    return cudaGetLastError();
  };
  CHECK(with_shared(48 << 10) == cudaSuccess);
  CHECK(with_shared((48 << 10) + 4) == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(use_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 << 20) == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(use_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 96 << 10) == cudaSuccess);
  CHECK(with_shared(96 << 10) == cudaSuccess);
  CHECK(with_shared((96 << 10) + 4) == cudaErrorInvalidValue);
  CHECK_EQ(y.get()[0], 5);
}

void check_memory() {
  size_t free_before, free_now, total;
  CHECK(cudaMemGetInfo(&free_before, &total) == cudaSuccess);
  float* x = nullptr;
  CHECK(cudaMalloc(&x, total * 2) == cudaErrorMemoryAllocation && x == nullptr);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaMalloc(&x, 1000) == cudaSuccess && reinterpret_cast<uintptr_t>(x) % 256 == 0);
  CHECK(cudaMemGetInfo(&free_now, &total) == cudaSuccess && free_now <= free_before);
  float host[250] = {};
  CHECK(cudaMemset(x, 1, 1000) == cudaSuccess);
  CHECK(cudaMemcpy(host, x, 1000, cudaMemcpyDeviceToHost) == cudaSuccess);
  uint32_t word;
  memcpy(&word, &host[249], sizeof word);
  CHECK_EQ(word, 0x01010101u);
  CHECK(cudaFree(x) == cudaSuccess && cudaFree(nullptr) == cudaSuccess);
  CHECK(cudaMemGetInfo(&free_now, &total) == cudaSuccess && free_now == free_before);
}

// --- streams and events ------------------------------------------------------------------------------------

void check_stream_order() {
  Stream one, two;
  Buffer<float> x(5000), y(5000);
  cudaEvent_t event;
  CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
  CHECK(cudaEventQuery(event) == cudaSuccess);  // never recorded
  Gate gate;
  gate.hold(one);
  SV_LAUNCH(fill, 7, 64, 0, one, x.device, 1.f, 5000);
  SV_LAUNCH(fill, 7, 64, 0, one, x.device, 2.f, 5000);
  CHECK(cudaEventRecord(event, one) == cudaSuccess);
  CHECK(cudaStreamWaitEvent(two, event, 0) == cudaSuccess);
  CHECK(cudaMemcpyAsync(y.device, x.device, 5000 * sizeof(float), cudaMemcpyDeviceToDevice, two) == cudaSuccess);
  CHECK(cudaEventQuery(event) == cudaErrorNotReady && cudaStreamQuery(two) == cudaErrorNotReady);
  cudaGetLastError();
  gate.open();
  CHECK(cudaStreamSynchronize(two) == cudaSuccess && cudaStreamQuery(two) == cudaSuccess && cudaEventQuery(event) == cudaSuccess);
  for (float v : y.get()) CHECK_EQ(v, 2.f);
  CHECK(cudaEventDestroy(event) == cudaSuccess);
}

/** A stream that nobody orders after another does not wait for it; the default stream and blocking streams take turns. */
void check_independence() {
  Stream one, two;
  cudaStream_t blocking;
  CHECK(cudaStreamCreate(&blocking) == cudaSuccess);
  Buffer<float> x(10);
  Gate gate;
  gate.hold(one);
  SV_LAUNCH(fill, 1, 32, 0, one, x.device, 1.f, 10);
  SV_LAUNCH(fill, 1, 32, 0, two, x.device, 2.f, 10);
  CHECK(cudaStreamSynchronize(two) == cudaSuccess && cudaStreamSynchronize(nullptr) == cudaSuccess && cudaStreamQuery(one) == cudaErrorNotReady);
  cudaGetLastError();
  gate.open();
  CHECK_EQ(x.get()[9], 1.f);
  Gate other;
  other.hold(blocking);
  SV_LAUNCH(fill, 1, 32, 0, nullptr, x.device, 3.f, 10);
  SV_LAUNCH(fill, 1, 32, 0, blocking, x.device, 4.f, 10);
  CHECK(cudaStreamQuery(nullptr) == cudaErrorNotReady);
  cudaGetLastError();
  other.open();
  CHECK_EQ(x.get()[0], 4.f);
  CHECK(cudaStreamDestroy(blocking) == cudaSuccess);
}

void check_copies() {
  Stream stream;
  Buffer<int> x(100), y(100);
  int* pinned;
  CHECK(cudaHostAlloc(&pinned, 100 * sizeof(int), cudaHostAllocDefault) == cudaSuccess);
  std::vector<int> pageable(100, 1);
  for (int i = 0; i < 100; i++) pinned[i] = 1;
  Gate gate;
  gate.hold(stream);
  CHECK(cudaMemcpyAsync(x.device, pageable.data(), 400, cudaMemcpyHostToDevice, stream) == cudaSuccess);
  CHECK(cudaMemcpyAsync(y.device, pinned, 400, cudaMemcpyHostToDevice, stream) == cudaSuccess);
  for (int i = 0; i < 100; i++) pageable[size_t(i)] = pinned[i] = 2;
  gate.open();
  CHECK_EQ(x.get()[99], 1);  // pageable memory was staged
  CHECK_EQ(y.get()[99], 2);  // pinned memory is read when its turn comes
  CHECK(cudaMemcpyAsync(pinned, x.device, 400, cudaMemcpyDefault, stream) == cudaSuccess && cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK_EQ(pinned[50], 1);
  CHECK(cudaMemsetAsync(x.device + 10, 0xff, 40, stream) == cudaSuccess);
  x.get();
  CHECK(x.host[9] == 1 && x.host[10] == -1 && x.host[19] == -1 && x.host[20] == 1);
  CHECK(cudaFreeHost(pinned) == cudaSuccess);
}

void check_events() {
  Stream stream;
  cudaEvent_t from, to, untimed;
  CHECK(cudaEventCreate(&from) == cudaSuccess && cudaEventCreate(&to) == cudaSuccess);
  CHECK(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming) == cudaSuccess);
  Gate gate;
  CHECK(cudaEventRecord(from, stream) == cudaSuccess);
  gate.hold(stream);
  CHECK(cudaEventRecord(to, stream) == cudaSuccess && cudaEventRecord(untimed, stream) == cudaSuccess);
  float ms = -1;
  CHECK(cudaEventElapsedTime(&ms, from, to) == cudaErrorNotReady);
  gate.open();
  CHECK(cudaEventSynchronize(to) == cudaSuccess && cudaEventElapsedTime(&ms, from, to) == cudaSuccess && ms >= 0);
  CHECK(cudaEventElapsedTime(&ms, from, untimed) == cudaErrorInvalidResourceHandle);
  cudaGetLastError();
  CHECK(cudaEventDestroy(from) == cudaSuccess && cudaEventDestroy(to) == cudaSuccess && cudaEventDestroy(untimed) == cudaSuccess);
}

void check_host_functions() {
  Stream stream;
  struct Seen {
    int calls;
    cudaError_t inside;
  } seen = {0, cudaSuccess};
  for (int i = 0; i < 3; i++)
    CHECK(cudaLaunchHostFunc(
              stream, [](void* data) {
                auto* s = static_cast<Seen*>(data);
                s->calls++;
                int device;
                s->inside = cudaGetDevice(&device);
              },
              &seen) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK_EQ(seen.calls, 3);
#if defined(SV_STANDIN)
  CHECK(seen.inside == cudaErrorNotPermitted);
#endif
}

}  // namespace

// clang-format off
const std::vector<Check> runtime_checks = {
    {"bf16", check_bf16}, {"launch errors", check_launch_errors}, {"memory", check_memory}, {"stream order", check_stream_order},
    {"independence", check_independence}, {"copies", check_copies}, {"events", check_events}, {"host functions", check_host_functions},
};
// clang-format on

}  // namespace standin
