// Packing and the threaded product. See linear.h.
#include "linear.h"

#include <string.h>

#include "int4.h"
#include "int8.h"
#include "pool.h"

namespace sv {
namespace {

const PackedHeader& header(const void* packed) { return *static_cast<const PackedHeader*>(packed); }
const char* body(const void* packed) { return static_cast<const char*>(packed) + sizeof(PackedHeader); }

int64_t strips_of(int64_t rows) { return (rows + kLanes - 1) / kLanes; }

/** Row i of strip s: its source row and type; null when it is padding. */
struct Source {
  const WeightPart* part;
  int64_t row;
};
Source source_row(const WeightPart* parts, int count, bool gated, int64_t strip, int lane) {
  int64_t row = (gated ? strip / 2 : strip) * kLanes + lane;
  if (gated) return row < parts[strip % 2].rows ? Source{parts + strip % 2, row} : Source{nullptr, 0};
  for (int i = 0; i < count; row -= parts[i++].rows)
    if (row < parts[i].rows) return {parts + i, row};
  return {nullptr, 0};
}

void widen(const Source& s, int64_t k, float* out) {
  const char* p = static_cast<const char*>(s.part->data) + s.row * k * weight_bytes(s.part->type);
  if (s.part->type == kF32) memcpy(out, p, (size_t)k * 4);
  else if (s.part->type == kBf16) kernels().from_bf16(p, k, out);
  else kernels().from_f16(p, k, out);
}

uint16_t float_to_half(float f) {  // round to nearest even, overflow to infinity
  uint32_t u;
  memcpy(&u, &f, 4);
  const uint32_t sign = (u >> 16) & 0x8000;
  u &= 0x7fffffff;
  if (u > 0x7f800000) return (uint16_t)(sign | 0x7e00);
  if (u >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
  if (u < 0x38800000) {  // subnormal half: adding 0.5 aligns the mantissa, the adder rounds
    float g;
    memcpy(&g, &u, 4);
    g += 0.5f;
    memcpy(&u, &g, 4);
    return (uint16_t)(sign | (u - 0x3f000000));
  }
  return (uint16_t)(sign | ((u + 0xc8000fff + ((u >> 13) & 1)) >> 13));
}

/** One strip through f32 rows: right for every pair of types. */
void pack_strip(const Source* src, int64_t k, int32_t type, float* wide, char* out) {
  const int64_t kp = padded_k(k);
  memset(wide, 0, (size_t)(kp * kLanes) * 4);
  for (int r = 0; r < kLanes; r++)
    if (src[r].part) widen(src[r], k, wide + r * kp);
  const uint32_t* rows[kLanes];
  if (type == kBf16) {  // round each row in place; a pair of bf16 is one word
    for (int r = 0; r < kLanes; r++) kernels().to_bf16(wide + r * kp, kp, (uint16_t*)(wide + r * kp));
    for (int r = 0; r < kLanes; r++) rows[r] = (const uint32_t*)(wide + r * kp);
    kernels().transpose_words(rows, kp / 2, (uint32_t*)out, kLanes);
  } else if (type == kF32) {
    for (int r = 0; r < kLanes; r++) rows[r] = (const uint32_t*)(wide + r * kp);
    kernels().transpose_words(rows, kp, (uint32_t*)out, kLanes);
  } else {
    for (int64_t i = 0; i < kp; i++)
      for (int r = 0; r < kLanes; r++) ((uint16_t*)out)[i * kLanes + r] = float_to_half(wide[r * kp + i]);
  }
}

/** One row of a finished tile -> y. The outputs of a gated matrix take the places of gate and up, from the first on. */
void finish_row(const PackedHeader& h, const Epilogue& e, float* tile, int64_t strip, int64_t strips, const float* residual,
                float* y) {
  const Kernels& k = kernels();
  const int64_t per = h.gated ? 2 : 1, col = strip / per * kLanes, width = strips / per * kLanes;
  const int64_t n = h.n - col < width ? h.n - col : width;
  if (h.gated) {
    for (int64_t i = 0; i < n; i += kLanes) {
      float *gate = tile + 2 * i, *up = gate + kLanes;
      const int64_t left = n - i < kLanes ? n - i : kLanes;
      if (e.bias) {
        k.add(gate, e.bias + col + i, left, gate);
        k.add(up, e.bias + h.n + col + i, left, up);
      }
      k.gated_mul(gate, up, left, e.activation, tile + i);
    }
  } else if (e.bias && e.activation == kNone && !e.scale && !residual) {
    k.add(tile, e.bias + col, n, y + col);
    return;
  } else {
    if (e.bias) k.add(tile, e.bias + col, n, tile);
    k.activate(tile, n, e.activation);
  }
  if (e.scale) k.mul(tile, e.scale + col, n, tile);
  if (residual) k.add(tile, residual + col, n, y + col);
  else memcpy(y + col, tile, (size_t)n * 4);
}

/** One output's inputs out of its strip, widened. */
void gather_row(const PackedHeader& h, const char* strip, int64_t lane, float* out) {
  uint16_t row[256];
  for (int64_t c0 = 0; c0 < h.k; c0 += 256) {
    const int64_t n = h.k - c0 < 256 ? h.k - c0 : 256;
    const auto* half = (const uint16_t*)strip;
    if (h.type == kF32) {
      for (int64_t c = c0; c < c0 + n; c++) out[c] = ((const float*)strip)[c * kLanes + lane];
    } else if (h.type == kF16) {
      for (int64_t c = 0; c < n; c++) row[c] = half[(c0 + c) * kLanes + lane];
      kernels().from_f16(row, n, out + c0);
    } else {
      for (int64_t c = 0; c < n; c++) row[c] = half[((c0 + c) / 2 * kLanes + lane) * 2 + c % 2];
      kernels().from_bf16(row, n, out + c0);
    }
  }
}

constexpr int64_t kTileRows = 96;
constexpr int64_t kUnitBytes = 1 << 20, kBlockBytes = 1 << 19;

int64_t within(int64_t n, int64_t least, int64_t most) { return n > most && most > least ? most : n < least ? least
                                                                                                            : n; }

}  // namespace

int64_t packed_bytes(const WeightPart* parts, int count, int64_t k, int32_t type, bool gated) {
  int64_t n = 0;
  for (int i = 0; i < count; i++) n += parts[i].rows;
  const int64_t strips = gated ? 2 * strips_of(parts[0].rows) : strips_of(n);
  return (int64_t)sizeof(PackedHeader) + strips * kLanes * padded_k(k) * weight_bytes(type);
}

void pack(const WeightPart* parts, int count, int64_t k, int32_t type, bool gated, bool dot_bf16, void* out) {
  int64_t n = 0;
  for (int i = 0; i < count; i++) n += parts[i].rows;
  PackedHeader h = {};
  h.magic = kPackedMagic;
  h.type = type;
  h.dot_bf16 = dot_bf16;
  h.gated = gated;
  h.n = gated ? parts[0].rows : n;
  h.k = k;
  h.strips = gated ? 2 * strips_of(parts[0].rows) : strips_of(n);
  h.strip_bytes = kLanes * padded_k(k) * weight_bytes(type);
  memcpy(out, &h, sizeof h);
  char* base = static_cast<char*>(out) + sizeof h;
  reserve_thread_scratch(kTileSlot, padded_k(k) * kLanes);
  parallel(h.strips, 1, [&](int64_t begin, int64_t end, int thread) {
    float* wide = thread_scratch(thread, kTileSlot);
    for (int64_t s = begin; s < end; s++) {
      Source src[kLanes];
      for (int r = 0; r < kLanes; r++) src[r] = source_row(parts, count, gated, s, r);
      pack_strip(src, k, type, wide, base + s * h.strip_bytes);
    }
  });
}

const char* check_packed(const void* data, int64_t bytes) {
  if (bytes < (int64_t)sizeof(PackedHeader)) return "shorter than the header of a packed matrix";
  const PackedHeader& h = header(data);
  if (h.magic != kPackedMagic) return "not a packed matrix";
  if (h.type < kF32 || h.type > kInt8) return "unknown weight type";
  if (bytes < (int64_t)sizeof(PackedHeader) + h.strips * h.strip_bytes) return "truncated packed matrix";
  return nullptr;
}

namespace {

/** The input of a product as its kernel wants it: f32 rows, planes of bf16, or quantized groups. */
struct Input {
  const char* data;
  int64_t stride;
  QuantizedRows quantized;  // int4
  const float* d;           // int8: scale of each row
};

/** Rows as bf16, padded with zeros to whole tile steps; with two planes x ~ hi + lo, what rounding left follows it. */
Input round_rows(const float* x, int64_t ldx, int64_t rows, const PackedHeader& h, int planes) {
  const int64_t kp = (h.k + 31) / 32 * 32, ld = planes * kp + 32;
  auto* rounded = (uint16_t*)shared_scratch(kRoundedInput, rows * ld / 2);
  parallel(rows, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++) {
      uint16_t* hi = rounded + r * ld;
      kernels().to_bf16(x + r * ldx, h.k, hi);
      memset(hi + h.k, 0, (size_t)(kp - h.k) * 2);
      if (planes == 1) continue;
      kernels().bf16_rest(x + r * ldx, h.k, hi, hi + kp);
      memset(hi + kp + h.k, 0, (size_t)(kp - h.k) * 2);
    }
  });
  return {(const char*)rounded, ld * 2, {}, nullptr};
}

Input pad_rows(const float* x, int64_t ldx, int64_t rows, const PackedHeader& h) {
  const int64_t ld = padded_ld(padded_k(h.k));
  float* copy = shared_scratch(kPaddedInput, rows * ld);
  for (int64_t r = 0; r < rows; r++) {
    memcpy(copy + r * ld, x + r * ldx, (size_t)h.k * 4);
    copy[r * ld + h.k] = 0;
  }
  return {(const char*)copy, ld * 4, {}, nullptr};
}

/** Numbers that one thread quantizes before another could have begun. */
constexpr int64_t kSmallWork = 4096;

Input quantize_groups(const float* x, int64_t ldx, int64_t rows, const PackedHeader& h) {
  const int64_t groups = int4_groups(h.k, h.group), kp = groups * h.group;
  const int64_t stride = (h.planes * kp + groups * 16 + 63) / 64 * 64 + 64;
  auto* out = (int8_t*)shared_scratch(kRoundedInput, rows * stride / 4);
  parallel(rows, 1 + kSmallWork / h.k, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++) int4_kernels().quantize_row(x + r * ldx, h.k, h.group, h.planes, out + r * stride);
  });
  return {(const char*)out, stride, {out, stride, kp, groups, h.planes}, nullptr};
}

