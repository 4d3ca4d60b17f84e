// What only the stand-in promises: that orders of running differ, that memory is guarded, and how misuse ends.
#include "standin_testing.h"

namespace standin {
namespace {

__global__ void swap_neighbors(const int* x, int* y, bool barrier) {
  __shared__ int part[64];
  part[threadIdx.x] = x[threadIdx.x];
  if (barrier) __syncthreads();
  y[threadIdx.x] = part[threadIdx.x ^ 1];
}
/** Some order of running must show that the barrier is missing, and none that it is there. */
void check_orders_differ() {
  std::vector<int> x;
  for (int i = 0; i < 64; i++) x.push_back(i + 100);
  Buffer<int> in(x), out(64);
  const auto errors = [&](bool barrier, int fibers) {
    sparsevila_standin_schedule(1, 0, fibers);
    SV_LAUNCH(swap_neighbors, 1, 64, 0, nullptr, in.device, out.device, barrier);
    out.get();
    int wrong = 0;
    for (size_t i = 0; i < 64; i++) wrong += out.host[i] != x[i ^ 1];
    return wrong;
  };
  CHECK_EQ(errors(true, 0) + errors(true, 1), 0);
  CHECK(errors(false, 0) > 0);
  CHECK(errors(false, 1) > 0);
}

__global__ void note_order(int* ticket, int* y) { y[blockIdx.x] = atomicAdd(ticket, 1); }
void check_block_orders() {
  for (int order = 0; order < 3; order++) {
    Buffer<int> ticket(1), y(100);
    sparsevila_standin_schedule(1, order, 0);
    SV_LAUNCH(note_order, 100, 1, 0, nullptr, ticket.device, y.device);
    y.get();
    int ascending = 0, descending = 0;
    for (size_t i = 1; i < 100; i++) (y.host[i] > y.host[i - 1] ? ascending : descending)++;
    if (order == 0) CHECK_EQ(ascending, 99);
    if (order == 1) CHECK_EQ(descending, 99);
    if (order == 2) CHECK(ascending > 10 && descending > 10);
    CHECK_EQ(ticket.get()[0], 100);
  }
}

__global__ void write_at(float* x, long at) { x[at] = 1; }
void check_canaries() {
  float* x;
  CHECK(cudaMalloc(&x, 100 * sizeof(float)) == cudaSuccess);
  uint32_t fresh[100];
  CHECK(cudaMemcpy(fresh, x, sizeof fresh, cudaMemcpyDeviceToHost) == cudaSuccess);
  for (uint32_t word : fresh) CHECK_EQ(word, 0xffffffffu);
  CHECK_EQ(sparsevila_standin_check(), 0);
  for (long at : {100l, -1l}) {
    SV_LAUNCH(write_at, 1, 1, 0, nullptr, x, at);
    CHECK_EQ(sparsevila_standin_check(), 1);
    SV_LAUNCH(fill, 1, 1, 0, nullptr, x + at, __uint_as_float(0xffffffffu), 1);  // made good
    CHECK_EQ(sparsevila_standin_check(), 0);
  }
  // Copies are checked when they are asked for.
  CHECK(cudaMemcpy(fresh, x + 1, 400, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(x, fresh, 400, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemset(x, 0, 404) == cudaErrorInvalidValue);
  CHECK(cudaFree(x + 64) == cudaErrorInvalidValue && cudaFree(x) == cudaSuccess && cudaFree(x) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(fresh, x, 4, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  cudaGetLastError();
}

/** Large memory costs what is written of it, and every page of it starts as NaN. */
void check_large() {
  char* x;
  const size_t bytes = (size_t(3) << 30) + 5000;
  CHECK(cudaMalloc(&x, bytes) == cudaSuccess);
  for (size_t at : {size_t(0), size_t(1) << 30, bytes - 4}) {
    uint32_t word = 0;
    CHECK(cudaMemcpy(&word, x + at, 4, cudaMemcpyDeviceToHost) == cudaSuccess);
    CHECK_EQ(word, 0xffffffffu);
  }
  CHECK(cudaFree(x) == cudaSuccess);
}

void check_counters() {
  int64_t before[9], after[9];
  sparsevila_standin_counters(before, 9);
  {
    Buffer<float> x(100);  // one copy there
    SV_LAUNCH(fill, 1, 32, 0, nullptr, x.device, 1.f, 100);
    x.get();
    CHECK(cudaMemcpy(x.device, x.device + 50, 80, cudaMemcpyDeviceToDevice) == cudaSuccess);
    sparsevila_standin_counters(after, 9);
    const int64_t want[9] = {1, 400, 1, 400, 1, 400, 1, 80, 1};
    for (int i = 0; i < 9; i++) CHECK_EQ(after[i] - before[i], want[i]);
  }
  sparsevila_standin_counters(after, 2);
  CHECK_EQ(after[1], before[1]);
}

void check_sticky() {
  Buffer<float> x(10);
  sparsevila_standin_fail(cudaErrorIllegalAddress);
  CHECK(cudaMemcpy(x.host.data(), x.device, 40, cudaMemcpyDeviceToHost) == cudaErrorIllegalAddress);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress && cudaGetLastError() == cudaErrorIllegalAddress);
  sparsevila_standin_fail(cudaSuccess);
  CHECK(cudaGetLastError() == cudaSuccess);
}

__global__ void block_alone(float* y) {
  if (threadIdx.x != 3) __syncthreads();
  else y[0] = __shfl_sync(0xffu, 1.f, 0);
}
__global__ void wrong_mask(float* y) { y[0] = __shfl_sync(0xfeu, 1.f, 0); }
__global__ void past_shared(float* y) {
  SV_DYNAMIC_SHARED(bytes);
  y[0] = bytes[64];
}

}  // namespace

// clang-format off
const std::vector<Check> promise_checks = {
    {"orders differ", check_orders_differ}, {"block orders", check_block_orders}, {"canaries", check_canaries}, {"large", check_large},
    {"counters", check_counters}, {"sticky errors", check_sticky},
};
// clang-format on

int misbehave(const std::string& how) {
  float* x;
  if (cudaMalloc(&x, 400) != cudaSuccess) return 3;
  if (how == "read") return x[3] > 0;
  if (how == "write") x[3] = 1;
  if (how == "overrun") SV_LAUNCH(write_at, 1, 1, 0, nullptr, x, 128l);
  if (how == "underrun") SV_LAUNCH(write_at, 1, 1, 0, nullptr, x, -1024l);
  if (how == "freed") cudaFree(x), SV_LAUNCH(write_at, 1, 1, 0, nullptr, x, 0l);
  if (how == "damage") SV_LAUNCH(write_at, 1, 1, 0, nullptr, x, 101l), cudaFree(x);
  if (how == "deadlock") SV_LAUNCH(block_alone, 1, 8, 0, nullptr, x);
  if (how == "mask") SV_LAUNCH(wrong_mask, 1, 8, 0, nullptr, x);
  if (how == "shared") SV_LAUNCH(past_shared, 1, 1, 64, nullptr, x);
  cudaDeviceSynchronize();
  return 3;
}

}  // namespace standin
