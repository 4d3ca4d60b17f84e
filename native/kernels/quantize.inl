// The loops of quantize.h, plain C++ that the compiler vectorises: every operation rounds on its own and none is reordered, so
// all levels give the same bits. The including file defines SV_LEVEL (the namespace) and SV_TABLE.
#include <math.h>

#include "quantize.h"

namespace sv {
namespace SV_LEVEL {
namespace {

/** From here on doubles are whole: adding it rounds to nearest, ties to even. */
constexpr double kWhole = 6755399441055744.0;  // 1.5 * 2^52

inline float clamped(float w, float limit) {
  w = w < -limit ? -limit : w;
  return w > limit ? limit : w;
}

void scale(const float* w, const float* columns, float divisor, float limit, int64_t n, float* out) {
  if (columns) for (int64_t i = 0; i < n; i++) out[i] = clamped(w[i] * columns[i] / divisor, limit);
  else for (int64_t i = 0; i < n; i++) out[i] = clamped(w[i] / divisor, limit);
}

void range(const float* w, int64_t n, float* low, float* high) {
  constexpr int kWide = 16;
  float lows[kWide], highs[kWide];
  for (int l = 0; l < kWide; l++) lows[l] = highs[l] = w[0];
  int64_t i = 0;
  for (; i + kWide <= n; i += kWide)
    for (int l = 0; l < kWide; l++) {
      lows[l] = w[i + l] < lows[l] ? w[i + l] : lows[l];
      highs[l] = w[i + l] > highs[l] ? w[i + l] : highs[l];
    }
  for (; i < n; i++) {
    lows[0] = w[i] < lows[0] ? w[i] : lows[0];
    highs[0] = w[i] > highs[0] ? w[i] : highs[0];
  }
  for (int l = 1; l < kWide; l++) {
    lows[0] = lows[l] < lows[0] ? lows[l] : lows[0];
    highs[0] = highs[l] > highs[0] ? highs[l] : highs[0];
  }
  *low = lows[0];
  *high = highs[0];
}

inline double nearest(double quotient, double zero) {
  double x = quotient + kWhole - kWhole + zero;
  x = x > 0.0 ? x : 0.0;
  return x < 15.0 ? x : 15.0;
}

void round_group(const float* w, int64_t n, float step, int zero, uint8_t* q) {
  const double s = step, z = zero;  // in f32 a quotient could round onto a tie
  for (int64_t i = 0; i < n; i++) q[i] = (uint8_t)(int)nearest((double)w[i] / s, z);
}

void restore(const uint8_t* q, int64_t n, float step, int zero, const float* columns, float divisor, float* out) {
  if (columns) for (int64_t i = 0; i < n; i++) out[i] = (float)((int)q[i] - zero) * step / columns[i] / divisor;
  else for (int64_t i = 0; i < n; i++) out[i] = (float)((int)q[i] - zero) * step / divisor;
}

void feedback(double* w, int64_t n, const double* l, int64_t group, const double* step, const double* zero, uint8_t* q) {
  constexpr int64_t R = kFeedbackRows;
  for (int64_t j = 0; j < n; j++) {
    const double *f = l + j * n, *s = step + j / group * R, *z = zero + j / group * R;
    double sum[R], level[R];
    for (int64_t r = 0; r < R; r++) sum[r] = w[j * R + r];
    for (int64_t i = 0; i < j; i++)  // what the inputs before it lost: their rows of w hold errors by now
      for (int64_t r = 0; r < R; r++) sum[r] -= w[i * R + r] * f[i];
    for (int64_t r = 0; r < R; r++) level[r] = nearest(sum[r] / s[r], z[r]);
    for (int64_t r = 0; r < R; r++) w[j * R + r] = (sum[r] - (level[r] - z[r]) * s[r]) / f[j];
    for (int64_t r = 0; r < R; r++) q[j * R + r] = (uint8_t)(int)level[r];
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
    SV_LEVEL::scale,    SV_LEVEL::range,    SV_LEVEL::round_group, SV_LEVEL::restore,
    SV_LEVEL::feedback, SV_LEVEL::cholesky, SV_LEVEL::invert,      SV_LEVEL::square,
};

}  // namespace sv
