// One pre-norm decoder layer (Llama, Qwen2) over a KV cache, composed of the kernels of this folder:
//   h = x + o_proj(attend(rope(qkv(rms_norm(x))))),  y = h + down(silu(gate(n)) * up(n)),  n = rms_norm(h).
#pragma once
#include "kernels.h"

namespace sv {

struct DecoderLayer {
  const float* x;                          // [t][d]
  int64_t t, d;
  char* kv;                                // [2][g][capacity][c] bf16 or f32; rows [length, length + t) are written
  bool bf16;
  int64_t kv_heads, capacity, c;
  const float *input_norm, *post_norm;     // [d]
  float eps;
  const void *qkv, *o, *gate_up, *down;    // packed; qkv rows: q heads, k heads, v heads
  const float *qkv_bias, *o_bias;          // null when absent
  const float *cos, *sin;                  // [t][c / 2]
  const int32_t* rows;                     // the turn's view: rows attended besides the tail
  int64_t n_rows, tail, length;            // tail: first row of the contiguous rest; length: rows in the cache before
  float* y;                                // [t][d]
  float* columns;                          // [n_rows + length - tail + t] or null
};

void decoder_layer(const DecoderLayer&);

}  // namespace sv
