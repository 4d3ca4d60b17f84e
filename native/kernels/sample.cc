// Sampling on the processor: radix selection, as on the GPU, over the few logits with nonzero weights.
#include "sample.h"

#include <stddef.h>

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

/** The index of the largest logit, the lowest on ties, or -1. */
int32_t best_of(const float* logits, int64_t n) {
  const float infinity = __builtin_inff();
  if (n > kMostLogits) return -1;
  int32_t best = -1;
  for (int64_t i = 0; i < n; i++) {
    if (!(logits[i] < infinity)) return -1;
    if (logits[i] > (best < 0 ? -infinity : logits[best])) best = (int32_t)i;
  }
  return best;
}

}  // namespace

int32_t sample(const float* logits, int64_t n, const Sampling& s) {
  const int32_t best = best_of(logits, n);
  if (best < 0 || s.temperature == 0) return best;
  uint32_t floor = 0;
  if (s.top_k > 0 && s.top_k < n) {
    const auto key_of = [&](int64_t i) { return sortable(logits[i]); };
    floor = select(n, (uint64_t)s.top_k, key_of, [](int64_t) { return (uint64_t)1; }).key;
  }
  std::vector<Candidate> kept;
  uint64_t mass = 0;
  for (int64_t i = 0; i < n; i++) {
    const uint32_t key = sortable(logits[i]);
    const uint64_t weight = key < floor ? 0 : sample_weight(logits[i], logits[best], s.temperature);
    if (!weight) continue;
    kept.push_back({key, (int32_t)i, weight});
    mass += weight;
  }
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
