// One pre-norm decoder layer (Llama, Qwen2) over the KV caches of the sequences whose rows it is given, composed of a device's
// kernels:
//   h = x + o_proj(attend(rope(qkv(rms_norm(x))))),  y = h + down(silu(gate(n)) * up(n)),  n = rms_norm(h).
// Norms and matrix products run over the rows of all sequences at once; rotary embedding, appending to the cache and attention run
// sequence by sequence. No bit of a sequence depends on the others.
#pragma once
#include <vector>

#include "device.h"

namespace sv {

/** Rows of one sequence, and what they attend in the layer. */
struct Sequence {
  int64_t t;                     // its rows of x, which follow those of the sequence before
  KvCache kv;                    // rows [length, length + t) are written
  const int32_t* rows;           // the turn's view: rows attended besides the tail
  int64_t n_rows, tail, length;  // tail: first row of the contiguous rest; length: rows in the cache before
  const int32_t* spans;          // [t][2], see attention.h; null: causal
  bool wants_columns;
  float* columns;  // [columns_count()] or null
  int64_t columns_count() const { return wants_columns ? n_rows + length - tail + t : 0; }
};

struct DecoderLayer {
  const float* x;  // [t][d]
  int64_t t, d;
  std::vector<Sequence> sequences;      // of the same kv heads and head width
  const float *input_norm, *post_norm;  // [d]
  const float* eps;                     // [1]
  Matrix qkv, o, gate_up, down;         // qkv rows: q heads, k heads, v heads
  const float *qkv_bias, *o_bias;       // null when absent
  const float *cos, *sin;               // [t][c / 2]
  float* y;                             // [t][d]
};

void decoder_layer(Device&, const DecoderLayer&);

}  // namespace sv
