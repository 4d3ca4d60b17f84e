// Decoders of 4-bit layouts. See int4_formats.h. Nibbles are moved eight at a time, as words.
#include "int4_formats.h"

#include <string.h>

#include <initializer_list>

namespace sv {
namespace {

using File = Int4File;

template <class T>
T load(const char* base, int64_t index) {
  T value;
  memcpy(&value, base + index * (int64_t)sizeof(T), sizeof value);
  return value;
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t groups_of(const File& f) { return ceil_div(f.k, f.group); }

/** Words of zeros per output of kAwqGemv: AutoAWQ `calculate_zeros_width`. */
int64_t zero_words(const File& f) {
  const int64_t unit = f.group >= 128 ? 1 : (f.group == 64 ? 2 : 4);
  return ceil_div(ceil_div(groups_of(f), 8), unit) * unit;
}

/** Nibble i of a word -> byte i. */
uint64_t spread(uint64_t w) {
  w = (w | w << 16) & 0x0000ffff0000ffffull;
  w = (w | w << 8) & 0x00ff00ff00ff00ffull;
  return (w | w << 4) & 0x0f0f0f0f0f0f0f0full;
}

/** Nibble j of word i <-> nibble i of word j, in the low and in the high words of eight pairs. */
inline void transpose_nibbles(uint64_t* x) {
  auto swap = [x](int a, int b, int shift, uint64_t mask) {
    const uint64_t t = ((x[a] >> shift) ^ x[b]) & mask;
    x[b] ^= t;
    x[a] ^= t << shift;
  };
  for (int i = 0; i < 4; i++) swap(i, i + 4, 16, 0x0000ffff0000ffffull);
  for (int i : {0, 1, 4, 5}) swap(i, i + 2, 8, 0x00ff00ff00ff00ffull);
  for (int i = 0; i < 8; i += 2) swap(i, i + 1, 4, 0x0f0f0f0f0f0f0f0full);
}

constexpr int kGemmOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};    // output of nibble i
constexpr int kGemmInverse[8] = {0, 4, 1, 5, 2, 6, 3, 7};  // nibble of output j

// --- nibbles: rows first .. first + lanes - 1, inputs from .. end - 1, at most a group of them, eight at a time ---

void store(uint64_t bytes, uint8_t* to) { memcpy(to, &bytes, 8); }

void gemm_nibbles(const File& f, int64_t first, int lanes, int64_t from, int64_t end, Int4Tile* out) {
  const int64_t stride = f.rows / 2;  // bytes
  const char* at = f.weight + from * stride + first / 2;
  for (int64_t k = from; k < end; k += 8) {
    const int64_t depth = end - k < 8 ? end - k : 8;
    uint64_t pairs[8] = {};  // of words: outputs 0 to 7 and 8 to 15
    for (int64_t i = 0; i < depth; i++, at += stride)
      pairs[i] = lanes == kLanes ? load<uint64_t>(at, 0) : load<uint32_t>(at, 0);
    transpose_nibbles(pairs);
    for (int i = 0; i < 8; i++) {
      store(spread((uint32_t)pairs[i]), out->q[kGemmOrder[i]] + k - from);
      store(spread(pairs[i] >> 32), out->q[kGemmOrder[i] + 8] + k - from);
    }
  }
}

void row_nibbles(const File& f, int64_t first, int lanes, int64_t from, int64_t end, Int4Tile* out) {
  const int64_t words = ceil_div(f.k, 8);
  for (int r = 0; r < lanes; r++)
    for (int64_t k = from; k < end; k += 8)
      store(spread(load<uint32_t>(f.weight, (first + r) * words + k / 8)), out->q[r] + k - from);
}

void gptq_nibbles(const File& f, int64_t first, int lanes, int64_t from, int64_t end, Int4Tile* out) {
  for (int64_t k = from; k < end; k += 8)
    for (int r = 0; r < lanes; r++)
      store(spread(load<uint32_t>(f.weight, k / 8 * f.rows + first + r)), out->q[r] + k - from);
}

/** Row n, input k: word [n/4][64 (k/64) + 16 (n%4) + 8 (k/32 % 2) + k%8], nibble k/8 % 4. */
void gemv_fast_nibbles(const File& f, int64_t first, int lanes, int64_t from, int64_t end, Int4Tile* out) {
  for (int r = 0; r < lanes; r++) {
    const char* row = f.weight + (first + r) / 4 * f.k * 2;
    for (int64_t k = from; k < end; k += 32) {
      const int64_t at = k / 64 * 64 + (first + r) % 4 * 16 + k / 32 % 2 * 8;
      const uint64_t low = load<uint64_t>(row + at * 2, 0), high = load<uint64_t>(row + at * 2, 1);
      for (int j = 0; j < 4; j++) {
        auto four = [j](uint64_t w) {  // nibble j of four 16-bit words -> four bytes
          w = w >> (4 * j) & 0x000f000f000f000full;
          w = (w | w >> 8) & 0x0000ffff0000ffffull;
          return (w | w >> 16) & 0xffffffffull;
        };
        store(four(low) | four(high) << 32, out->q[r] + k - from + 8 * j);
      }
    }
  }
}

// --- scales and zeros ----------------------------------------------------------------------------------------

/** The f16 that equals f, or -1. */
int32_t exact_f16(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  const int32_t sign = (int32_t)(u >> 16) & 0x8000;
  u &= 0x7fffffff;
  if (u == 0) return sign;
  const int e = (int)(u >> 23) - 127;
  if (e > 15 || e < -24) return -1;
  const uint32_t m = (u & 0x7fffff) | 0x800000;
  const int drop = e >= -14 ? 13 : -1 - e;
  if (m & ((1u << drop) - 1)) return -1;
  return sign | (int32_t)(e >= -14 ? (uint32_t)(e + 15) << 10 | (m >> 13 & 0x3ff) : m >> drop);
}

/** The bf16 that equals f, or -1. */
int32_t exact_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u & 0xffff ? -1 : (int32_t)(u >> 16);
}

/** Where the scale (or the scaled zero) of a row and group lies. */
int64_t scale_index(const File& f, int64_t row, int64_t group) {
  if (f.format == kAwqGemv) return row * 8 * zero_words(f) + group;
  if (f.format == kCompressed) return row * groups_of(f) + group;
  return group * f.rows + row;
}

uint16_t scale_at(const File& f, int64_t index) {
  if (f.scale_type != kF32) return load<uint16_t>(f.scale, index);
  const float s = load<float>(f.scale, index);
  return (uint16_t)(f.scale_bf16 ? exact_bf16(s) : exact_f16(s));
}

/** The integer zero of a row and group: 0..15, and 16 for a v1 GPTQ file that holds 15. */
int zero_at(const File& f, int64_t row, int64_t group) {
  if (!f.zero) return 8;
  auto nibble = [&f](int64_t word, int64_t i) { return (int)(load<uint32_t>(f.zero, word) >> (4 * i) & 15); };
  switch (f.format) {
    case kAwqGemm: return nibble(group * (f.rows / 8) + row / 8, kGemmInverse[row % 8]);
    case kAwqGemv: return nibble(row * zero_words(f) + group / 8, group % 8);
    case kCompressed: return nibble(row / 8 * groups_of(f) + group, row % 8);
    default: return nibble(group * (f.rows / 8) + row / 8, row % 8) + (f.format == kGptq);
  }
}

void scales_and_zeros(const File& f, int64_t first, int lanes, int64_t group, Int4Tile* out) {
  static const uint16_t kIntegers[17] = {0, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800,
                                         0x4880, 0x4900, 0x4980, 0x4a00, 0x4a80, 0x4b00, 0x4b80, 0x4c00};  // as f16
  const int64_t from = group * f.stored / f.group;
  for (int r = 0; r < lanes; r++) {
    const int64_t index = scale_index(f, first + r, from);
    out->scale[r] = scale_at(f, index);
    out->zero[r] =
        f.format == kAwqGemvFast ? load<uint16_t>(f.zero, index) : kIntegers[zero_at(f, first + r, from)];
  }
}

template <void (*Nibbles)(const File&, int64_t, int, int64_t, int64_t, Int4Tile*)>
void decode(const void* part, int64_t strip, int64_t group, Int4Tile* out) {
  const auto& f = *static_cast<const File*>(part);
  const int64_t first = strip * kLanes, left = f.rows - first, from = group * f.stored;
  const int64_t end = from + f.stored < f.k ? from + f.stored : f.k;
  const int lanes = (int)(left < kLanes ? left : kLanes);
  if (lanes < kLanes || end < from + f.stored) memset(out, 0, sizeof *out);
  Nibbles(f, first, lanes, from, end, out);
  // The last word of a row may hold more than the row does.
  for (int r = 0; r < lanes && end % 8; r++) memset(out->q[r] + (end - from), 0, (size_t)(8 - end % 8));
  scales_and_zeros(f, first, lanes, group, out);
}

}  // namespace

