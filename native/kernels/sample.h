// Samples one token id from logits as src/ops/sample.ts defines it. The arithmetic is equal bit for bit on
// every processor and GPU: single-precision steps that must not be fused, then integers, whose sums do not depend on order.
#pragma once
#include <stdint.h>

#include "host_device.h"

namespace sv {

/** temperature 0: the largest. top_k 0 and top_p 1: all. uniform in [0, 1). */
struct Sampling {
  float temperature;
  int32_t top_k;
  float top_p, uniform;
};

/** More logits than this could overflow a sum of weights in the 53 bits that JavaScript counts with. */
constexpr int64_t kMostLogits = 1 << 19;

/** weights[i] = sample_weight of logit i before it is rounded down; NaN where that is 0 because of one. */
using SampleWeights = void (*)(const float* logits, int64_t n, float highest, float temperature, float* weights);

/** The id, or -1: a logit is NaN or +infinity, none is above -infinity, or there are more than kMostLogits or none.
 *  `weights_of`: a kernel that computes weights; null: `sample_weight`, one at a time. */
int32_t sample(const float* logits, int64_t n, const Sampling&, SampleWeights weights_of = nullptr);

#if defined(__CUDA_ARCH__)
__device__ inline float rounded_sum(float a, float b) { return __fadd_rn(a, b); }
__device__ inline float rounded_product(float a, float b) { return __fmul_rn(a, b); }
#else
SV_HOST_DEVICE inline float rounded_sum(float a, float b) { return a + b; }
SV_HOST_DEVICE inline float rounded_product(float a, float b) { return a * b; }
#endif

/** floor(2^34 e^x), x = (score - highest) / temperature, by the polynomial of Cephes' expf: an integer from 0 to 2^34. */
SV_HOST_DEVICE inline uint64_t sample_weight(float score, float highest, float temperature) {
  const float x = (score - highest) / temperature;
  if (!(x >= -23.6f)) return 0;    // 2^34 e^-23.6 < 1
  const float shift = 12582912.f;  // 1.5 * 2^23: adding and subtracting it rounds to an integer, ties to even
  const float n = rounded_sum(rounded_sum(rounded_product(x, 1.44269504f), shift), -shift);
  const float r = rounded_sum(rounded_sum(x, -rounded_product(n, 0.693359375f)), -rounded_product(n, -2.12194440e-4f));
  float p = 1.9875691500e-4f;
  const float rest[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
  for (int i = 0; i < 5; i++) p = rounded_sum(rounded_product(p, r), rest[i]);
  p = rounded_sum(rounded_sum(rounded_product(p, rounded_product(r, r)), r), 1.f);
  return (uint64_t)(p * (float)((uint64_t)1 << (34 + (int)n)));  // a power of two: exact
}

/** A score's bits as an unsigned integer in the order of scores: NaN first, -0 as 0. */
SV_HOST_DEVICE inline uint32_t sortable(float x) {
  if (x != x) return 0;
  if (x == 0) return 0x80000000u;
  union {
    float f;
    uint32_t u;
  } bits = {x};
  return bits.u >> 31 ? ~bits.u : bits.u | 0x80000000u;
}

/** Smallest integer of at least share * mass, and the largest of at most that; mass below 2^53. */
SV_HOST_DEVICE inline uint64_t share_above(float share, uint64_t mass) {
  const double product = (double)share * (double)mass;
  const uint64_t below = (uint64_t)product;
  return (double)below < product ? below + 1 : below;
}
SV_HOST_DEVICE inline uint64_t share_below(float share, uint64_t mass) { return (uint64_t)((double)share * (double)mass); }

}  // namespace sv
