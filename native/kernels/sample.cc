// Sampling on the processor: radix selection, as on the GPU, over the few logits with nonzero weights.
#include "sample.h"

#include <stddef.h>
#include <string.h>

#include <algorithm>
#include <vector>

namespace sv {
namespace {

struct Candidate {
  uint32_t key;
  int32_t id;
  uint64_t weight;
};

/** The largest key that, with all larger ones, reaches `need` in sum of weights, and what it and its equals must bring. */
struct Threshold {
  uint32_t key;
  uint64_t need;
};

template <typename Key, typename Weight>
Threshold select(int64_t n, uint64_t need, Key key, Weight weight) {
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    uint64_t sums[256] = {};
    for (int64_t i = 0; i < n; i++)
      if (shift == 24 || key(i) >> (shift + 8) == prefix) sums[key(i) >> shift & 255] += weight(i);
    uint32_t byte = 255;
    while (byte > 0 && sums[byte] < need) need -= sums[byte--];
    prefix = prefix << 8 | byte;
  }
  return {prefix, need};
}

/** A score's bits as a signed integer in the order of scores: negative NaN first, positive NaN last, -0 before 0. */
int32_t ordered(float x) {
  int32_t bits;
  memcpy(&bits, &x, 4);
  return bits ^ (bits >> 31 & 0x7fffffff);
}

/** The index of the largest logit, the lowest on ties, or -1. Integers, because compilers do not vectorize maxima of floats. */
int32_t best_of(const float* logits, int64_t n) {
  if (n > kMostLogits) return -1;
  const int32_t infinity = 0x7f800000, negative = ordered(-__builtin_inff());
  int32_t most = negative, least = infinity;
  for (int64_t i = 0; i < n; i++) {
    const int32_t x = ordered(logits[i]);
    most = x > most ? x : most;
    least = x < least ? x : least;
  }
  if (most >= infinity || least < negative || most == negative) return -1;
  const int32_t bits = most ^ (most >> 31 & 0x7fffffff);
  float top;
  memcpy(&top, &bits, 4);
  int64_t at = 0;
  while (logits[at] != top) at++;
  return (int32_t)at;
}

/** Of a weight that `sample_weights` has not rounded down yet; NaN counts 0. */
uint64_t whole(float weight) { return weight >= 1 ? (uint64_t)weight : 0; }

/** Without top-k and top-p: no list of candidates is needed. */
int32_t draw_of_all(const float* weights, int64_t n, float uniform) {
  uint64_t mass = 0;
  for (int64_t i = 0; i < n; i++) mass += whole(weights[i]);
  uint64_t left = share_below(uniform, mass);
  int32_t last = -1;
  for (int64_t i = 0; i < n; i++) {
    const uint64_t weight = whole(weights[i]);
    if (!weight) continue;
    last = (int32_t)i;
    if (left < weight) break;
    left -= weight;
  }
  return last;
}

}  // namespace

int32_t sample(const float* logits, int64_t n, const Sampling& s, SampleWeights weights_of) {
  const int32_t best = best_of(logits, n);
  if (best < 0 || s.temperature == 0) return best;
  static thread_local std::vector<float> weights;
  weights.resize((size_t)n);
  if (weights_of) weights_of(logits, n, logits[best], s.temperature, weights.data());
  else
    for (int64_t i = 0; i < n; i++) weights[(size_t)i] = (float)sample_weight(logits[i], logits[best], s.temperature);
  const bool is_top_k = s.top_k > 0 && s.top_k < n;
  if (!is_top_k && s.top_p == 1) return draw_of_all(weights.data(), n, s.uniform);
  static thread_local std::vector<Candidate> kept;  // of megabytes, which would be mapped anew each time
  kept.clear();
  for (int64_t i = 0; i < n; i++)
    if (weights[(size_t)i] > 0) kept.push_back({sortable(logits[i]), (int32_t)i, whole(weights[(size_t)i])});
  // These are the highest logits, so the k-th highest is among them if there are as many.
  if (is_top_k && (int64_t)kept.size() > s.top_k) {
    const uint32_t floor = select((int64_t)kept.size(), (uint64_t)s.top_k, [&](int64_t i) { return kept[(size_t)i].key; },
                                  [](int64_t) { return (uint64_t)1; })
                               .key;
    kept.erase(std::remove_if(kept.begin(), kept.end(), [floor](const Candidate& c) { return c.key < floor; }), kept.end());
  }
  uint64_t mass = 0;
  for (const Candidate& c : kept) mass += c.weight;
  if (s.top_p < 1) {
    const Threshold least = select((int64_t)kept.size(), share_above(s.top_p, mass), [&](int64_t i) { return kept[(size_t)i].key; },
                                   [&](int64_t i) { return kept[(size_t)i].weight; });
    uint64_t need = least.need, left = 0;
    int64_t to = 0;
    for (const Candidate& c : kept) {
      if (c.key < least.key || (c.key == least.key && need == 0)) continue;
      if (c.key == least.key) need -= need < c.weight ? need : c.weight;
      left += c.weight;
      kept[(size_t)to++] = c;
    }
    kept.resize((size_t)to);
    mass = left;
  }
  uint64_t left = share_below(s.uniform, mass);
  for (const Candidate& c : kept) {
    if (left < c.weight) return c.id;
    left -= c.weight;
  }
  return kept.back().id;
}

}  // namespace sv
