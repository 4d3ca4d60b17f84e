// SvQuantize, SvPackRounded, SvPackGrid, SvClipLimits, SvFeedbackRound: the operations on whole matrices that making a 4-bit checkpoint
// repeats. Matrices are passed as sources, so that JavaScript's arrays are read in place; bytes are returned four to an int32.
#include "../kernels/quantize.h"

#include "checks.h"
#include "source.h"

namespace sv {
namespace {

/** `n` elements of `size` bytes: a whole source. */
template <class T>
const T* whole(int32_t id, int64_t n, const char* what) {
  const Source& s = source(id);
  if (s.bytes() != n * (int64_t)sizeof(T))
    fail(std::string(what) + ": expected " + std::to_string(n * (int64_t)sizeof(T)) + " bytes, received " +
         std::to_string(s.bytes()));
  return reinterpret_cast<const T*>(s.data());
}

constexpr int kHead = 3, kPart = 2;

/** recipe: [group, symmetric, k, then per matrix: source, rows]; columns [k] and divisors [rows] may be empty. */
struct Recipe {
  Rounding rounding;
  int64_t k, groups;
  std::vector<ScaledMatrix> matrices;
};
Recipe read_recipe(const View& recipe, const View& columns, const View* divisors) {
  const int32_t* r = recipe.i32();
  require(recipe.count() >= kHead + kPart && (recipe.count() - kHead) % kPart == 0, "recipe: wrong length");
  require(r[0] > 0 && r[2] > 0, "recipe: expected a group and inputs of at least 1");
  Recipe out = {{r[0], r[1] != 0}, r[2], (r[2] + r[0] - 1) / r[0], {}};
  check_size(columns, out.k, "columns", true);
  for (const int32_t* p = r + kHead; p < r + recipe.count(); p += kPart) {
    require(p[1] > 0, "recipe: a matrix without rows");
    if (divisors) check_size(*divisors, p[1], "divisors", true);
    const float* w = whole<float>(p[0], p[1] * out.k, "matrix");
    out.matrices.push_back({w, p[1], out.k, columns.optional(), divisors ? divisors->optional() : nullptr, nullptr});
  }
  require(!divisors || out.matrices.size() == 1, "recipe: expected one matrix");
  return out;
}

/** n bytes, four to an int32. */
View bytes_output(Op& op, int i, int64_t n) { return op.output(i, TF_INT32, {(n + 3) / 4}); }

/** A packed f32 matrix [rows, k], made on the host. */
void packed_output(Op& op, int64_t rows, int64_t k, const Fill& body) {
  const int64_t bytes = packed_rounded_bytes(rows, k);
  op.device().fill_matrix(op.output(0, TF_UINT8, {bytes}).data, bytes, body);
}

/** -> q [rows, k] as bytes, step f32 [rows, groups], zero [rows, groups] as bytes. limits f32 [rows, groups] or [0]. */
void quantize_op(Op& op) {
  const View recipe = op.input(0, 1), columns = op.input(1), divisors = op.input(2), limits = op.input(3);
  Recipe r = read_recipe(recipe, columns, &divisors);
  ScaledMatrix& m = r.matrices[0];
  check_size(limits, m.rows * r.groups, "limits", true);
  m.limits = limits.optional();
  const View q = bytes_output(op, 0, m.rows * r.k), step = op.output(1, {m.rows, r.groups});
  const View zero = bytes_output(op, 2, m.rows * r.groups);
  quantize(m, r.rounding, (uint8_t*)q.raw(), {step.f32(), (uint8_t*)zero.raw()});
}

/** -> the packed f32 matrix Q(W diag(columns)) diag(1 / columns) of all matrices stacked. */
void pack_rounded_op(Op& op) {
  const View recipe = op.input(0, 1), columns = op.input(1);
  const Recipe r = read_recipe(recipe, columns, nullptr);
  int64_t rows = 0;
  for (const ScaledMatrix& m : r.matrices) rows += m.rows;
  packed_output(op, rows, r.k, [&](void* out) { pack_rounded(r.matrices.data(), (int)r.matrices.size(), r.rounding, out); });
}

/** recipe: [group, k, then per matrix: sources of q, step and zero, rows] -> packed f32 (q - zero) step / columns / divisors. */
void pack_grid_op(Op& op) {
  const View recipe = op.input(0, 1), columns = op.input(1), divisors = op.input(2);
  const int32_t* r = recipe.i32();
  require(recipe.count() >= 6 && (recipe.count() - 2) % 4 == 0 && r[0] > 0 && r[1] > 0, "recipe: wrong length, group or inputs");
  const int64_t group = r[0], k = r[1], groups = (k + group - 1) / group;
  std::vector<GridMatrix> parts;
  int64_t rows = 0;
  for (const int32_t* p = r + 2; p < r + recipe.count(); p += 4) {
    const int64_t n = p[3];
    require(n > 0, "recipe: a matrix without rows");
    parts.push_back({whole<uint8_t>(p[0], n * k, "q"), whole<float>(p[1], n * groups, "step"),
                     whole<uint8_t>(p[2], n * groups, "zero"), n});
    rows += n;
  }
  check_size(columns, k, "columns", true);
  check_size(divisors, rows, "divisors", true);
  packed_output(op, rows, k, [&](void* out) {
    pack_grid(parts.data(), (int)parts.size(), k, group, columns.optional(), divisors.optional(), out);
  });
}

/** Elements of the Gram matrices of all blocks. */
int64_t gram_elements(int64_t k, int64_t block) {
  const int64_t rest = k % block;
  return k / block * block * block + rest * rest;
}

/** grams: per group f32 [n, n] -> limits f32 [rows, groups]. */
void clip_limits_op(Op& op) {
  const View recipe = op.input(0, 1), columns = op.input(1), divisors = op.input(2), grams = op.input(3);
  const Recipe r = read_recipe(recipe, columns, &divisors);
  check_size(grams, gram_elements(r.k, r.rounding.group), "grams");
  const View limits = op.output(0, {r.matrices[0].rows, r.groups});
  clip_limits(r.matrices[0], r.rounding, grams.f32(), limits.f32());
}

/** grid: [block, sources of step and zero]; grams: per block f32 [n, n] -> q [rows, k] as bytes. */
void feedback_round_op(Op& op) {
  const View recipe = op.input(0, 1), columns = op.input(1), divisors = op.input(2), grid = op.input(3, 1), grams = op.input(4);
  const Recipe r = read_recipe(recipe, columns, &divisors);
  const ScaledMatrix& m = r.matrices[0];
  require(grid.count() == 3, "grid: expected [block, step, zero]");
  const int64_t block = grid.i32()[0];
  require(block > 0 && (block % r.rounding.group == 0 || block >= r.k), "grid: expected blocks of whole groups");
  check_size(grams, gram_elements(r.k, block), "grams");
  const auto* step = whole<float>(grid.i32()[1], m.rows * r.groups, "step");
  const auto* zero = whole<uint8_t>(grid.i32()[2], m.rows * r.groups, "zero");
  const View q = bytes_output(op, 0, m.rows * r.k);
  feedback_round(m, r.rounding, step, zero, block, grams.f32(), (uint8_t*)q.raw());
}

}  // namespace

void register_quantize() {
  const Port recipe = "recipe: int32", columns = on_host("columns: float"), divisors = on_host("divisors: float");
  const Port grams = on_host("grams: float"), limits = on_host("limits: float");
  register_op<quantize_op>("SvQuantize", {recipe, columns, divisors, limits}, {"q: int32", on_host("step: float"), "zero: int32"}, true);
  register_op<pack_rounded_op>("SvPackRounded", {recipe, columns}, {"packed: uint8"}, true);
  register_op<pack_grid_op>("SvPackGrid", {recipe, columns, divisors}, {"packed: uint8"}, true);
  register_op<clip_limits_op>("SvClipLimits", {recipe, columns, divisors, grams}, {limits}, true);
  register_op<feedback_round_op>("SvFeedbackRound", {recipe, columns, divisors, "grid: int32", grams}, {"q: int32"}, true);
}

}  // namespace sv
