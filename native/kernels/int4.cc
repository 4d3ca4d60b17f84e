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

/** A decoded tile -> the internal form, four inputs of an output at a time. */
void pack_tile(const Int4Tile& tile, int64_t group, char* out) {
  for (int64_t j = 0; j < group / 8; j++)
    for (int r = 0; r < kLanes; r++) {
      uint32_t low, high;
      memcpy(&low, tile.q[r] + 4 * j, 4);
      memcpy(&high, tile.q[r] + 4 * j + group / 2, 4);
      low |= high << 4;
      memcpy(out + j * 64 + r * 4, &low, 4);
    }
  memcpy(out + group * 8, tile.scale, sizeof tile.scale);
  memcpy(out + group * 8 + sizeof tile.scale, tile.zero, sizeof tile.zero);
}

/** Strips that are packed side by side: layouts with the outputs innermost then read whole cache lines. */
constexpr int64_t kBlock = 8;

float scale_of(const PackedHeader& h, uint16_t bits) {
  float out;
  (h.scale_bf16 ? kernels().from_bf16 : kernels().from_f16)(&bits, 1, &out);
  return out;
}

}  // namespace

int64_t packed_int4_bytes(const Int4Part* parts, int count, int64_t k, int64_t group) {
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
  const int64_t groups = int4_groups(k, group), tile = int4_tile_bytes(group);
  const int step = gated ? 2 : 1;  // gate and up take turns
  parallel((h.strips + kBlock * step - 1) / (kBlock * step), 1, [&](int64_t begin, int64_t end, int) {
    Int4Tile decoded;
    for (int64_t block = begin; block < end; block++)
      for (int part = 0; part < step; part++)
        for (int64_t g = 0; g < groups; g++)
          for (int64_t i = 0; i < kBlock; i++) {
            const int64_t s = (block * kBlock + i) * step + part;
            if (s >= h.strips) break;
            int source = part;
            int64_t local = gated ? s / 2 : s;
            if (!gated)
              while (local >= strips_of(parts[source].rows)) local -= strips_of(parts[source++].rows);
            parts[source].decode(parts[source].part, local, g, &decoded);
            pack_tile(decoded, group, base + s * h.strip_bytes + g * tile);
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
