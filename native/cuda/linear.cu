// Products with packed matrices, one weight type each to its own file: scratch, chunks of rows, and the arguments. Knows no
// arithmetic. The results of a row depend neither on how many rows are computed together nor on its place among them.
#include "../kernels/int4.h"
#include "../kernels/int8.h"
#include "launch.h"
#include "launchers.h"
#include "product.h"

namespace sv {
namespace gpu {
namespace {

constexpr int64_t kBlockRows = 8;           // rows of activations that lie together (fragments.cuh)
constexpr int64_t kMostScratch = 64 << 20;  // bytes of converted activations at a time, about what L2 holds; then rows come in chunks

/** Bytes that a block of 8 rows needs. */
struct BlockScratch {
  int64_t fragments, sums;
};
BlockScratch block_scratch(const PackedHeader& h) {
  const int64_t floats = (int64_t)sizeof(float);
  switch (h.type) {
    case kBf16: return {ceil_div(h.k, 16) * 16 * kBlockRows * 2 * (h.dot_bf16 ? 1 : 2), 0};
    case kF16: return {ceil_div(h.k, 16) * 16 * kBlockRows * 4, 0};
    case kInt4: return {int4_groups(h.k, h.group) * h.group * kBlockRows * 2 * h.planes, int4_groups(h.k, h.group) * kBlockRows * floats};
    case kInt8: return {ceil_div(h.k, 32) * 32 * kBlockRows, kBlockRows * floats};
    default: return {0, 0};
  }
}

void multiply_any(GpuStream stream, const PackedHeader& h, const Product& p) {
  switch (h.type) {
    case kF32: return multiply_f32(stream, p);
    case kF16: return multiply_f16(stream, p);
    case kBf16: return multiply_bf16(stream, p, h.dot_bf16 ? 1 : 2);
    case kInt4: return multiply_int4(stream, p, h.planes);
    case kInt8: return multiply_int8(stream, p);
    default: return;
  }
}

}  // namespace

void linear(GpuStream stream, GpuScratch scratch, const float* x, int64_t ldx, int64_t rows, const GpuMatrix* matrix,
            const Epilogue* e, float* y, int64_t ldy, int64_t strips) {
  const PackedHeader& h = matrix->header;
  if (strips < 0 || strips > h.strips) strips = h.strips;
  if (rows <= 0 || strips == 0) return;
  Product p = {};
  p.w = matrix->body, p.strip_bytes = h.strip_bytes, p.strips = strips, p.k = h.k;
  p.group = h.group, p.groups = h.type == kInt4 ? int4_groups(h.k, h.group) : 0;
  p.scale_bf16 = h.scale_bf16, p.zero_scaled = h.zero_scaled, p.gated = h.gated;
  p.ldx = ldx, p.n = h.n, p.ldy = ldy;
  p.bias = e->bias, p.scale = e->scale, p.activation = e->activation, p.residual_ld = e->residual_ld;
  const BlockScratch need = block_scratch(h);
  int64_t chunk = ceil_div(rows, kBlockRows);  // in blocks
  if (need.fragments > 0) {
    const int64_t most = kMostScratch / (need.fragments + need.sums) / 8 * 8;
    if (chunk > most) chunk = most > 8 ? most : 8;
    p.fragments = (char*)scratch.take(scratch.state, chunk * need.fragments);
    if (!p.fragments) return;
  }
  if (need.sums > 0) {
    p.sums = (float*)scratch.take(scratch.state, chunk * need.sums);
    if (!p.sums) return;
  }
  for (int64_t row = 0; row < rows; row += chunk * kBlockRows) {
    p.rows = rows - row < chunk * kBlockRows ? rows - row : chunk * kBlockRows;
    p.x = x + row * ldx;
    p.y = y + row * ldy;
    p.residual = e->residual ? e->residual + row * e->residual_ld : nullptr;
    multiply_any(stream, h, p);
  }
}

}  // namespace gpu
}  // namespace sv
