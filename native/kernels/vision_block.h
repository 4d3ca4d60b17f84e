// One pre-norm vision transformer block (SigLIP, CLIP) over n patches, composed of a device's kernels:
//   h = x + out(attend(qkv(layer_norm(x)))),  y = h + fc2(act(fc1(layer_norm(h)))).
// It can stop after the attention weights, for the salience of a layer whose features are not needed.
#pragma once
#include "device.h"

namespace sv {

struct VisionBlock {
  const float* x;  // [n][e]
  int64_t n, e, heads;
  const float *norm1, *norm1_bias, *norm2, *norm2_bias;  // [e]
  const float* eps;                                      // [1]
  Matrix qkv, out, fc1, fc2;
  const float *qkv_bias, *out_bias, *fc1_bias, *fc2_bias;
  int32_t activation;
  const int32_t* spans;  // [n][2]: the patches that each attends; null: all
  float* y;              // [n][e]; null: columns only
  float* columns;        // [n]: mean over heads and rows of the softmax, or null
};

void vision_block(Device&, const VisionBlock&);

}  // namespace sv
