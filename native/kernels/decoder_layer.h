// One pre-norm decoder layer (Llama, Qwen2) over a KV cache, composed of a device's kernels:
//   h = x + o_proj(attend(rope(qkv(rms_norm(x))))),  y = h + down(silu(gate(n)) * up(n)),  n = rms_norm(h).
#pragma once
#include "device.h"

namespace sv {

struct DecoderLayer {
  const float* x;                          // [t][d]
  int64_t t, d;
  KvCache kv;                              // rows [length, length + t) are written
  const float *input_norm, *post_norm;     // [d]
  const float* eps;                        // [1]
  Matrix qkv, o, gate_up, down;            // qkv rows: q heads, k heads, v heads
  const float *qkv_bias, *o_bias;          // null when absent
  const float *cos, *sin;                  // [t][c / 2]
  const int32_t* rows;                     // the turn's view: rows attended besides the tail
  int64_t n_rows, tail, length;            // tail: first row of the contiguous rest; length: rows in the cache before
  float* y;                                // [t][d]
  float* columns;                          // [n_rows + length - tail + t] or null
};

void decoder_layer(Device&, const DecoderLayer&);

}  // namespace sv
