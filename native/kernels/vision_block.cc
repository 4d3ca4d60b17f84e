// See vision_block.h.
#include "vision_block.h"

#include <math.h>

namespace sv {

void vision_block(Device& device, const VisionBlock& b) {
  const int64_t ld = padded_ld(b.e), ldq = padded_ld(3 * b.e), ldm = padded_ld(b.fc1.header.n), c = b.e / b.heads;
  float* normed = device.scratch(kNormed, b.n * ld);
  float* qkv = device.scratch(kQkv, b.n * ldq);
  device.layer_norm(b.x, b.e, b.norm1, b.norm1_bias, b.eps, b.n, b.e, normed, ld);
  Epilogue bias;
  bias.bias = b.qkv_bias;
  // Without values only the strips that hold q and k are needed.
  device.linear(normed, ld, b.n, b.qkv, bias, qkv, ldq, b.y ? -1 : (2 * b.e + kLanes - 1) / kLanes);

  Attention a = {};
  a.q = qkv;
  a.q_ld = ldq;
  a.t = b.n;
  a.heads = a.kv_heads = b.heads;
  a.c = c;
  a.rows = {(const char*)(qkv + b.e), (const char*)(qkv + 2 * b.e), ldq * 4, 0, nullptr, 0, 0};
  a.head_stride = c * 4;
  a.visible = b.n;
  a.causal = false;
  a.spans = b.spans;
  a.scale = 1.f / sqrtf((float)c);
  a.columns = b.columns;
  if (b.y) {
    a.out = device.scratch(kContext, b.n * ld);
    a.out_ld = ld;
  }
  device.attend(a);
  if (!b.y) return;

  float* hidden = device.scratch(kHidden, b.n * ld);
  float* mlp = device.scratch(kMlp, b.n * ldm);
  Epilogue residual;
  residual.bias = b.out_bias;
  residual.residual = b.x;
  residual.residual_ld = b.e;
  device.linear(a.out, ld, b.n, b.out, residual, hidden, ld);
  device.layer_norm(hidden, ld, b.norm2, b.norm2_bias, b.eps, b.n, b.e, normed, ld);
  Epilogue act;
  act.bias = b.fc1_bias;
  act.activation = b.activation;
  device.linear(normed, ld, b.n, b.fc1, act, mlp, ldm);
  Epilogue last;
  last.bias = b.fc2_bias;
  last.residual = hidden;
  last.residual_ld = ld;
  device.linear(mlp, ldm, b.n, b.fc2, last, b.y, b.e);
}

}  // namespace sv
