// SvPackInt4: 4-bit matrices from a checkpoint, in any of the file formats, to the internal form.
// SvDequantize: rows of any packed matrix, widened.
#include <string.h>

#include "../kernels/int4_formats.h"
#include "checks.h"
#include "packed_file.h"
#include "source.h"

namespace sv {
namespace {

constexpr int kHead = 7, kPart = 16;  // words of a recipe

/** [source, offset (2 words)] -> `bytes` bytes there, bounds-checked; null when the source is -1. */
const char* region(const int32_t* r, int64_t bytes, const char* what) {
  if (r[0] == -1) return nullptr;
  const int64_t offset = wide(r + 1);
  const Source& s = source(r[0]);
  if (offset < 0 || bytes < 0 || bytes > s.bytes() || offset > s.bytes() - bytes)
    fail(std::string(what) + " lie outside their file: bytes " + std::to_string(offset) + " to " +
         std::to_string((uint64_t)offset + (uint64_t)bytes) + " of " + std::to_string(s.bytes()));
  return s.data() + offset;
}

/** Throws when a file of a part has changed. */
void check_sources(const int32_t* part) {
  for (int i = 1; i < kPart; i += 3)
    if (part[i] != -1) source(part[i]).check();
}

[[noreturn]] void bad_element(int part, const char* what, int64_t index, const char* why) {
  fail("part " + std::to_string(part) + ": " + what + ": element " + std::to_string(index) + " is " + why);
}

/** Act-order is the one thing that nibbles and scales do not show: input i must belong to group i / g. */
void check_group_index(const char* g_idx, const Int4File& f, int part) {
  for (int64_t i = 0; g_idx && i < f.k; i++) {
    int32_t group;
    memcpy(&group, g_idx + i * 4, 4);
    if (group == i / f.group) continue;
    const std::string why = "group " + std::to_string(group) + ", expected " + std::to_string(i / f.group);
    bad_element(part, "g_idx", i, (why + "; activation order (desc_act, actorder) is not supported").c_str());
  }
}

void check_shape(const char* shape, const Int4File& f, int part) {
  int64_t dims[2] = {f.rows, f.k};
  if (shape) memcpy(dims, shape, sizeof dims);
  if (dims[0] != f.rows || dims[1] != f.k)
    fail("part " + std::to_string(part) + ": weight_shape: it says [" + std::to_string(dims[0]) + "," +
         std::to_string(dims[1]) + "], expected [" + std::to_string(f.rows) + "," + std::to_string(f.k) + "]");
}

/** One part of the recipe, its bounds and its values checked. */
Int4File read_part(const int32_t* r, const int32_t* p, int part) {
  Int4File f = {};
  f.format = r[0];
  f.rows = p[0];
  f.k = r[3];
  f.group = r[4];
  f.stored = r[5];
  f.scale_type = r[6];
  f.scale_bf16 = f.scale_type == kBf16;
  static const char present = 0;
  f.zero = p[7] == -1 ? nullptr : &present;
  if (const char* why = check_int4(f)) fail("part " + std::to_string(part) + ": weight: " + why);
  const Int4Extents bytes = int4_extents(f);
  f.weight = region(p + 1, bytes.weight, "packed weights");
  f.scale = region(p + 4, bytes.scale, "scales");
  f.zero = region(p + 7, bytes.zero, "zeros");
  require(f.weight && f.scale, "recipe: a part without weights or scales");
  const char* broken = "NaN or infinite";
  const int64_t n = bytes.scale / weight_bytes(f.scale_type), bad = first_not_finite(f.scale, f.scale_type, n);
  if (bad >= 0) bad_element(part, "scales", bad, broken);
  const int64_t zero = int4_zero_scaled(f.format) ? first_not_finite(f.zero, kF16, bytes.zero / 2) : -1;
  if (zero >= 0) bad_element(part, "zeros", zero, broken);
  check_group_index(region(p + 10, f.k * 4, "group indices"), f, part);
  check_shape(region(p + 13, 16, "weight shapes"), f, part);
  return f;
}

/** f32 scales are stored as f16 or bf16, whichever holds every one of them exactly. */
bool narrow_scales(std::vector<Int4File>& files) {
  if (files[0].scale_type != kF32) return files[0].scale_bf16;
  int part = 0;
  int64_t bad = -1;
  for (const bool bf16 : {false, true}) {
    bad = -1;
    for (size_t i = 0; i < files.size() && bad < 0; i++) {
      files[i].scale_bf16 = bf16;
      bad = first_inexact(files[i].scale, int4_extents(files[i]).scale / 4, bf16);
      part = (int)i;
    }
    if (bad < 0) return bf16;
  }
  bad_element(part, "scales", bad, "an f32 that neither f16 nor bf16 holds for the whole matrix; store the scales in one of them");
}

/** recipe: [format, gated, planes, k, group, stored group, type of scales, then per part: rows, and source and offset
 *  (2 words) of weight, scales, zeros, g_idx, weight_shape; source -1 where there is none], place: see packed_file.h -> packed bytes. */
void pack_int4_op(Op& op) {
  const View recipe = op.input(0, 1);
  const int32_t* r = recipe.i32();
  require(recipe.count() >= kHead + kPart && (recipe.count() - kHead) % kPart == 0, "recipe: wrong length");
  const int count = (int)((recipe.count() - kHead) / kPart);
  require(r[2] == 1 || r[2] == 2, "recipe: expected 1 or 2 planes");
  std::vector<Int4File> files;
  for (int i = 0; i < count; i++) {
    const int32_t* part = r + kHead + kPart * i;
    try {
      files.push_back(read_part(r, part, i));
    } catch (const std::invalid_argument&) {
      check_sources(part);  // zeros in the place of what is gone look like wrong values
      throw;
    }
  }
  require(!r[1] || (count == 2 && files[0].rows == files[1].rows), "recipe: gated needs two parts of equal rows");
  const bool bf16 = narrow_scales(files);
  std::vector<Int4Part> parts;
  for (const Int4File& f : files) parts.push_back({&f, int4_decoder(f.format), f.rows});
  const int64_t bytes = packed_int4_bytes(parts.data(), count, r[3], r[5]);
  packed_output(op, op.input(1, 1), bytes, [&](void* out) {
    pack_int4(parts.data(), count, r[3], r[5], r[1], bf16, int4_zero_scaled(r[0]), r[2], out);
  });
  for (int i = 0; i < count; i++) check_sources(r + kHead + kPart * i);
}

/** packed uint8, range int32 [row, rows] -> f32 [rows, k]. Rows as stored: of gated matrices 16 of gate, 16 of up, and so on. */
void dequantize_op(Op& op) {
  const View w = op.input(0), range = op.input(1, 1);
  const Matrix m = packed(op, w, -1, "packed");
  const PackedHeader& h = m.header;
  require(range.count() == 2, "range: expected [row, rows]");
  const int64_t row = range.i32()[0], rows = range.i32()[1], end = h.gated ? h.strips * kLanes : h.n;
  if (row < 0 || rows < 0 || row + rows > end)
    fail("range: rows " + std::to_string(row) + " to " + std::to_string(row + rows) + " of " + std::to_string(end));
  const View y = op.output(0, {rows, h.k});
  op.device().dequantize(m, row, rows, y.f32());
}

}  // namespace

void register_int4() {
  register_op<pack_int4_op>("SvPackInt4", {"recipe: int32", "place: int32"}, {"packed: uint8"}, true);
  register_op<dequantize_op>("SvDequantize", {"packed: uint8", "range: int32"}, {"y: float"});
}

}  // namespace sv
