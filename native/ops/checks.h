// Shape checks that several ops share. They protect memory; their messages reach the user as ERR_OP.
#pragma once
#include "../kernels/linear.h"
#include "shell.h"

namespace sv {

/** A packed matrix with k inputs (any when k < 0). */
inline Matrix packed(Op& op, const View& v, int64_t k, const char* name) {
  Matrix m;
  if (const char* why = op.device().find_matrix(v.data, v.bytes, &m)) fail(std::string(name) + ": " + why);
  if (k >= 0 && m.header.k != k)
    fail(std::string(name) + ": expected " + std::to_string(k) + " inputs, the matrix has " + std::to_string(m.header.k));
  return m;
}
/** A packed matrix with k inputs, packed gated or plain. */
inline Matrix packed(Op& op, const View& v, int64_t k, const char* name, bool gated) {
  const Matrix m = packed(op, v, k, name);
  if ((m.header.gated != 0) != gated) fail(std::string(name) + (gated ? ": expected a gated matrix" : ": expected one that is not gated"));
  return m;
}

inline void check_size(const View& v, int64_t n, const char* name, bool optional = false) {
  if (v.count() == n || (optional && v.count() == 0)) return;
  fail(std::string(name) + ": expected " + std::to_string(n) + " elements, received " + std::to_string(v.count()));
}

/** A KV tensor: uint8 [2, g, capacity, c * bytes per element]. */
inline KvCache kv_cache(const View& v, int64_t c) {
  require(v.dims.size() == 4 && v.dim(0) == 2, "kv: expected shape [2, kv heads, capacity, row bytes]");
  require(v.dim(3) == c * 2 || v.dim(3) == c * 4, "kv: rows hold neither bf16 nor f32 of this head width");
  return {v.raw(), v.dim(1), v.dim(2), c, v.dim(3) == c * 2};
}

/** Sizes of a delta layer: key heads, value heads, their widths, taps. */
inline DeltaSizes delta_sizes(const int32_t* s) {
  for (int i = 0; i < 5; i++) require(s[i] > 0 && s[i] <= 1 << 16, "delta: expected positive sizes of at most 65536");
  require(s[1] % s[0] == 0, "delta: expected value heads that divide over the key heads");
  require(s[4] <= kMostTaps, "delta: expected a convolution over at most 16 rows");
  return {s[0], s[1], s[2], s[3], s[4]};
}
/** A state: uint8, as `SvStateAlloc` makes it. */
inline float* delta_state(const View& v, const DeltaSizes& sizes) {
  check_size(v, sizes.state_floats() * 4, "state");
  return reinterpret_cast<float*>(v.raw());
}

/** The rows that a query sees: `rows` ascending in [0, tail), then [tail, length + t). Where the host cannot read rows, whoever
 *  made them has checked them, and kernels read none outside [0, tail). */
inline void check_rows(Op& op, const View& rows, int64_t tail, int64_t length, int64_t t, int64_t capacity) {
  require(tail >= 0 && tail <= length, "expected 0 <= tail <= length");
  if (length < 0 || length + t > capacity)
    fail("kv capacity exceeded: " + std::to_string(length + t) + " rows needed, " + std::to_string(capacity) + " there");
  if (!op.device().is_host()) return;
  const int32_t* r = rows.i32();
  for (int64_t i = 0; i < rows.count(); i++)
    if (r[i] < 0 || r[i] >= tail || (i && r[i] <= r[i - 1])) fail("rows: expected ascending indices below the tail");
}

/** Where the host cannot read spans, kernels read no row outside. */
inline void check_spans(Op& op, const int32_t* spans, int64_t t, int64_t rows) {
  if (!op.device().is_host()) return;
  for (int64_t i = 0; i < t; i++) {
    const int32_t from = spans[2 * i], to = spans[2 * i + 1];
    if (from < 0 || from >= to || to > rows)
      fail("spans: expected 0 <= from < to <= " + std::to_string(rows) + ", received " + std::to_string(from) + " and " + std::to_string(to));
  }
}
/** Masks int32 [t, 2]: query i sees rows [from, to) of `rows`. Null when empty. */
inline const int32_t* read_spans(Op& op, const View& spans, int64_t t, int64_t rows) {
  if (spans.count() == 0) return nullptr;
  require(spans.dims.size() == 2 && spans.dim(0) == t && spans.dim(1) == 2, "spans: expected [t, 2]");
  check_spans(op, spans.i32(), t, rows);
  return spans.i32();
}

/** An input of vectors side by side, each filled up to a multiple of 16 floats. Bit i of `present` says whether the i-th is there. */
class Vectors {
 public:
  Vectors(const View& all, int32_t present) : all_(all), present_((uint32_t)present) {}
  /** The next one, of n floats; null when it is absent. Not to be read before `finish`. */
  const float* operator()(int64_t n) {
    const bool is_there = present_ & 1;
    present_ >>= 1;
    if (!is_there) return nullptr;
    const float* vector = all_.f32() + used_;
    used_ += (n + kLanes - 1) / kLanes * kLanes;
    return vector;
  }
  const float* required(int64_t n) {
    const float* vector = (*this)(n);
    require(vector, "vectors: a required one is absent");
    return vector;
  }
  void finish() const {
    require(present_ == 0, "vectors: more than expected");
    check_size(all_, used_, "vectors");
  }

 private:
  const View& all_;
  uint32_t present_;
  int64_t used_ = 0;
};

}  // namespace sv
