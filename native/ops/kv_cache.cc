// SvKvAlloc, SvKvCopy, SvKvAppend, SvKvRead: the cache is made, written and read by ops only, because TensorFlow keeps host copies of
// tensors that JavaScript reads, and a copy would go stale when an append writes in place.
#include "checks.h"

namespace sv {
namespace {

/** shape int32 [kv heads, capacity, c, bytes per element] -> uint8 [2, g, capacity, c * bytes], not initialized. */
void alloc_op(Op& op) {
  const View shape = op.input(0);
  check_size(shape, 4, "shape");
  const int32_t* s = shape.i32();
  require(s[0] > 0 && s[1] > 0 && s[2] > 0 && (s[3] == 2 || s[3] == 4), "shape: expected positive sizes, 2 or 4 bytes");
  op.device().forget_matrix(op.output(0, TF_UINT8, {2, s[0], s[1], (int64_t)s[2] * s[3]}).data);
}

/** size int32 [rows, capacity, c] -> a cache of `capacity` rows, the first `rows` of which are those of kv; the others are not initialized. */
void copy_op(Op& op) {
  const View kv = op.input(0), size = op.input(1);
  check_size(size, 3, "size");
  const int64_t rows = size.i32()[0], capacity = size.i32()[1], c = size.i32()[2];
  const KvCache from = kv_cache(kv, c);
  require(rows >= 0 && rows <= from.capacity && rows <= capacity && capacity > 0, "size: expected rows of at most both capacities");
  const View copy = op.output(0, TF_UINT8, {2, from.heads, capacity, kv.dim(3)});
  op.device().forget_matrix(copy.data);
  op.device().kv_copy(from, rows, kv_cache(copy, c));
}

/** Writes k, v f32 [t, g, c] at rows [at, at + t). */
void append_op(Op& op) {
  const View kv = op.input(0), k = op.input(1, 3), v = op.input(2, 3), at = op.input(3);
  check_size(at, 1, "at");
  const int64_t t = k.dim(0), g = k.dim(1), c = k.dim(2), row = at.i32()[0];
  const KvCache cache = kv_cache(kv, c);
  require(k.dims == v.dims && g == cache.heads, "k, v: expected [t, kv heads, c]");
  if (row < 0 || row + t > cache.capacity)
    fail("kv capacity exceeded: rows " + std::to_string(row) + " to " + std::to_string(row + t) + " of " + std::to_string(cache.capacity));
  op.device().kv_write(cache, row, k.f32(), v.f32(), g * c, t);
}

/** range int32 [begin, end, c] -> f32 [2, g, end - begin, c]. */
void read_op(Op& op) {
  const View kv = op.input(0), range = op.input(1);
  check_size(range, 3, "range");
  const int64_t begin = range.i32()[0], end = range.i32()[1], c = range.i32()[2];
  const KvCache cache = kv_cache(kv, c);
  require(begin >= 0 && begin <= end && end <= cache.capacity, "range: expected 0 <= begin <= end <= capacity");
  const View y = op.output(0, {2, cache.heads, end - begin, c});
  op.device().kv_read(cache, begin, end, y.f32());
}

}  // namespace

void register_kv_cache() {
  register_op<alloc_op>("SvKvAlloc", {"shape: int32"}, {"kv: uint8"}, true);
  register_op<copy_op>("SvKvCopy", {"kv: uint8", "size: int32"}, {"copy: uint8"}, true);
  register_op<append_op>("SvKvAppend", {"kv: uint8", "k: float", "v: float", "at: int32"}, {}, true);
  register_op<read_op>("SvKvRead", {"kv: uint8", "range: int32"}, {"y: float"}, true);
}

}  // namespace sv
