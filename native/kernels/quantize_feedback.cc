// Rounding with error feedback: the factors of all blocks, then all rows, 32 at a time. See quantize.h.
#include <math.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "pool.h"
#include "quantize.h"

namespace sv {
namespace {

/** l [n, n]: the lower Cholesky factor of (H + lambda I)^-1, lambda a hundredth of H's mean diagonal. */
void inverse_factor(const float* gram, int64_t n, double* t, double* inverse, double* l) {
  double trace = 0;
  for (int64_t i = 0; i < n; i++) trace += gram[i * n + i];
  const double damping = std::max(0.01 * trace / (double)n, ldexp(4.9406564584124654e-324, 60));
  for (int64_t j = 0; j < n; j++) {
    for (int64_t i = j; i < n; i++) t[j * n + i] = gram[i * n + j];
    t[j * n + j] += damping;
  }
  quantize_kernels().cholesky(t, n);
  memset(inverse, 0, (size_t)(n * n) * 8);
  quantize_kernels().invert(t, n, inverse);
  memset(t, 0, (size_t)(n * n) * 8);
  quantize_kernels().square(inverse, n, t);
  quantize_kernels().cholesky(t, n);
  for (int64_t j = 0; j < n; j++)
    for (int64_t i = 0; i <= j; i++) l[j * n + i] = t[i * n + j];
}

/** Up to kFeedbackRows rows of one block of n columns. scratch: what feedback_round reserves. */
void feedback_tile(const ScaledMatrix& m, const Rounding& r, const float* step, const uint8_t* zero, int64_t row,
                   int64_t from, int64_t n, const double* l, char* scratch, uint8_t* q) {
  constexpr int64_t R = kFeedbackRows;
  const int64_t all = groups_of(m.k, r.group), first = from / r.group, groups = groups_of(n, r.group);
  auto* w = (double*)scratch;
  double *steps = w + n * R, *zeros = steps + groups * R;
  auto* line = (float*)(zeros + groups * R);
  auto* tile = (uint8_t*)(line + n);
  memset(w, 0, (size_t)(n * R) * 8);
  for (int64_t i = 0; i < R; i++) {
    const bool there = row + i < m.rows;
    for (int64_t g = 0; g < groups; g++) {
      steps[g * R + i] = there ? step[(row + i) * all + first + g] : 1;
      zeros[g * R + i] = there ? zero[(row + i) * all + first + g] : 0;
    }
    if (!there) continue;
    for (int64_t c = 0; c < n; c += r.group) scaled_part(m, r.group, row + i, from + c, std::min(r.group, n - c), line + c);
    for (int64_t c = 0; c < n; c++) w[c * R + i] = line[c];
  }
  quantize_kernels().feedback(w, n, l, r.group, steps, zeros, tile);
  for (int64_t i = 0; i < R && row + i < m.rows; i++)
    for (int64_t c = 0; c < n; c++) q[(row + i) * m.k + from + c] = tile[c * R + i];
}

}  // namespace

void feedback_round(const ScaledMatrix& m, const Rounding& r, const float* step, const uint8_t* zero, int64_t block,
                    const float* grams, uint8_t* q) {
  const int64_t square = block * block, blocks = groups_of(m.k, block), tiles = (m.rows + kFeedbackRows - 1) / kFeedbackRows;
  std::vector<double> factors((size_t)(blocks * square));
  reserve_thread_scratch(kStripSlot, 4 * block * block);
  parallel(blocks, 1, [&](int64_t begin, int64_t end, int thread) {
    auto* t = (double*)thread_scratch(thread, kStripSlot);
    for (int64_t b = begin; b < end; b++) {
      const int64_t n = std::min(block, m.k - b * block);
      inverse_factor(grams + b * square, n, t, t + block * block, factors.data() + b * square);
    }
  });
  const int64_t per_column = kFeedbackRows * (8 * 3 + 1) + 4;  // at most a group per column
  reserve_thread_scratch(kStripSlot, block * per_column / 4 + 64);
  parallel(blocks * tiles, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t b = i / tiles, n = std::min(block, m.k - b * block);
      feedback_tile(m, r, step, zero, i % tiles * kFeedbackRows, b * block, n, factors.data() + b * square,
                    (char*)thread_scratch(thread, kStripSlot), q);
    }
  });
}

}  // namespace sv
