// [h, w, c] -> [ceil(h/k) ceil(w/k), k k c]: a token per k x k block in raster order, its channels the block's patches in
// row-major order; missing patches at the bottom and right are zero. Every token-reducing projector uses this one order.
#pragma once
#include <stdint.h>
#include <string.h>

namespace sv {

inline void space_to_depth(const float* x, int64_t h, int64_t w, int64_t c, int64_t k, float* y) {
  const int64_t rows = (h + k - 1) / k, cols = (w + k - 1) / k;
  for (int64_t i = 0; i < rows * cols; i++)
    for (int64_t b = 0; b < k * k; b++) {
      const int64_t r = i / cols * k + b / k, s = i % cols * k + b % k;
      float* to = y + (i * k * k + b) * c;
      if (r < h && s < w) memcpy(to, x + (r * w + s) * c, (size_t)c * 4);
      else memset(to, 0, (size_t)c * 4);
    }
}

}  // namespace sv
