// Rows of the KV cache on the GPU: what is written where, and what is read back, to the last bit.
#include "cuda_testing.h"

using namespace testing;

namespace {

void cache_rows() {
  for (const bool narrow : {true, false}) {
    const int64_t g = 3, c = 7, capacity = 11, t = 4, at = 5, ld = g * c + 2, bytes = c * (narrow ? 2 : 4);
    Random random(31);
    std::vector<float> k = random.noises(t * ld), v = random.noises(t * ld);
    uint32_t special[] = {0x7fc00000, 0xffffffff, 0x7f800001, 0x7f800000, 0x3f808000, 0x3f818000, 0x3f808001, 0x80000000, 1};
    for (size_t i = 0; i < 9; i++) memcpy(&k[i], &special[i], 4);
    Device<char> cache((size_t)(2 * g * capacity * bytes));
    Device<float> dk(k), dv(v), y((size_t)(2 * g * 6 * c));
    sv::gpu::kv_write(nullptr, cache.data, cache.data + g * capacity * bytes, narrow, capacity * bytes, bytes, at, dk.data, dv.data, ld, t, g, c);
    const std::vector<char> stored = cache.host();
    for (int64_t i = 0; i < 2 * g * capacity * c; i++) {
      const int64_t which = i / (g * capacity * c), head = i / (capacity * c) % g, row = i / c % capacity, e = i % c;
      uint32_t got = 0, expected = 0xffffffff;
      memcpy(&got, &stored[(size_t)(i * bytes / c)], (size_t)(bytes / c));
      if (row >= at && row < at + t) memcpy(&expected, &(which ? v : k)[(size_t)((row - at) * ld + head * c + e)], 4);
      float x;
      memcpy(&x, &expected, 4);
      if (narrow) expected = row >= at && row < at + t ? bf16(x) : 0xffff;
      check(got == expected, "kv_write: element " + std::to_string(i));
    }
    sv::gpu::kv_read(nullptr, cache.data, narrow, 2 * g, capacity, bytes, 4, 10, c, y.data);
    const std::vector<float> read = y.host();
    for (int64_t i = 0; i < 2 * g * 6 * c; i++) {
      const int64_t head = i / (6 * c), row = 4 + i / c % 6, e = i % c;
      const char* from = &stored[(size_t)((head * capacity + row) * bytes + e * bytes / c)];
      float x;
      if (narrow) {
        uint16_t u;
        memcpy(&u, from, 2);
        x = from_bf16(u);
      } else memcpy(&x, from, 4);
      check(!memcmp(&x, &read[(size_t)i], 4), "kv_read: element " + std::to_string(i));
    }
  }
}

}  // namespace

int main() {
  cache_rows();
  return finish();
}