Input quantize_whole_rows(const float* x, int64_t ldx, int64_t rows, const PackedHeader& h) {
  const int64_t stride = (int8_padded_k(h.k) + 63) / 64 * 64 + 64;
  auto* out = (int8_t*)shared_scratch(kRoundedInput, rows * stride / 4 + rows);
  float* d = (float*)(out + rows * stride);
  parallel(rows, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++) d[r] = int8_kernels().quantize_row(x + r * ldx, h.k, out + r * stride);
  });
  return {(const char*)out, stride, {}, d};
}

}  // namespace

void linear(const float* x, int64_t ldx, int64_t rows, const void* packed, const Epilogue& e, float* y, int64_t ldy,
            int64_t strips) {
  const PackedHeader& h = header(packed);
  const Kernels& kern = kernels();
  const Int4Kernels& int4 = int4_kernels();
  const Int8Kernels& int8 = int8_kernels();
  const char* w = body(packed);
  if (strips < 0) strips = h.strips;
  const MatmulFn dot = h.type != kBf16 ? nullptr : (h.dot_bf16 ? kern.matmul_dot_bf16 : kern.matmul_split_bf16);
  Input in = {(const char*)x, ldx * 4, {}, nullptr};
  if (h.type == kInt4) in = quantize_groups(x, ldx, rows, h);
  else if (h.type == kInt8) in = quantize_whole_rows(x, ldx, rows, h);
  else if (dot) in = round_rows(x, ldx, rows, h, h.dot_bf16 ? 1 : 2);
  else if (h.k % 2 && h.type == kBf16) in = pad_rows(x, ldx, rows, h);
  const MatmulFn product = h.type >= kInt4 ? nullptr : (dot ? dot : kern.matmul[h.type]);
  int64_t unit = rows > 16 && strips >= 32 ? 8 : 4, block = kTileRows;
  if ((dot || h.type == kInt8) && rows > kTileRows) {  // the second-level cache holds a unit and a block of rows; fewer units read the rows less often
    unit = within(kUnitBytes / h.strip_bytes, 4, (strips + 2 * thread_count() - 1) / (2 * thread_count()));
    unit += unit % 2;
    block = within(kBlockBytes / in.stride / 32 * 32, 32, kTileRows);
  }
  if (block > rows) block = rows;
  const int64_t units = (strips + unit - 1) / unit;
  reserve_thread_scratch(kTileSlot, block * unit * kLanes);
  parallel(units, 1, [&](int64_t begin, int64_t end, int thread) {
    float* tile = thread_scratch(thread, kTileSlot);
    for (int64_t u = begin; u < end; u++) {
      const int64_t s = u * unit, n = strips - s < unit ? strips - s : unit, ldt = n * kLanes;
      const char* ws = w + s * h.strip_bytes;
      for (int64_t r0 = 0; r0 < rows; r0 += block) {
        const int64_t rn = rows - r0 < block ? rows - r0 : block;
        if (product) product(in.data + r0 * in.stride, in.stride, rn, ws, h.strip_bytes, h.k, n, tile, ldt * 4);
        else if (h.type == kInt8)
          int8.matmul((const int8_t*)in.data + r0 * in.stride, in.stride, in.d + r0, rn, int8_padded_k(h.k), ws, h.strip_bytes, n, tile, ldt);
        else int4.matmul(in.quantized, r0, rn, h, ws, n, tile, ldt);
        for (int64_t r = 0; r < rn; r++)
          finish_row(h, e, tile + r * ldt, s, n, e.residual ? e.residual + (r0 + r) * e.residual_ld : nullptr,
                     y + (r0 + r) * ldy);
      }
    }
  });
}

void gather_rows(const void* packed, const int32_t* ids, int64_t count, float* out) {
  const PackedHeader& h = header(packed);
  if (h.type >= kInt4) {
    for (int64_t i = 0; i < count; i++)
      (h.type == kInt4 ? dequantize_int4 : dequantize_int8)(packed, ids[i], 1, out + i * h.k);
    return;
  }
  parallel(count, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const char* strip = body(packed) + ids[i] / kLanes * h.strip_bytes;
      gather_row(h, strip, ids[i] % kLanes, out + i * h.k);
    }
  });
}

}  // namespace sv
