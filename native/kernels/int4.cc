// Packing of 4-bit matrices into the internal form, and its definition read back. See int4.h.
#include "int4.h"

#include <string.h>

#include <stdexcept>


#include "linear.h"
#include "pool.h"

namespace sv {
namespace {

int64_t strips_of(int64_t rows) { return (rows + kLanes - 1) / kLanes; }

int64_t total_strips(const Int4Part* parts, int count) {
  int64_t n = 0;
  for (int i = 0; i < count; i++) n += strips_of(parts[i].rows);
  return n;
}

/** One decoded strip -> tiles. */
void pack_strip(const Int4Strip& s, int64_t k, int64_t group, char* out) {
  const int64_t groups = int4_groups(k, group), vectors = group / 8, tile = int4_tile_bytes(group);
  for (int64_t g = 0; g < groups; g++) {
    char* to = out + g * tile;
    for (int64_t j = 0; j < vectors; j++)
      for (int r = 0; r < kLanes; r++)
        for (int b = 0; b < 4; b++) {
          const int64_t low = g * group + 4 * j + b, high = low + group / 2;
          const int lo = low < k ? s.q[r * k + low] : 0, hi = high < k ? s.q[r * k + high] : 0;
          to[j * 64 + r * 4 + b] = (char)(lo | hi << 4);
        }
    uint16_t* end = (uint16_t*)(to + tile - 64);
    for (int r = 0; r < kLanes; r++) {
      end[r] = s.scale[r * groups + g];
      end[16 + r] = s.zero[r * groups + g];
    }
  }
}

float scale_of(const PackedHeader& h, uint16_t bits) {
  float out;
  (h.scale_bf16 ? kernels().from_bf16 : kernels().from_f16)(&bits, 1, &out);
  return out;
}

}  // namespace

int64_t packed_int4_bytes(const Int4Part* parts, int count, int64_t k, int64_t group, bool) {
  return (int64_t)sizeof(PackedHeader) + total_strips(parts, count) * int4_groups(k, group) * int4_tile_bytes(group);
}

void pack_int4(const Int4Part* parts, int count, int64_t k, int64_t group, bool gated, bool scale_bf16, bool zero_scaled,
               int planes, void* out) {
  for (int i = 0; i + 1 < count; i++)
    if (!gated && parts[i].rows % kLanes != 0)
      throw std::invalid_argument("4-bit matrices can be stacked only when their outputs are multiples of 16");
  PackedHeader h = {};
  h.magic = kPackedMagic;
  h.type = kInt4;
  h.gated = gated;
  for (int i = 0; i < count; i++) h.n += parts[i].rows;
  if (gated) h.n = parts[0].rows;
  h.k = k;
  h.strips = total_strips(parts, count);
  h.strip_bytes = int4_groups(k, group) * int4_tile_bytes(group);
  h.group = (int32_t)group;
  h.scale_bf16 = scale_bf16;
  h.zero_scaled = zero_scaled;
  h.planes = planes;
  memcpy(out, &h, sizeof h);
  char* base = static_cast<char*>(out) + sizeof h;
  const int64_t groups = int4_groups(k, group), bytes = kLanes * (k + 4 * groups);
  reserve_thread_scratch(kTileSlot, bytes / 4 + 16);
  parallel(h.strips, 1, [&](int64_t begin, int64_t end, int thread) {
    char* memory = (char*)thread_scratch(thread, kTileSlot);
    Int4Strip strip = {nullptr, (uint16_t*)memory, (uint16_t*)memory + kLanes * groups};
    strip.q = (uint8_t*)(memory + 4 * kLanes * groups);
    for (int64_t s = begin; s < end; s++) {
      int part = gated ? (int)(s % 2) : 0;
      int64_t local = gated ? s / 2 : s;
      if (!gated) while (local >= strips_of(parts[part].rows)) local -= strips_of(parts[part++].rows);
      memset(memory, 0, (size_t)bytes);
      parts[part].decode(parts[part].part, local, strip);
      pack_strip(strip, k, group, base + s * h.strip_bytes);
    }
  });
}

void dequantize_int4(const void* packed, int64_t row, int64_t rows, float* out) {
  const PackedHeader& h = *static_cast<const PackedHeader*>(packed);
  const char* base = static_cast<const char*>(packed) + sizeof h;
  const int64_t tile = int4_tile_bytes(h.group);
  for (int64_t i = 0; i < rows; i++) {
    const int64_t r = row + i, lane = r % kLanes;
    const char* strip = base + r / kLanes * h.strip_bytes;
    for (int64_t c = 0; c < h.k; c++) {
      const int64_t g = c / h.group, in = c % h.group, half = h.group / 2;
      const uint8_t byte = (uint8_t)strip[g * tile + (in % half) / 4 * 64 + lane * 4 + in % 4];
      const uint16_t* end = (const uint16_t*)(strip + g * tile + tile - 64);
      const float q = (float)(in < half ? byte & 15 : byte >> 4), s = scale_of(h, end[lane]);
      float z;
      kernels().from_f16(end + 16 + lane, 1, &z);
      out[i * h.k + c] = h.zero_scaled ? q * s + z : (q - z) * s;
    }
  }
}

}  // namespace sv
