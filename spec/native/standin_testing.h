// What the checks of the stand-in share, and their lists: standin_kernels.cu, standin_runtime.cu, standin_promises.cu.
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/mma.h"

namespace standin {

inline int failures = 0;
#define CHECK(condition)                                                                          \
  do {                                                                                            \
    if (!(condition)) failures++, fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
  } while (0)
template <class A, class B> void check_equal(int line, const char* text, const A& got, const B& want) {
  if (got == A(want)) return;
  failures++;
  fprintf(stderr, "%s:%d: %s is %g, not %g\n", __FILE__, line, text, double(got), double(want));
}
#define CHECK_EQ(a, b) check_equal(__LINE__, #a, (a), (b))

inline uint32_t word_of(float x) {
  uint32_t word;
  memcpy(&word, &x, sizeof word);
  return word;
}
inline uint32_t random_state = 1;
inline uint32_t draw() { return random_state = random_state * 1664525u + 1013904223u, random_state >> 8; }

/** Device memory with a copy on the host. */
template <class T> struct Buffer {
  std::vector<T> host;
  T* device = nullptr;
  explicit Buffer(size_t n, T value = T()) : host(n, value) {
    CHECK(cudaMalloc(&device, n * sizeof(T)) == cudaSuccess);
    put();
  }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) { host = values, put(); }
  Buffer(const Buffer&) = delete;
  ~Buffer() { CHECK(cudaFree(device) == cudaSuccess); }
  void put() { CHECK(cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess); }
  std::vector<T>& get() {
    CHECK(cudaDeviceSynchronize() == cudaSuccess);
    CHECK(cudaMemcpy(host.data(), device, host.size() * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return host;
  }
};

struct Stream {
  cudaStream_t stream;
  Stream() { CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess); }
  ~Stream() { CHECK(cudaStreamDestroy(stream) == cudaSuccess); }
  operator cudaStream_t() const { return stream; }
};

/** Holds a stream back until it is opened. */
struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  bool is_open = false;
  void hold(cudaStream_t stream) {
    CHECK(cudaLaunchHostFunc(
              stream, [](void* self) {
                auto* gate = static_cast<Gate*>(self);
                std::unique_lock<std::mutex> lock(gate->mutex);
                gate->changed.wait(lock, [gate] { return gate->is_open; });
              },
              this) == cudaSuccess);
  }
  void open() {
    std::lock_guard<std::mutex> lock(mutex);
    is_open = true;
    changed.notify_all();
  }
};

static __global__ void fill(float* y, float value, int n) {
  for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += int(gridDim.x * blockDim.x)) y[i] = value;
}

struct Check {
  const char* name;
  void (*run)();
};
/** What kernels may rely on; holds for every order of running. */
extern const std::vector<Check> kernel_checks;
extern const std::vector<Check> runtime_checks;
/** What only the stand-in promises. */
extern const std::vector<Check> promise_checks;
/** Ends the process, the way the spec expects. */
int misbehave(const std::string& how);

}  // namespace standin
