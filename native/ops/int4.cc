// SvPackInt4: 4-bit matrices from a checkpoint, in any of the file formats, to the internal form.
// SvDequantize: rows of any packed matrix, widened.
#include <string.h>

#include "../kernels/int4_formats.h"
#include "../kernels/pool.h"
#include "checks.h"
#include "source.h"

namespace sv {
namespace {

constexpr int kHead = 7, kPart = 16;  // words of a recipe

/** `bytes` bytes of a source: [source, offset (2 words)] of a recipe. */
struct Region {
  const Source* source = nullptr;  // null when the recipe says -1
  int64_t offset = 0, bytes = 0;

  Region() = default;
  Region(const int32_t* r, int64_t n, const char* what) {
    if (r[0] == -1) return;
    source = &sv::source(r[0]);
    offset = (int64_t)((uint64_t)(uint32_t)r[2] << 32 | (uint32_t)r[1]);
    bytes = n;
    if (offset < 0 || bytes < 0 || bytes > source->bytes() || offset > source->bytes() - bytes)
      fail(std::string(what) + " lie outside their file: bytes " + std::to_string(offset) + " to " +
           std::to_string((uint64_t)offset + (uint64_t)bytes) + " of " + std::to_string(source->bytes()));
  }
  int64_t file_bytes() const { return source && source->is_file() ? bytes : 0; }
  /** Where the bytes are in memory; those of a file are copied to `free`, which moves on. */
  const char* fetch(char*& free) const {
    if (!source) return nullptr;
    if (!source->is_file()) return source->stored(offset).data;
    char* const to = free;
    source->read(offset, bytes, to);
    free += bytes;
    return to;
  }
};

[[noreturn]] void bad_element(int part, const char* what, int64_t index, const char* why) {
  fail("part " + std::to_string(part) + ": " + what + ": element " + std::to_string(index) + " is " + why);
}

/** Act-order is the one thing that nibbles and scales do not show: input i must belong to group i / g. */
void check_group_index(const char* g_idx, const Int4File& f, int part) {
  for (int64_t i = 0; g_idx && i < f.k; i++) {
    int32_t group;
    memcpy(&group, g_idx + i * 4, 4);
    if (group != i / f.group) bad_element(part, "g_idx", i, ("group " + std::to_string(group) + ", expected " +
        std::to_string(i / f.group) + "; activation order (desc_act, actorder) is not supported").c_str());
  }
}

void check_shape(const char* shape, const Int4File& f, int part) {
  int64_t dims[2] = {f.rows, f.k};
  if (shape) memcpy(dims, shape, sizeof dims);
  if (dims[0] != f.rows || dims[1] != f.k)
    fail("part " + std::to_string(part) + ": weight_shape: it says [" + std::to_string(dims[0]) + "," +
         std::to_string(dims[1]) + "], expected [" + std::to_string(f.rows) + "," + std::to_string(f.k) + "]");
}

/** One part of the recipe. */
struct PartRegions {
  Region weight, scale, zero, group_index, shape;
  int64_t file_bytes() const {
    return weight.file_bytes() + scale.file_bytes() + zero.file_bytes() + group_index.file_bytes() + shape.file_bytes();
  }
};

/** The sizes of a part, checked, and where it lies; reads nothing. */
Int4File read_sizes(const int32_t* r, const int32_t* p, int part, PartRegions* regions) {
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
  *regions = {{p + 1, bytes.weight, "packed weights"}, {p + 4, bytes.scale, "scales"}, {p + 7, bytes.zero, "zeros"},
              {p + 10, f.k * 4, "group indices"}, {p + 13, 16, "weight shapes"}};
  require(regions->weight.source && regions->scale.source, "recipe: a part without weights or scales");
  return f;
}

/** Fetches a part and checks its values. */
void read_values(const PartRegions& regions, int part, char*& free, Int4File& f) {
  f.weight = regions.weight.fetch(free);
  f.scale = regions.scale.fetch(free);
  f.zero = regions.zero.fetch(free);
  const char* broken = "NaN or infinite";
  const int64_t n = regions.scale.bytes / weight_bytes(f.scale_type), bad = first_not_finite(f.scale, f.scale_type, n);
  if (bad >= 0) bad_element(part, "scales", bad, broken);
  const int64_t zero = int4_zero_scaled(f.format) ? first_not_finite(f.zero, kF16, regions.zero.bytes / 2) : -1;
  if (zero >= 0) bad_element(part, "zeros", zero, broken);
  check_group_index(regions.group_index.fetch(free), f, part);
  check_shape(regions.shape.fetch(free), f, part);
}

/** All parts of a recipe. Bytes of files are copied first, so that what is checked is what is packed, whatever happens to them. */
std::vector<Int4File> read_parts(const int32_t* r, int count) {
  std::vector<Int4File> files;
  std::vector<PartRegions> regions((size_t)count);
  int64_t bytes = 0;
  for (int i = 0; i < count; i++) {
    files.push_back(read_sizes(r, r + kHead + kPart * i, i, &regions[i]));
    bytes += regions[i].file_bytes();
  }
  char* free = bytes ? (char*)shared_scratch(kStaged, bytes / 4 + 1) : nullptr;
  for (int i = 0; i < count; i++) read_values(regions[i], i, free, files[i]);
  return files;
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
 *  (2 words) of weight, scales, zeros, g_idx, weight_shape; source -1 where there is none] -> packed bytes. */
void pack_int4_op(Op& op) {
  const View recipe = op.input(0, 1);
  const int32_t* r = recipe.i32();
  require(recipe.count() >= kHead + kPart && (recipe.count() - kHead) % kPart == 0, "recipe: wrong length");
  const int count = (int)((recipe.count() - kHead) / kPart);
  require(r[2] == 1 || r[2] == 2, "recipe: expected 1 or 2 planes");
  std::vector<Int4File> files = read_parts(r, count);
  require(!r[1] || (count == 2 && files[0].rows == files[1].rows), "recipe: gated needs two parts of equal rows");
  const bool bf16 = narrow_scales(files);
  std::vector<Int4Part> parts;
  for (const Int4File& f : files) parts.push_back({&f, int4_decoder(f.format), f.rows});
  const int64_t bytes = packed_int4_bytes(parts.data(), count, r[3], r[5]);
  op.device().fill_matrix(op.output(0, TF_UINT8, {bytes}).data, bytes, [&](void* out) {
    pack_int4(parts.data(), count, r[3], r[5], r[1], bf16, int4_zero_scaled(r[0]), r[2], out);
  });
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
  register_op<pack_int4_op>("SvPackInt4", {"recipe: int32"}, {"packed: uint8"}, true);
  register_op<dequantize_op>("SvDequantize", {"packed: uint8", "range: int32"}, {"y: float"});
}

}  // namespace sv
