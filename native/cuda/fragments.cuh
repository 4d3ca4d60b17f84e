// The part of a product that each lane of a warp holds for the tensor cores. The strip of 16 outputs is the mma's left operand, eight rows
// of activations are its right one, so a packed strip is read in its stored order, and one row costs as many instructions as eight.
// Knows no weight type's arithmetic.
//
// Lane 4 g + t stands for outputs 2g and 2g + 1 (the operand's rows g and g + 8: neighbors, so that both are one 8-byte load)
// and, as the right operand, for row g of a block of eight. A step is 16 inputs, of which a lane holds 4t .. 4t + 3 (the
// operand's columns 2t, 2t + 1, 2t + 8, 2t + 9: any order will do where both operands keep it); for 8-bit values it is 32
// inputs, 4t .. 4t + 3 and 16 + 4t .. 16 + 4t + 3.
//
// Activations are brought into this order by a kernel of their own: [block of 8 rows][step][lane] and, per lane, `planes`
// times two words of two bf16, x ~ hi + lo; or two words of four 8-bit values. Rows past the last one are never read.
#pragma once
#include "launch.h"
#include "product.h"

namespace sv {
namespace gpu {

constexpr int kRowBlock = 8;

__device__ __forceinline__ float half_to_float(uint32_t half) {
  const uint32_t magnitude = (half & 0x7fff) << 13;  // the exponent is 112 too small: a factor, which makes subnormals right too
  const float f = magnitude >= 0x0f800000 ? __uint_as_float(magnitude | 0x7f800000) : __uint_as_float(magnitude) * 0x1p112f;
  return __uint_as_float(__float_as_uint(f) | (half & 0x8000) << 16);
}

/** A lane's part of eight rows by one step. */
template <int Planes>
struct Fragment {
  uint32_t words[Planes][2];
};
__device__ __forceinline__ void load(Fragment<1>& f, const char* p) {
  const uint2 v = *(const uint2*)p;
  f.words[0][0] = v.x, f.words[0][1] = v.y;
}
__device__ __forceinline__ void load(Fragment<2>& f, const char* p) {
  const uint4 v = *(const uint4*)p;
  f.words[0][0] = v.x, f.words[0][1] = v.y, f.words[1][0] = v.z, f.words[1][1] = v.w;
}

/** What a warp multiplies: S strips from `strip` on by N blocks of rows from `row` on. Strips past the last repeat it. */
template <int S, int N>
struct WarpTile {
  int64_t strip, row;
  int g, t;
  const char* w[S];
  const char* x;  // this lane's part of the first step of the first block
  int64_t block_bytes;
  bool live[N];  // whether this lane's row of a block exists

  __device__ __forceinline__ WarpTile(const Product& p, int64_t first_strip, int64_t first_row, int64_t steps, int lane_bytes) {
    strip = first_strip, row = first_row;
    const int lane = threadIdx.x % kWarp;
    g = lane / 4, t = lane % 4;
    for (int s = 0; s < S; s++) w[s] = p.w + (strip + s < p.strips ? strip + s : p.strips - 1) * p.strip_bytes;
    block_bytes = steps * kWarp * lane_bytes;
    x = p.fragments + row / kRowBlock * block_bytes + lane * lane_bytes;
    for (int n = 0; n < N; n++) live[n] = row + n * kRowBlock + g < p.rows;
  }

  template <int Planes>
  __device__ __forceinline__ void activations(int64_t step, Fragment<Planes> (&out)[N]) const {
#pragma unroll
    for (int n = 0; n < N; n++) {
      out[n] = {};
      if (live[n]) load(out[n], x + n * block_bytes + step * (kWarp * 8 * Planes));
    }
  }
};

}  // namespace gpu
}  // namespace sv
