// The gated delta rule over the states of one or more sequences: a causal convolution of queries, keys and values, then the recurrence
//   S = decay S + k (beta (v - decay S^T k))^T,  o = S^T q
// token by token, so that no bit depends on how a sequence's rows are split into calls.
// Source: Gated Delta Networks (arXiv 2412.06464, eq. 10); transformers 5.24 `torch_recurrent_gated_delta_rule`.
#pragma once
#include "host_device.h"
#include "kernels.h"

namespace sv {

/** Heads of a delta layer: `value_heads / key_heads` consecutive value heads share a key head. */
struct DeltaSizes {
  int64_t key_heads, value_heads, dk, dv;
  int64_t taps;  // width of the convolution
  SV_HOST_DEVICE int64_t key_width() const { return key_heads * dk; }
  SV_HOST_DEVICE int64_t value_width() const { return value_heads * dv; }
  /** Width of a row: query heads, key heads, value heads. */
  SV_HOST_DEVICE int64_t width() const { return 2 * key_width() + value_width(); }
  /** Floats of one head's matrix: strips of 16 columns, [strips][dk][16]. */
  SV_HOST_DEVICE int64_t matrix_floats() const { return (dv + kLanes - 1) / kLanes * kLanes * dk; }
  /** Floats of a state: a matrix per value head, then the last taps - 1 rows before the convolution. */
  SV_HOST_DEVICE int64_t state_floats() const { return value_heads * matrix_floats() + (taps - 1) * width(); }
};

/** The rows of one sequence, which follow those of the sequence before, and the state that they change. */
struct DeltaSequence {
  int64_t t;
  float* state;
};

struct Delta {
  DeltaSizes sizes;
  const float* x;  // [t][ldx]: queries, keys and values before the convolution
  int64_t ldx;
  const float* gates;  // [t][ldg]: b, then a, of each value head
  int64_t ldg;
  const float* conv;             // [width][taps]
  const float *a_log, *dt_bias;  // [value_heads]: decay = exp(-exp(a_log) softplus(a + dt_bias)), beta = sigmoid(b)
  const DeltaSequence* sequences;
  int64_t count;
  float* out;  // [t][ldo], value head i at i * dv
  int64_t ldo;
};

void delta_rule(const Delta&);

}  // namespace sv
