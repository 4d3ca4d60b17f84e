// Packing of 8-bit matrices. See int8.h.
#include "int8.h"

#include <math.h>
#include <string.h>

#include "pool.h"

namespace sv {
namespace {

int64_t total_rows(const Int8Part* parts, int count) {
  int64_t n = 0;
  for (int i = 0; i < count; i++) n += parts[i].rows;
  return n;
}

int64_t strip_bytes(int64_t k) { return int8_padded_k(k) * kLanes + 128; }

int64_t strips_of(const Int8Part* parts, int count, bool gated) {
  const int64_t rows = gated ? parts[0].rows : total_rows(parts, count);
  return (rows + kLanes - 1) / kLanes * (gated ? 2 : 1);
}

/** One row of a stack of parts, or zeros beyond it, as 8-bit values and its scale; floats are rounded to max|w| / 127, half to even. */
float read_row(const Int8Part* parts, int count, int64_t row, int64_t k, float* wide, int8_t* out) {
  int i = 0;
  while (i < count && row >= parts[i].rows) row -= parts[i++].rows;
  memset(out, 0, (size_t)int8_padded_k(k));
  if (i == count) return 0;
  const Int8Part& p = parts[i];
  if (p.type == kInt8) {
    memcpy(out, (const int8_t*)p.data + row * k, (size_t)k);
    return p.scales[row];
  }
  const char* from = (const char*)p.data + row * k * weight_bytes(p.type);
  if (p.type == kF32) memcpy(wide, from, (size_t)k * 4);
  else (p.type == kBf16 ? kernels().from_bf16 : kernels().from_f16)(from, k, wide);
  float top = 0;
  for (int64_t c = 0; c < k; c++) top = fmaxf(top, fabsf(wide[c]));
  const float scale = top / 127.f;
  for (int64_t c = 0; c < k; c++) out[c] = (int8_t)nearbyintf(top > 0 ? wide[c] / scale : 0);
  return scale;
}

}  // namespace

int64_t packed_int8_bytes(const Int8Part* parts, int count, int64_t k, bool gated) {
  return (int64_t)sizeof(PackedHeader) + strips_of(parts, count, gated) * strip_bytes(k);
}

void pack_int8(const Int8Part* parts, int count, int64_t k, bool gated, void* out) {
  PackedHeader h = {};
  h.magic = kPackedMagic;
  h.type = kInt8;
  h.gated = gated;
  h.n = gated ? parts[0].rows : total_rows(parts, count);
  h.k = k;
  h.strips = strips_of(parts, count, gated);
  h.strip_bytes = strip_bytes(k);
  memcpy(out, &h, sizeof h);
  const int64_t kp = int8_padded_k(k);
  reserve_thread_scratch(kTileSlot, k + kp / 4 + 16);
  parallel(h.strips, 1, [&](int64_t begin, int64_t end, int thread) {
    float* wide = thread_scratch(thread, kTileSlot);
    auto* row = (int8_t*)(wide + k);
    for (int64_t s = begin; s < end; s++) {
      char* to = static_cast<char*>(out) + sizeof h + s * h.strip_bytes;
      const Int8Part* stack = gated ? parts + s % 2 : parts;
      for (int r = 0; r < kLanes; r++) {
        const float scale = read_row(stack, gated ? 1 : count, (gated ? s / 2 : s) * kLanes + r, k, wide, row);
        int32_t sum = 0;
        for (int64_t c = 0; c < kp; c++) {
          to[c / 4 * 64 + r * 4 + c % 4] = (char)row[c];
          sum += row[c];
        }
        ((float*)(to + kp * 16))[r] = scale;
        ((int32_t*)(to + kp * 16 + 64))[r] = 128 * sum;
      }
    }
  });
}

void dequantize_int8(const void* packed, int64_t row, int64_t rows, float* out) {
  const PackedHeader& h = *static_cast<const PackedHeader*>(packed);
  const int64_t kp = int8_padded_k(h.k);
  for (int64_t i = 0; i < rows; i++) {
    const char* strip = static_cast<const char*>(packed) + sizeof h + (row + i) / kLanes * h.strip_bytes;
    const int64_t lane = (row + i) % kLanes;
    for (int64_t c = 0; c < h.k; c++)
      out[i * h.k + c] = ((const float*)(strip + kp * 16))[lane] * (float)(int8_t)strip[c / 4 * 64 + lane * 4 + c % 4];
  }
}

}  // namespace sv
