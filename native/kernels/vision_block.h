// One pre-norm vision transformer block (SigLIP, CLIP, Qwen2.5-VL, InternViT) over n patches, composed of a device's kernels:
//   h = x + scale1 out(attend(rope(qkv(norm1(x))))),  y = h + scale2 fc2(act(fc1(norm2(h)))),
// where fc1 may be gated: act(gate(n)) up(n). It can stop after the keys or after the attention weights, for a layer whose
// features are not needed.
#pragma once
#include "device.h"

namespace sv {

/** LayerNorm where there is a bias, else RMSNorm. */
struct Norm {
  const float *weight, *bias;
};

struct VisionBlock {
  const float* x;  // [n][e]
  int64_t n, e, heads;
  Norm norm1, norm2;  // [e]
  const float* eps;   // [1]
  Matrix qkv, out, fc1, fc2;
  const float *qkv_bias, *out_bias, *fc1_bias, *fc2_bias;  // null when absent
  const float *q_norm, *k_norm;                            // [e], RMSNorm over all heads; null: none
  const float *scale1, *scale2;                            // [e]; null: 1
  int32_t activation;
  const float *cos, *sin;  // [n][c / 2]; null: no rotary embedding
  const int32_t* spans;    // [n][2]: the patches that each attends; null: all
  float* y;                // [n][e], or null
  float* columns;          // [n]: mean over heads and rows of the softmax, or null
  bool of_first_row;       // columns: of row 0 alone, a class row
  float* keys;             // [n][e], before their norm and rotary embedding, or null
};

void vision_block(Device&, const VisionBlock&);

}  // namespace sv
