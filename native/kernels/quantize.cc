// Rounding, the search for ranges and feedback over whole matrices, on all threads. See quantize.h.
#include "quantize.h"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "linear.h"
#include "pool.h"

namespace sv {

const QuantizeKernels& quantize_kernels() {
#if defined(__x86_64__)
  const Kernels* level = &kernels();
  if (level == &kernels_avx2) return quantize_avx2;
  if (level != &kernels_portable) return quantize_avx512;
#elif defined(__aarch64__)
  if (&kernels() != &kernels_portable) return quantize_neon;
#endif
  return quantize_portable;
}

void scaled_part(const ScaledMatrix& m, int64_t group, int64_t row, int64_t begin, int64_t n, float* out) {
  const float limit = m.limits ? m.limits[row * groups_of(m.k, group) + begin / group] : INFINITY;
  quantize_kernels().scale(m.w + row * m.k + begin, m.columns ? m.columns + begin : nullptr,
                           m.divisors ? m.divisors[row] : 1.f, limit, n, out);
}

namespace {

// --- the grid of a group -------------------------------------------------------------------------------------

/** The binary16 number nearest to x >= 0, as float; beyond 65,504 infinity. */
float nearest_f16(double x) {
  float f = (float)x;
  uint32_t u;
  memcpy(&u, &f, 4);
  if (u >= 0x477ff000) return INFINITY;
  if (u < 0x38800000) return (float)(x + 0.5) - 0.5f;  // multiples of 2^-24: the adder rounds
  u = (u + 0xfff + (u >> 13 & 1)) & ~0x1fffu;
  memcpy(&f, &u, 4);
  return f;
}

struct Step {
  float step;
  int zero;
};

Step grid_of(float low, float high, bool symmetric) {
  constexpr double kSmallestRange = 1e-5;
  constexpr float kSmallestStep = 5.9604644775390625e-8f;  // 2^-24: less would not survive as binary16
  if (symmetric) {
    const double top = std::max({-(double)low, (double)high, kSmallestRange});
    return {std::max(nearest_f16(top / 7), kSmallestStep), 8};
  }
  const double range = std::max((double)high - (double)low, kSmallestRange);
  const float step = std::max(nearest_f16(range / 15), kSmallestStep);
  const double zero = -nearbyint((double)low / (double)step);
  return {step, (int)(zero > 0 ? std::min(zero, 15.0) : 0.0)};
}

/** Rounds n values to their own grid: nibbles into `level`, which is other memory. */
Step round_to_own(const float* w, int64_t n, bool symmetric, float* level) {
  float low, high;
  quantize_kernels().range(w, n, &low, &high);
  const Step grid = grid_of(low, high, symmetric);
  quantize_kernels().levels(w, n, grid.step, grid.zero, level);
  return grid;
}

// --- packing -------------------------------------------------------------------------------------------------

/** A packed f32 matrix whose rows `fill(row, thread, to)` makes. */
template <class Fill>
void pack_rows(int64_t rows, int64_t k, void* out, Fill&& fill) {
  PackedHeader h = {};
  h.magic = kPackedMagic;
  h.type = kF32;
  h.n = rows;
  h.k = k;
  h.strips = (rows + kLanes - 1) / kLanes;
  const int64_t kp = padded_k(k);
  h.strip_bytes = kLanes * kp * 4;
  memcpy(out, &h, sizeof h);
  char* base = static_cast<char*>(out) + sizeof h;
  reserve_thread_scratch(kTileSlot, kp * kLanes);
  parallel(h.strips, 1, [&](int64_t begin, int64_t end, int thread) {
    float* wide = thread_scratch(thread, kTileSlot);
    memset(wide, 0, (size_t)(kp * kLanes) * 4);
    const uint32_t* lanes[kLanes];
    for (int r = 0; r < kLanes; r++) lanes[r] = (const uint32_t*)(wide + r * kp);
    for (int64_t s = begin; s < end; s++) {
      for (int r = 0; r < kLanes; r++) {
        if (s * kLanes + r < rows) fill(s * kLanes + r, thread, wide + r * kp);
        else memset(wide + r * kp, 0, (size_t)kp * 4);
      }
      kernels().transpose_words(lanes, kp, (uint32_t*)(base + s * h.strip_bytes), kLanes);
    }
  });
}

/** The part that a row of stacked parts lies in; `row` becomes that within it. */
template <class Part>
const Part& part_of(const Part* parts, int64_t* row) {
  while (*row >= parts->rows) *row -= parts++->rows;
  return *parts;
}

}  // namespace

void quantize(const ScaledMatrix& m, const Rounding& r, uint8_t* q, Grid grid) {
  const int64_t groups = groups_of(m.k, r.group);
  reserve_thread_scratch(kTileSlot, 2 * r.group);
  parallel(m.rows, 4, [&](int64_t begin, int64_t end, int thread) {
    float *scaled = thread_scratch(thread, kTileSlot), *level = scaled + r.group;
    for (int64_t row = begin; row < end; row++)
      for (int64_t g = 0; g < groups; g++) {
        const int64_t from = g * r.group, n = std::min(r.group, m.k - from);
        scaled_part(m, r.group, row, from, n, scaled);
        const Step own = round_to_own(scaled, n, r.symmetric, level);
        quantize_kernels().narrow(level, n, q + row * m.k + from);
        grid.step[row * groups + g] = own.step;
        grid.zero[row * groups + g] = (uint8_t)own.zero;
      }
  });
}

int64_t packed_rounded_bytes(int64_t rows, int64_t k) {
  const WeightPart part = {nullptr, kF32, rows};
  return packed_bytes(&part, 1, k, kF32, false);
}

void pack_grid(const GridMatrix* parts, int count, int64_t k, int64_t group, const float* columns, const float* divisors,
               void* out) {
  int64_t rows = 0;
  for (int i = 0; i < count; i++) rows += parts[i].rows;
  const int64_t groups = groups_of(k, group);
  pack_rows(rows, k, out, [&](int64_t row, int, float* to) {
    const float divisor = divisors ? divisors[row] : 1.f;
    const GridMatrix& m = part_of(parts, &row);
    for (int64_t g = 0; g < groups; g++) {
      const int64_t from = g * group, n = std::min(group, k - from), at = row * groups + g;
      quantize_kernels().widen(m.q + row * k + from, n, to + from);
      quantize_kernels().restore(to + from, n, m.step[at], m.zero[at], columns ? columns + from : nullptr, divisor, to + from);
    }
  });
}

void pack_rounded(const ScaledMatrix* parts, int count, const Rounding& r, void* out) {
  int64_t rows = 0;
  for (int i = 0; i < count; i++) rows += parts[i].rows;
  const int64_t k = parts[0].k;
  reserve_thread_scratch(kStripSlot, r.group);
  pack_rows(rows, k, out, [&](int64_t row, int thread, float* to) {
    float* scaled = thread_scratch(thread, kStripSlot);
    const ScaledMatrix& m = part_of(parts, &row);
    for (int64_t from = 0; from < k; from += r.group) {
      const int64_t n = std::min(r.group, k - from);
      scaled_part(m, r.group, row, from, n, scaled);
      const Step own = round_to_own(scaled, n, r.symmetric, to + from);
      quantize_kernels().restore(to + from, n, own.step, own.zero, m.columns ? m.columns + from : nullptr, 1.f, to + from);
    }
  });
}

namespace {

constexpr int64_t kClipRows = 48;
constexpr int kClipSteps = 10;

/** What clipping one group of up to kClipRows rows works with: rows of `ld` floats, products of `ldw`. */
struct ClipTile {
  int64_t rows, n, ld, ldw;
  float *part, *change, *weighed, *clamped;
};

/** sums[r] = the dot product of change and weighed of row r, in ascending order. */
void weigh_rows(const ClipTile& t, double* sums) {
  constexpr int64_t kTogether = 8;  // independent sums
  for (int64_t r0 = 0; r0 < kClipRows; r0 += kTogether) {
    double sum[kTogether] = {};
    const float *change = t.change + r0 * t.ld, *weighed = t.weighed + r0 * t.ldw;
    for (int64_t i = 0; i < t.n; i++)
      for (int64_t r = 0; r < kTogether; r++) sum[r] += (double)change[r * t.ld + i] * (double)weighed[r * t.ldw + i];
    memcpy(sums + r0, sum, sizeof sum);
  }
}

/** The share of each row's top that costs least: limits of one group. `products`: its packed Gram matrix. */
void clip_rows(const ClipTile& t, bool symmetric, const char* products, float* limits, int64_t stride) {
  const auto& h = *reinterpret_cast<const PackedHeader*>(products);
  float lows[kClipRows], highs[kClipRows], tops[kClipRows];
  double best[kClipRows], errors[kClipRows];
  for (int64_t r = 0; r < t.rows; r++) {
    quantize_kernels().range(t.part + r * t.ld, t.n, lows + r, highs + r);
    tops[r] = limits[r * stride] = std::max(fabsf(lows[r]), fabsf(highs[r]));
    best[r] = INFINITY;
  }
  for (int step = 0; step < kClipSteps; step++) {
    const double keep = 1 - (double)step / 20;
    for (int64_t r = 0; r < t.rows; r++) {
      const float limit = (float)((double)tops[r] * keep), *from = t.part + r * t.ld;
      float* to = t.change + r * t.ld;
      quantize_kernels().scale(from, nullptr, 1.f, limit, t.n, t.clamped);
      const Step own = grid_of(std::max(lows[r], -limit), std::min(highs[r], limit), symmetric);
      quantize_kernels().levels(t.clamped, t.n, own.step, own.zero, to);
      quantize_kernels().restore(to, t.n, own.step, own.zero, nullptr, 1.f, to);
      for (int64_t i = 0; i < t.n; i++) to[i] -= from[i];
    }
    kernels().matmul[kF32](t.change, t.ld * 4, t.rows, products + sizeof h, h.strip_bytes, h.k, h.strips, t.weighed, t.ldw * 4);
    weigh_rows(t, errors);
    for (int64_t r = 0; r < t.rows; r++) {
      if (!(errors[r] < best[r])) continue;
      best[r] = errors[r];
      limits[r * stride] = (float)((double)tops[r] * keep);
    }
  }
}

}  // namespace

void clip_limits(const ScaledMatrix& m, const Rounding& r, const float* grams, float* limits) {
  const int64_t groups = groups_of(m.k, r.group), tiles = (m.rows + kClipRows - 1) / kClipRows;
  const int64_t each = (packed_rounded_bytes(r.group, r.group) + 63) / 64 * 64, ld = padded_k(r.group);
  const int64_t ldw = (r.group + kLanes - 1) / kLanes * kLanes, floats = kClipRows * (2 * ld + ldw) + ld;
  std::vector<char> packed((size_t)(groups * each) + 64);
  char* products = packed.data() + (64 - (uintptr_t)packed.data() % 64) % 64;
  for (int64_t g = 0; g < groups; g++) {
    const int64_t n = std::min(r.group, m.k - g * r.group);
    const WeightPart gram = {grams + g * r.group * r.group, kF32, n};
    pack(&gram, 1, n, kF32, false, false, products + g * each);
  }
  reserve_thread_scratch(kStripSlot, floats);
  parallel(groups * tiles, 1, [&](int64_t begin, int64_t end, int thread) {
    float* scratch = thread_scratch(thread, kStripSlot);
    for (int64_t i = begin; i < end; i++) {
      const int64_t g = i / tiles, row = i % tiles * kClipRows, rows = std::min(kClipRows, m.rows - row);
      memset(scratch, 0, (size_t)floats * 4);
      float *change = scratch + kClipRows * ld, *weighed = change + kClipRows * ld;
      const int64_t n = std::min(r.group, m.k - g * r.group);
      const ClipTile t = {rows, n, ld, ldw, scratch, change, weighed, weighed + kClipRows * ldw};
      for (int64_t j = 0; j < rows; j++) scaled_part(m, r.group, row + j, g * r.group, t.n, t.part + j * t.ld);
      clip_rows(t, r.symmetric, products + g * each, limits + row * groups + g, groups);
    }
  });
}

}  // namespace sv
