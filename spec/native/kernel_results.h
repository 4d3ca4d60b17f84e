// Fixed numbers for the kernels of kernel_levels.cc, and their results.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <string>
#include <vector>

using Floats = std::vector<float>;

struct Result {
  std::string name;
  std::vector<double> values;
  uint64_t hash;
};

static uint64_t random_state = 1;
static inline uint32_t random_word() {
  random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
  return (uint32_t)(random_state >> 33);
}
/** About -2 .. 2, few digits, so that no two sums are equal by chance. */
static inline float random_float() { return (float)((int32_t)random_word() % 100003 - 50001) / 25000.f; }
static inline Floats noise(int64_t n) {
  Floats out((size_t)n);
  for (float& x : out) x = random_float();
  return out;
}

static inline uint16_t bf16_of(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
static inline std::vector<uint16_t> bf16_noise(int64_t n) {
  std::vector<uint16_t> out((size_t)n);
  for (uint16_t& x : out) x = bf16_of(random_float());
  return out;
}
/** Binary16 numbers of magnitude 2^-24 .. 1, some subnormal. */
static inline uint16_t random_half() { return (uint16_t)(random_word() % 0x3c00 | (random_word() & 1) << 15); }

template <class T>
Result result_of(const std::string& name, const T* values, int64_t n) {
  Result r = {name, {}, 14695981039346656037ull};
  for (int64_t i = 0; i < n; i++) {
    r.values.push_back((double)values[i]);
    unsigned char bytes[sizeof(T)] = {};
    if (values[i] == values[i]) memcpy(bytes, values + i, sizeof(T));  // every NaN is the same
    else bytes[0] = 255;
    for (unsigned char b : bytes) r.hash = (r.hash ^ b) * 1099511628211ull;
  }
  return r;
}

/** Normalized mean squared error, of the numbers that are finite in both. */
static inline double nmse(const Result& a, const Result& b) {
  double error = 0, scale = 1e-30;
  for (size_t i = 0; i < a.values.size(); i++) {
    if (!(fabs(b.values[i]) < 1e30)) continue;
    error += (a.values[i] - b.values[i]) * (a.values[i] - b.values[i]);
    scale += b.values[i] * b.values[i];
  }
  return error / scale;
}
