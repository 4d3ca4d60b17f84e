// See checksum.h. Eight chains of xor, rotation and multiplication by an odd number, each step of which can be undone, take
// turns at the words of a piece; the checksums of the pieces are summed in the same way.
#include "checksum.h"

#include <string.h>

#include <vector>

#include "pool.h"

namespace sv {
namespace {

constexpr int64_t kPiece = 1 << 20;
constexpr int kChains = 8;
constexpr uint64_t kFirst = 0x9e3779b97f4a7c15ull, kOdd = 0xc2b2ae3d27d4eb4full;

inline uint64_t step(uint64_t h, uint64_t word) {
  h ^= word;
  return (h << 31 | h >> 33) * kOdd;
}

uint64_t piece_sum(const char* data, int64_t bytes) {
  uint64_t h[kChains];
  for (int i = 0; i < kChains; i++) h[i] = kFirst * (uint64_t)(i + 1);
  uint64_t words[kChains];
  int64_t at = 0;
  for (; at + (int64_t)sizeof words <= bytes; at += sizeof words) {
    memcpy(words, data + at, sizeof words);
    for (int i = 0; i < kChains; i++) h[i] = step(h[i], words[i]);
  }
  memset(words, 0, sizeof words);
  if (at < bytes) memcpy(words, data + at, (size_t)(bytes - at));
  uint64_t sum = (uint64_t)bytes;
  for (int i = 0; i < kChains; i++) sum = step(sum, step(h[i], words[i]));
  return sum ^ sum >> 29;
}

}  // namespace

uint64_t checksum(const void* data, int64_t bytes) {
  const int64_t pieces = (bytes + kPiece - 1) / kPiece;
  std::vector<uint64_t> sums((size_t)pieces + 1, (uint64_t)bytes);
  parallel(pieces, 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t from = i * kPiece, n = bytes - from < kPiece ? bytes - from : kPiece;
      sums[(size_t)i] = piece_sum(static_cast<const char*>(data) + from, n);
    }
  });
  return piece_sum((const char*)sums.data(), (int64_t)(sums.size() * sizeof(uint64_t)));
}

}  // namespace sv