Int4Extents int4_extents(const Int4File& f) {
  const int64_t groups = groups_of(f), scale = weight_bytes(f.scale_type);
  switch (f.format) {
    case kAwqGemv: return {f.rows * f.k / 2, f.rows * 8 * zero_words(f) * scale, f.rows * zero_words(f) * 4};
    case kAwqGemvFast: return {f.rows * f.k / 2, 8 * zero_words(f) * f.rows * scale, 8 * zero_words(f) * f.rows * 2};
    case kCompressed: return {f.rows * ceil_div(f.k, 8) * 4, f.rows * groups * scale, ceil_div(f.rows, 8) * groups * 4};
    default: return {f.rows * f.k / 2, groups * f.rows * scale, groups * f.rows / 2};
  }
}

const char* check_int4(const Int4File& f) {
  const int32_t t = f.format;
  if (t < 0 || t >= kInt4Formats) return "unknown 4-bit format";
  if (f.scale_type < kF32 || f.scale_type > kBf16) return "unknown type of scales";
  if (f.rows <= 0 || f.k <= 0 || f.rows > INT32_MAX || f.k > INT32_MAX) return "sizes out of range";
  if (f.stored != 32 && f.stored != 64 && f.stored != 128) return "the stored group must be 32, 64 or 128";
  if (f.group <= 0 || f.k % f.group) return "the group does not divide the inputs";
  if (f.group != f.k && f.group % f.stored) return "the stored group does not divide the group";
  if ((t == kAwqGemm || t == kGptq || t == kGptqV2) && f.rows % 8) return "outputs must be a multiple of 8";
  if ((t == kAwqGemv || t == kGptq || t == kGptqV2) && f.k % 8) return "inputs must be a multiple of 8";
  if (t == kAwqGemvFast && (f.k % 64 || f.rows % 4)) return "inputs must be a multiple of 64 and outputs of 4";
  if (!f.zero && t != kCompressed) return "zeros are missing";
  if (f.scale_type != kF32 && (f.scale_type == kBf16) != (f.scale_bf16 != 0)) return "scales are of two types";
  return nullptr;
}

int64_t first_not_finite(const char* values, int32_t type, int64_t n) {
  const uint32_t exponent = type == kF32 ? 0x7f800000 : (type == kF16 ? 0x7c00 : 0x7f80);
  for (int64_t i = 0; i < n; i++) {
    const uint32_t bits = type == kF32 ? load<uint32_t>(values, i) : load<uint16_t>(values, i);
    if ((bits & exponent) == exponent) return i;
  }
  return -1;
}

int64_t first_inexact(const char* values, int64_t n, bool bf16) {
  for (int64_t i = 0; i < n; i++) {
    const float value = load<float>(values, i);
    if ((bf16 ? exact_bf16(value) : exact_f16(value)) < 0) return i;
  }
  return -1;
}

Int4Decode int4_decoder(int32_t format) {
  switch (format) {
    case kAwqGemm: return decode<gemm_nibbles>;
    case kAwqGemvFast: return decode<gemv_fast_nibbles>;
    case kGptq:
    case kGptqV2: return decode<gptq_nibbles>;
    default: return decode<row_nibbles>;
  }
}

}  // namespace sv
