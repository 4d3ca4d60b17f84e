// One pre-norm decoder layer (Llama, Qwen2, Qwen3, Gemma 3, Qwen3.5) over the KV caches of the sequences whose rows it is given, composed of
// a device's kernels:
//   h = x + o_proj(attend(rope(qkv(rms_norm(x))))),  y = h + down(act(gate(n)) * up(n)),  n = rms_norm(h).
// What attention gives may be multiplied by sigmoid(gate), where q_proj gives each head a query and a gate. A delta layer has the gated
// delta rule (delta.h) over states in place of attention: h = x + out_proj(rms_norm(delta_rule(qkv, b, a)) * silu(z)).
// Queries and keys may have a norm of each head before rotary embedding, and what attention and the MLP give one before it is added.
// Norms and matrix products run over the rows of all sequences at once; rotary embedding, appending to the cache and attention run
// sequence by sequence. No bit of a sequence depends on the others.
#pragma once
#include <vector>

#include "device.h"

namespace sv {

/** The column mean of a sequence's softmax. kLastRow: that of its last row alone, and nothing else of the layer but the cache. A negative
 *  number -k: that of its last k rows, beside the whole layer. */
enum Columns : int32_t {
  kNoColumns = 0,
  kAllRows = 1,
  kLastRow = 2
};

/** Rows of one sequence, and what they attend in the layer. */
struct Sequence {
  int64_t t;                     // its rows of x, which follow those of the sequence before
  KvCache kv;                    // rows [length, length + t) are written
  float* state;                  // of a delta layer, in place of kv and of what follows
  const int32_t* rows;           // the turn's view: rows attended besides the tail
  int64_t n_rows, tail, length;  // tail: first row of the contiguous rest; length: rows in the cache before
  const int32_t* spans;          // [t][2], see attention.h; null: causal
  int32_t wanted;                // Columns
  float* columns;                // [columns_count()] or null
  int64_t columns_count() const { return wanted ? n_rows + length - tail + t : 0; }
};

struct DecoderLayer {
  const float* x;  // [t][d]
  int64_t t, d;
  std::vector<Sequence> sequences;         // of the same kv heads and head width
  const float *input_norm, *post_norm;     // [d]: before attention, before the MLP
  const float *attention_norm, *mlp_norm;  // [d]: of what these give; null: none
  const float *q_norm, *k_norm;            // [c]: of each head; null: none
  const float* eps;                        // [1]
  Matrix qkv, o, gate_up, down;            // qkv rows: q heads, k heads, v heads
  const float *qkv_bias, *o_bias;          // null when absent
  int32_t activation;                      // of the gate
  float scale, softcap;                    // of scores, see attention.h
  const float *cos, *sin;                  // [t][half]
  int64_t half;                            // pairs of a head that are rotated, at most c / 2
  bool gated;                              // qkv rows: a query and a gate of each head, k heads, v heads
  bool is_delta;                           // qkv rows: as DeltaSizes::width, then z as wide as the values
  DeltaSizes sizes;                        // of a delta layer, as are the next
  Matrix ba;                               // b of each value head, then a
  const float *conv, *a_log, *dt_bias;     // as Delta
  const float* delta_norm;                 // [dv]
  float* y;                                // [t][d]; null: columns of last rows only
};

void decoder_layer(Device&, const DecoderLayer&);

}  // namespace sv
