// Shared by the programs that print comparisons (cuda_linear.cu, cuda_rows.cu): random numbers, device memory, and errors.
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <string>
#include <vector>

#include "../../native/cuda/cuda.h"
#include "../../native/cuda/launchers.h"

namespace cuda_numbers {

using namespace sv;
using std::string;
using Floats = std::vector<float>;

/** The state of the random numbers. */
inline uint64_t state;
inline uint32_t bits32() {
  state += 0x9e3779b97f4a7c15ull;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return (uint32_t)(z >> 32);
}
inline float uniform(float from, float to) { return from + (to - from) * (float)(bits32() >> 8) * 0x1p-24f; }
inline Floats random_floats(int64_t n, float from, float to) {
  Floats out(n);
  for (float& v : out) v = uniform(from, to);
  return out;
}

inline void must(cudaError_t error) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  exit(1);
}

/** Device memory that starts as a copy, or as NaN. */
template <class T>
struct Device {
  T* data = nullptr;
  int64_t n;
  explicit Device(int64_t count) : n(count) {
    must(cudaMalloc(&data, (size_t)(n > 0 ? n : 1) * sizeof(T)));
    must(cudaMemset(data, 0xff, (size_t)(n > 0 ? n : 1) * sizeof(T)));
  }
  explicit Device(const std::vector<T>& host) : Device((int64_t)host.size()) {
    must(cudaMemcpy(data, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  Device(const Device&) = delete;
  ~Device() { must(cudaFree(data)); }
  std::vector<T> read() const {
    std::vector<T> out(n);
    must(cudaDeviceSynchronize());
    must(cudaMemcpy(out.data(), data, (size_t)n * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }
};

struct Scratch {
  std::vector<void*> taken;
  static void* take(void* self, int64_t bytes) {
    void* p = nullptr;
    must(cudaMalloc(&p, (size_t)bytes));
    must(cudaMemset(p, 0xff, (size_t)bytes));
    ((Scratch*)self)->taken.push_back(p);
    return p;
  }
  GpuScratch gpu() { return {take, this}; }
  ~Scratch() {
    must(cudaDeviceSynchronize());
    for (void* p : taken) must(cudaFree(p));
  }
};

inline void report(const char* kind, const string& name, double error) { printf("%s\t%s\t%.3g\n", kind, name.c_str(), error); }

/** sum (a - e)^2 / sum e^2; NaN where a value is not finite. */
inline double nmse(const Floats& a, const std::vector<double>& e) {
  double error = 0, power = 0;
  for (size_t i = 0; i < e.size(); i++) {
    const double d = (double)a[i] - e[i];
    error += d * d;
    power += e[i] * e[i];
  }
  return error == 0 ? 0 : error / power;
}
/** Values that differ in their bits. */
inline double differing(const Floats& a, const Floats& b) {
  if (a.size() != b.size()) return NAN;
  int64_t n = 0;
  for (size_t i = 0; i < a.size(); i++) n += memcmp(&a[i], &b[i], 4) != 0;
  return (double)n;
}
inline bool untouched(float v) {
  uint32_t u;
  memcpy(&u, &v, 4);
  return u == 0xffffffffu;
}

/** Rows with NaN between them. */
inline Floats spread(const Floats& x, int64_t rows, int64_t d, int64_t ld) {
  Floats out(rows * ld);
  memset(out.data(), 0xff, out.size() * 4);
  for (int64_t r = 0; r < rows; r++) memcpy(&out[r * ld], &x[r * d], (size_t)d * 4);
  return out;
}
/** Rows out of a padded array; `touched` counts padding that was written to. */
inline Floats gathered(const Floats& x, int64_t rows, int64_t d, int64_t ld, double* touched) {
  Floats out;
  for (int64_t r = 0; r < (int64_t)x.size() / ld; r++)
    for (int64_t c = 0; c < ld; c++)
      if (r < rows && c < d) out.push_back(x[r * ld + c]);
      else *touched += !untouched(x[r * ld + c]);
  return out;
}

inline void schedule(int order) {
#if defined(SV_STANDIN)
  sparsevila_standin_schedule(1 + order, order, order);
#else
  (void)order;
#endif
}

/** Norms and rotary embedding: cuda_rows.cu. */
void check_rows();

}  // namespace cuda_numbers
