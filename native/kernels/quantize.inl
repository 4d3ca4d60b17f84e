// The loops of quantize.h. Every operation rounds on its own and none is fused or reordered, so all levels give the same bits.
// The including file defines SV_LEVEL (the namespace), SV_TABLE and one of SV_AVX512, SV_AVX2, SV_NEON, SV_PORTABLE.
#include <math.h>

#include "quantize.h"
#include "vec.h"

namespace sv {
namespace SV_LEVEL {
namespace {

constexpr int kWide = 16;

/** Runs body(offset, count) over n in steps of 16 and once for the rest. */
#define SV_EACH(n, i, m) for (int64_t i = 0, m; i < n && (m = n - i < kWide ? n - i : kWide, true); i += kWide)
SV_INLINE vec part(const float* p, int64_t m) { return m == kWide ? load(p) : load_n(p, (int)m); }
SV_INLINE void put(float* p, vec x, int64_t m) {
  if (m == kWide) store(p, x);
  else store_n(p, x, (int)m);
}

void scale(const float* w, const float* columns, float divisor, float limit, int64_t n, float* out) {
  const bool divides = divisor != 1.f, clamps = limit < INFINITY;
  const vec d = splat(divisor), top = splat(limit), bottom = splat(-limit);
  SV_EACH(n, i, m) {
    vec x = part(w + i, m);
    if (columns) x = mul(x, part(columns + i, m));
    if (divides) x = div(x, d);
    if (clamps) x = min(max(x, bottom), top);
    put(out + i, x, m);
  }
}

void range(const float* w, int64_t n, float* low, float* high) {
  const int64_t whole = n / kWide * kWide;
  vec least = splat(w[0]), most = least;
  for (int64_t i = 0; i < whole; i += kWide) {
    const vec x = load(w + i);
    least = min(least, x);
    most = max(most, x);
  }
  float lows[kWide], highs[kWide];
  store(lows, least);
  store(highs, most);
  *low = lows[0];
  *high = highs[0];
  for (int l = 1; l < kWide; l++) {
    *low = lows[l] < *low ? lows[l] : *low;
    *high = highs[l] > *high ? highs[l] : *high;
  }
  for (int64_t i = whole; i < n; i++) {
    *low = w[i] < *low ? w[i] : *low;
    *high = w[i] > *high ? w[i] : *high;
  }
}

/** Nearest whole number to a quotient, ties to even, from `zero` on, within 0 .. 15. */
inline double nearest(double quotient, double zero) {
  constexpr double kWhole = 6755399441055744.0;  // 1.5 * 2^52: from here on doubles are whole, adding rounds
  double x = quotient + kWhole - kWhole + zero;
  x = x > 0.0 ? x : 0.0;
  return x < 15.0 ? x : 15.0;
}

void levels(const float* w, int64_t n, float step, int zero, float* out) {
  // Rounding to f32 keeps order and 0.5 + k is an f32 number, so a quotient in f32 is on the right side of it, or on it.
  const vec s = splat(step), z = splat((float)zero), whole = splat(12582912.f), most = splat(32.f), least = splat(-32.f);
  vec furthest = splat(0.f);
  SV_EACH(n, i, m) {
    const vec q = min(max(div(part(w + i, m), s), least), most), r = sub(add(q, whole), whole), d = sub(q, r);
    furthest = max(furthest, max(d, sub(r, q)));
    put(out + i, min(max(add(r, z), splat(0.f)), splat(15.f)), m);
  }
  float ends[kWide];
  store(ends, furthest);
  bool tie = false;
  for (int l = 0; l < kWide; l++) tie |= ends[l] >= 0.5f;
  if (!tie) return;
  for (int64_t i = 0; i < n; i++) out[i] = (float)nearest((double)w[i] / (double)step, zero);
}

void narrow(const float* level, int64_t n, uint8_t* q) {
  for (int64_t i = 0; i < n; i++) q[i] = (uint8_t)(int)level[i];
}

void widen(const uint8_t* q, int64_t n, float* level) {
  for (int64_t i = 0; i < n; i++) level[i] = (float)(int)q[i];
}

void restore(const float* level, int64_t n, float step, int zero, const float* columns, float divisor, float* out) {
  const bool divides = divisor != 1.f;
  const vec s = splat(step), z = splat((float)zero), d = splat(divisor);
  SV_EACH(n, i, m) {
    vec x = mul(sub(part(level + i, m), z), s);
    if (columns) x = div(x, part(columns + i, m));
    if (divides) x = div(x, d);
    put(out + i, x, m);
  }
}

/** Eight rows; four of these are what feedback rounds side by side. */
typedef double wide __attribute__((vector_size(64), aligned(8)));
constexpr int64_t kVectors = kFeedbackRows / 8;

/** Columns j .. j + C - 1 of w less what inputs first .. end - 1 lost; those inputs' rows of w hold errors by now. */
template <int C>
void take_losses(double* w, int64_t j, int64_t first, int64_t end, const double* l, int64_t n) {
  wide sum[C][kVectors];
  for (int c = 0; c < C; c++)
    for (int v = 0; v < kVectors; v++) sum[c][v] = ((const wide*)(w + (j + c) * kFeedbackRows))[v];
  for (int64_t i = first; i < end; i++) {
    const auto* lost = (const wide*)(w + i * kFeedbackRows);
    for (int c = 0; c < C; c++) {
      const double f = l[(j + c) * n + i];
      for (int v = 0; v < kVectors; v++) sum[c][v] -= lost[v] * f;
    }
  }
  for (int c = 0; c < C; c++)
    for (int v = 0; v < kVectors; v++) ((wide*)(w + (j + c) * kFeedbackRows))[v] = sum[c][v];
}

void feedback(double* w, int64_t n, const double* l, int64_t group, const double* step, const double* zero, uint8_t* q) {
  constexpr int64_t R = kFeedbackRows, C = 4;  // columns that share the loads of earlier losses
  for (int64_t j = 0; j < n; j++) {
    const int64_t first = j / C * C;
    if (first + C > n) take_losses<1>(w, j, 0, j, l, n);
    else {
      if (j == first) take_losses<C>(w, j, 0, j, l, n);
      take_losses<1>(w, j, first, j, l, n);
    }
    const double *s = step + j / group * R, *z = zero + j / group * R, own = l[j * n + j];
    double* here = w + j * R;
    for (int64_t r = 0; r < R; r++) {
      const double level = nearest(here[r] / s[r], z[r]);
      here[r] = (here[r] - (level - z[r]) * s[r]) / own;
      q[j * R + r] = (uint8_t)(int)level;
    }
  }
}

void cholesky(double* t, int64_t n) {
  for (int64_t j = 0; j < n; j++) {
    double* row = t + j * n;
    for (int64_t k = 0; k < j; k++) {
      const double* from = t + k * n;
      const double factor = from[j];
      for (int64_t i = j; i < n; i++) row[i] -= from[i] * factor;
    }
    const double diagonal = sqrt(row[j] > 4.9406564584124654e-324 ? row[j] : 4.9406564584124654e-324);
    row[j] = diagonal;
    for (int64_t i = j + 1; i < n; i++) row[i] /= diagonal;
  }
}

void invert(const double* t, int64_t n, double* inverse) {
  for (int64_t i = 0; i < n; i++) {
    double* row = inverse + i * n;
    const double diagonal = t[i * n + i];
    for (int64_t k = 0; k < i; k++) {
      const double factor = t[k * n + i];
      const double* from = inverse + k * n;
      for (int64_t j = 0; j <= k; j++) row[j] -= factor * from[j];
    }
    for (int64_t j = 0; j < i; j++) row[j] /= diagonal;
    row[i] = 1.0 / diagonal;
  }
}

void square(const double* inverse, int64_t n, double* t) {
  for (int64_t k = 0; k < n; k++) {
    const double* row = inverse + k * n;
    for (int64_t j = 0; j <= k; j++) {
      const double factor = row[j];
      double* to = t + j * n;
      for (int64_t i = j; i <= k; i++) to[i] += row[i] * factor;
    }
  }
}

}  // namespace
}  // namespace SV_LEVEL

const QuantizeKernels SV_TABLE = {
    SV_LEVEL::scale, SV_LEVEL::range, SV_LEVEL::levels, SV_LEVEL::narrow, SV_LEVEL::widen, SV_LEVEL::restore,
    SV_LEVEL::feedback, SV_LEVEL::cholesky, SV_LEVEL::invert, SV_LEVEL::square};

}  // namespace sv
