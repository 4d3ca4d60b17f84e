// Shape checks that several ops share. They protect memory; friendly messages come from TypeScript, before the op runs.
#pragma once
#include "../kernels/linear.h"
#include "shell.h"

namespace sv {

/** A packed matrix with k inputs (any when k < 0). */
inline const PackedHeader& packed(const View& v, int64_t k, const char* name) {
  if (const char* why = check_packed(v.data, v.bytes)) fail(std::string(name) + ": " + why);
  const auto& h = *static_cast<const PackedHeader*>(v.data);
  if (k >= 0 && h.k != k)
    fail(std::string(name) + ": expected " + std::to_string(k) + " inputs, the matrix has " + std::to_string(h.k));
  return h;
}
/** The same, packed gated or plain. */
inline const PackedHeader& packed(const View& v, int64_t k, const char* name, bool gated) {
  const PackedHeader& h = packed(v, k, name);
  if ((h.gated != 0) != gated) fail(std::string(name) + (gated ? ": expected a gated matrix" : ": expected one that is not gated"));
  return h;
}

inline void check_size(const View& v, int64_t n, const char* name, bool optional = false) {
  if (v.count() == n || (optional && v.count() == 0)) return;
  fail(std::string(name) + ": expected " + std::to_string(n) + " elements, received " + std::to_string(v.count()));
}

/** A KV tensor: uint8 [2, g, capacity, c * bytes per element]. */
struct KvView { char* data; int64_t kv_heads, capacity, row_stride; bool bf16; };
inline KvView kv_view(const View& v, int64_t c) {
  require(v.dims.size() == 4 && v.dim(0) == 2, "kv: expected shape [2, kv heads, capacity, row bytes]");
  require(v.dim(3) == c * 2 || v.dim(3) == c * 4, "kv: rows hold neither bf16 nor f32 of this head width");
  return {v.raw(), v.dim(1), v.dim(2), v.dim(3), v.dim(3) == c * 2};
}

/** The rows that a query sees: `rows` ascending in [0, tail), then [tail, length + t). */
inline void check_rows(const View& rows, int64_t tail, int64_t length, int64_t t, int64_t capacity) {
  require(tail >= 0 && tail <= length, "expected 0 <= tail <= length");
  if (length < 0 || length + t > capacity)
    fail("kv capacity exceeded: " + std::to_string(length + t) + " rows needed, " + std::to_string(capacity) + " there");
  const int32_t* r = rows.i32();
  for (int64_t i = 0; i < rows.count(); i++)
    if (r[i] < 0 || r[i] >= tail || (i && r[i] <= r[i - 1])) fail("rows: expected ascending indices below the tail");
}

}  // namespace sv
