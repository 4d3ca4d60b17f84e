// SvPack, SvPackInt8 and SvLoad: tensors straight from a source (a checkpoint file), without JavaScript arrays in between.
#include <string.h>

#include "../kernels/int8.h"
#include "../kernels/linear.h"
#include "checks.h"
#include "packed_file.h"
#include "source.h"

namespace sv {
namespace {

/** Elements of a shape, which must fit into memory. */
int64_t product(const std::vector<int64_t>& dims) {
  int64_t n = 1;
  for (const int64_t d : dims) {
    if (d < 0 || __builtin_mul_overflow(n, d, &n)) fail("recipe: expected sizes of 0 or more whose product fits into memory");
  }
  return n;
}

/** `n` elements of `size` bytes at an offset of a source, bounds-checked. */
const char* elements(const Source& s, int64_t offset, int64_t n, int64_t size) {
  if (offset < 0 || n < 0 || n > s.bytes() || offset > s.bytes() - n * size)
    fail("tensor lies outside its file: bytes " + std::to_string(offset) + " to " +
         std::to_string((uint64_t)offset + (uint64_t)n * (uint64_t)size) + " of " + std::to_string(s.bytes()));
  return s.data() + offset;
}

int64_t float_bytes(int32_t type) {
  require(type >= kF32 && type <= kBf16, "unknown weight type");
  return weight_bytes(type);
}

void widen(const char* from, int64_t n, int32_t type, float* to) {
  if (n == 0) return;
  if (type == kF32) memcpy(to, from, (size_t)n * 4);
  else (type == kBf16 ? kernels().from_bf16 : kernels().from_f16)(from, n, to);
}

/** recipe: [type, gated, dot, k, then per part: source, offset (2 words), type, rows], place: see packed_file.h -> packed bytes. */
void pack_op(Op& op) {
  const View recipe = op.input(0, 1);
  const int32_t* r = recipe.i32();
  require(recipe.count() >= 9 && (recipe.count() - 4) % 5 == 0, "recipe: wrong length");
  const int64_t k = r[3];
  const int count = (int)((recipe.count() - 4) / 5);
  require(r[0] >= kF32 && r[0] <= kBf16 && k > 0, "recipe: bad type or k");
  std::vector<WeightPart> parts;
  for (int i = 0; i < count; i++) {
    const int32_t* p = r + 4 + 5 * i;
    require(p[4] > 0, "recipe: a part without rows");
    parts.push_back({elements(source(p[0]), wide(p + 1), p[4] * k, float_bytes(p[3])), p[3], p[4]});
  }
  require(!r[1] || (count == 2 && parts[0].rows == parts[1].rows), "recipe: gated needs two parts of equal rows");
  const int64_t bytes = packed_bytes(parts.data(), count, k, r[0], r[1]);
  packed_output(op, op.input(1, 1), bytes, [&](void* out) { pack(parts.data(), count, k, r[0], r[1], r[2], out); });
  for (int i = 0; i < count; i++) source(r[4 + 5 * i]).check();
}

/** recipe: [source, offset (2 words), type, dims...] -> f32 tensor. */
void load_op(Op& op) {
  const View recipe = op.input(0, 1);
  const int32_t* r = recipe.i32();
  require(recipe.count() >= 4, "recipe: wrong length");
  const std::vector<int64_t> dims(r + 4, r + recipe.count());
  const int64_t n = product(dims);
  const char* p = elements(source(r[0]), wide(r + 1), n, float_bytes(r[3]));
  const View y = op.output(0, dims);
  op.device().fill(y.data, n * 4, [&](void* out) { widen(p, n, r[3], static_cast<float*>(out)); });
  source(r[0]).check();
}

/** recipe: [k, gated, then per part: source, offset (2 words), type, rows, scales' source, offset (2 words), scales' type], place ->
 *  packed 8-bit matrix. type 4 (int8) takes its scales [rows] from the file; a float part is rounded here and has no scales (-1). */
void pack_int8_op(Op& op) {
  const View recipe = op.input(0, 1);
  const int32_t* r = recipe.i32();
  require(recipe.count() >= 11 && (recipe.count() - 2) % 9 == 0 && r[0] > 0, "recipe: wrong length or k");
  const int64_t k = r[0];
  const bool gated = r[1];
  const int count = (int)((recipe.count() - 2) / 9);
  std::vector<Int8Part> parts;
  std::vector<std::vector<float>> scales((size_t)count);
  for (int i = 0; i < count; i++) {
    const int32_t* p = r + 2 + 9 * i;
    const int64_t rows = p[4];
    require(rows > 0, "recipe: a part without rows");
    parts.push_back({elements(source(p[0]), wide(p + 1), rows * k, p[3] == kInt8 ? 1 : float_bytes(p[3])), p[3], rows, nullptr});
    if (p[3] != kInt8) continue;
    scales[i].resize((size_t)rows);
    widen(elements(source(p[5]), wide(p + 6), rows, float_bytes(p[8])), rows, p[8], scales[i].data());
    source(p[5]).check();
    for (int64_t j = 0; j < rows; j++)
      if (!(scales[i][j] - scales[i][j] == 0)) fail("scale " + std::to_string(j) + " of part " + std::to_string(i) + " is not finite");
    parts.back().scales = scales[i].data();
  }
  require(!gated || (count == 2 && parts[0].rows == parts[1].rows), "gated: expected two parts of equal rows");
  const int64_t bytes = packed_int8_bytes(parts.data(), count, k, gated);
  packed_output(op, op.input(1, 1), bytes, [&](void* out) { pack_int8(parts.data(), count, k, gated, out); });
  for (int i = 0; i < count; i++) source(r[2 + 9 * i]).check();
}

}  // namespace

void register_weights() {
  register_op<pack_int8_op>("SvPackInt8", {"recipe: int32", "place: int32"}, {"packed: uint8"}, true);
  register_op<pack_op>("SvPack", {"recipe: int32", "place: int32"}, {"packed: uint8"}, true);
  register_op<load_op>("SvLoad", {"recipe: int32"}, {"y: float"}, true);
}

}  // namespace sv
