// Making 4-bit matrices: rounding to groups of 16 steps, the search for tighter ranges, and rounding with error feedback.
// Row-major matrices in and out; knows neither file formats nor which layer a matrix belongs to.
// The definitions are spec/quantize/reference.ts, whose bits these have at every instruction-set level.
#pragma once
#include "kernels.h"

namespace sv {

/** Inputs that share a step; zero: range -8 .. 7 around 0 where symmetric, else between the group's ends. */
struct Rounding {
  int64_t group;
  bool symmetric;
};

/** The f32 matrix [rows, k] that is rounded: w columns[i] / divisors[row], each at most its group's limit in magnitude. */
struct ScaledMatrix {
  const float* w;
  int64_t rows, k;
  const float* columns;   // [k], or null for 1
  const float* divisors;  // [rows], or null for 1
  const float* limits;    // [rows, groups], or null for none
};

/** Per row and group a step (a binary16 number) and the nibble that stands for 0: w ~ (q - zero) step. */
struct Grid {
  float* step;
  uint8_t* zero;
};

/** q [rows, k], one nibble per byte, to nearest. */
void quantize(const ScaledMatrix&, const Rounding&, uint8_t* q, Grid);

/** The dequantized matrix, with its scaling undone: (q - zero) step / columns[i] / divisors[row]. */
struct GridMatrix {
  const uint8_t* q;
  const float* step;
  const uint8_t* zero;
  int64_t rows;
};
int64_t packed_rounded_bytes(int64_t rows, int64_t k);
/** Parts stacked by rows -> a packed f32 matrix; divisors [all rows], or null. */
void pack_grid(const GridMatrix* parts, int count, int64_t k, int64_t group, const float* columns, const float* divisors,
               void* out);
/** Q(W diag(columns)) diag(1 / columns) of parts stacked by rows, packed likewise; divisors are not looked at. */
void pack_rounded(const ScaledMatrix* parts, int count, const Rounding&, void* out);

/**
 * limits [rows, groups]: the largest magnitude of each group times the factor of 1, 0.95 .. 0.55 with the smallest
 * d^T H d, d being the error of clamping and rounding. grams: the H of each group, f32 [n, n], concatenated.
 */
void clip_limits(const ScaledMatrix&, const Rounding&, const float* grams, float* limits);

/**
 * Rounds to a given grid; the error of a weight is compensated by the following weights of its block of inputs.
 * grams: the H of each block of `block` inputs, f32 [n, n], concatenated. (GPTQ, arXiv 2210.17323.)
 */
void feedback_round(const ScaledMatrix&, const Rounding&, const float* step, const uint8_t* zero, int64_t block,
                    const float* grams, uint8_t* q);

inline int64_t groups_of(int64_t k, int64_t group) { return (k + group - 1) / group; }
/** Columns begin .. begin + n - 1 of a row, within one group, as they are rounded. */
void scaled_part(const ScaledMatrix&, int64_t group, int64_t row, int64_t begin, int64_t n, float* out);

/** Rows that feedback rounds side by side. */
constexpr int64_t kFeedbackRows = 32;

/** The loops of one instruction-set level; one group of n values, or one block of columns. */
struct QuantizeKernels {
  /** out = w columns / divisor, clamped to +-limit; no columns: 1. */
  void (*scale)(const float* w, const float* columns, float divisor, float limit, int64_t n, float* out);
  void (*range)(const float* w, int64_t n, float* low, float* high);
  /** Nibbles to nearest, as floats; out is not w. */
  void (*levels)(const float* w, int64_t n, float step, int zero, float* out);
  /** Nibbles as bytes and back. */
  void (*narrow)(const float* level, int64_t n, uint8_t* q);
  void (*widen)(const uint8_t* q, int64_t n, float* level);
  /** out = (level - zero) step / columns / divisor; out may be level. */
  void (*restore)(const float* level, int64_t n, float step, int zero, const float* columns, float divisor, float* out);
  /** w [n][kFeedbackRows] is used up; l [n, n]: the factor's transpose; step and zero [n / group][kFeedbackRows]; q as w. */
  void (*feedback)(double* w, int64_t n, const double* l, int64_t group, const double* step, const double* zero, uint8_t* q);
  /** Lower Cholesky factor, transposed: t[j][i] = L[i][j]. Of t its upper triangle is read. */
  void (*cholesky)(double* t, int64_t n);
  /** inverse [n, n] = L^-1, zero on entry. */
  void (*invert)(const double* t, int64_t n, double* inverse);
  /** t[j][i] += sum_k inverse[k][i] inverse[k][j], i >= j. */
  void (*square)(const double* inverse, int64_t n, double* t);
};
extern const QuantizeKernels quantize_portable;
#if defined(__x86_64__)
extern const QuantizeKernels quantize_avx2, quantize_avx512;
#elif defined(__aarch64__)
extern const QuantizeKernels quantize_neon;
#endif
/** The loops of the level in use. */
const QuantizeKernels& quantize_kernels();

}  // namespace sv
