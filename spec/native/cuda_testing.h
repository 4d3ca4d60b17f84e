// What the tests of GPU kernels share: device memory that starts poisoned, scratch, random numbers, checks. Tests are programs
// that run on the stand-in for CUDA, print one line per failed check, and end with 1 if there was any.
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <string>
#include <vector>

#include "../../native/cuda/cuda.h"
#include "../../native/cuda/launchers.h"

namespace testing {

inline int failures = 0;

inline void check(bool ok, const std::string& what) {
  if (ok) return;
  failures++;
  printf("FAILED %s\n", what.c_str());
}

/** mulberry32, in [0, 1). */
struct Random {
  uint32_t state;
  explicit Random(uint32_t seed) : state(seed) {}
  uint32_t bits() {
    uint32_t z = state += 0x6d2b79f5u;
    z = (z ^ z >> 15) * (1 | z);
    z = (z + (z ^ z >> 7) * (61 | z)) ^ z;
    return z ^ z >> 14;
  }
  float uniform() { return (float)(bits() >> 8) / 16777216.f; }
  /** Mean 0, deviation 1, full mantissas. */
  float noise() { return (uniform() + uniform() - 1) * 2.4494897f; }
  int64_t below(int64_t n) { return (int64_t)(bits() % (uint32_t)n); }
  std::vector<float> noises(int64_t n) {
    std::vector<float> x((size_t)n);
    for (float& v : x) v = noise();
    return x;
  }
};

/** Device memory, every byte 0xFF (floats: NaN; indices: -1) until something is written. */
template <typename T>
struct Device {
  T* data = nullptr;
  size_t count;
  explicit Device(size_t n) : count(n) {
    check(cudaMalloc(&data, n * sizeof(T) + 16) == cudaSuccess, "cudaMalloc");  // never empty
    cudaMemset(data, 0xff, n * sizeof(T));
  }
  explicit Device(const std::vector<T>& host) : Device(host.size()) {
    cudaMemcpy(data, host.data(), count * sizeof(T), cudaMemcpyHostToDevice);
  }
  Device(const Device&) = delete;
  ~Device() { cudaFree(data); }
  std::vector<T> host() const {
    std::vector<T> x(count);
    cudaMemcpy(x.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost);
    return x;
  }
};

/** Poisoned scratch; everything taken is freed with it. */
struct Scratch {
  std::vector<void*> taken;
  ~Scratch() {
    cudaDeviceSynchronize();
    for (void* p : taken) cudaFree(p);
  }
  static void* take(void* state, int64_t bytes) {
    void* p = nullptr;
    if (cudaMalloc(&p, (size_t)bytes) != cudaSuccess) return nullptr;
    cudaMemset(p, 0xff, (size_t)bytes);
    static_cast<Scratch*>(state)->taken.push_back(p);
    return p;
  }
  sv::GpuScratch gpu() { return {take, this}; }
};

/** sum (a - e)^2 / sum e^2; NaN where only one is. */
inline double nmse(const std::vector<float>& a, const std::vector<double>& e) {
  if (a.size() != e.size()) return NAN;
  double error = 0, size = 0;
  for (size_t i = 0; i < e.size(); i++) {
    if (isnan(a[i]) && isnan(e[i])) continue;
    error += (a[i] - e[i]) * (a[i] - e[i]);
    size += e[i] * e[i];
  }
  return size == 0 ? error : error / size;
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

inline uint16_t bf16(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  if (isnan(x)) return (uint16_t)(u >> 16 | 64);
  const uint32_t low = u & 0xffff, high = u >> 16;
  return (uint16_t)(high + (low > 0x8000 || (low == 0x8000 && high % 2) ? 1 : 0));
}
inline float from_bf16(uint16_t x) {
  const uint32_t u = (uint32_t)x << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

/** Runs `body` with blocks and threads in each order, and on two threads: it returns bits, which must not change. */
template <typename F>
auto in_every_order(const std::string& what, F body) {
  sparsevila_standin_schedule(1, 0, 0);
  const auto first = body();
  const int orders[3][3] = {{1, 1, 1}, {2, 2, 0}, {2, 0, 1}};
  for (const auto& o : orders) {
    sparsevila_standin_schedule(o[0], o[1], o[2]);
    check(same_bits(body(), first), what + ": other bits in another order of blocks and threads");
  }
  sparsevila_standin_schedule(2, 0, 0);
  return first;
}

/** Ends the program: after the last check that no kernel wrote beside its memory or failed. */
inline int finish() {
  check(sparsevila_standin_check() == 0, "memory beside an allocation was written");
  const char* error = sv::gpu::last_error();
  check(!error, std::string("last_error: ") + (error ? error : ""));
  printf("%d failed\n", failures);
  return failures ? 1 : 0;
}

}  // namespace testing
