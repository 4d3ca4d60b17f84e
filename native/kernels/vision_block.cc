// See vision_block.h.
#include "vision_block.h"

#include <math.h>

namespace sv {
namespace {

void normalize(Device& device, const VisionBlock& b, const float* x, int64_t ldx, const Norm& norm, float* y, int64_t ldy) {
  if (norm.bias) device.layer_norm(x, ldx, norm.weight, norm.bias, b.eps, b.n, b.e, y, ldy);
  else device.rms_norm(x, ldx, norm.weight, b.eps, b.n, b.e, y, ldy);
}

/** Attention of queries, keys and values side by side, [n][ld]; out [n][ld_out] or null. */
void attend_patches(Device& device, const VisionBlock& b, float* qkv, int64_t ld, float* out, int64_t ld_out) {
  const int64_t c = b.e / b.heads;
  if (b.q_norm) device.rms_norm(qkv, ld, b.q_norm, b.eps, b.n, b.e, qkv, ld);
  if (b.k_norm) device.rms_norm(qkv + b.e, ld, b.k_norm, b.eps, b.n, b.e, qkv + b.e, ld);
  if (b.cos) device.rope(qkv, ld, b.cos, b.sin, b.n, 2 * b.heads, c, qkv, ld);
  Attention a = {};
  a.q = qkv;
  a.q_ld = ld;
  a.t = b.n;
  a.heads = a.kv_heads = b.heads;
  a.c = c;
  a.rows = {(const char*)(qkv + b.e), (const char*)(qkv + 2 * b.e), ld * 4, 0, nullptr, 0, 0};
  a.head_stride = c * 4;
  a.visible = b.n;
  a.causal = false;
  a.tiles = !b.spans && b.n >= 256;  // with fewer rows, packing takes longer than it saves
  a.spans = b.spans;
  a.scale = 1.f / sqrtf((float)c);
  a.out = out;
  a.out_ld = ld_out;
  a.columns = b.of_first_row ? nullptr : b.columns;
  if (a.out || a.columns) device.attend(a);
  if (!b.columns || !b.of_first_row) return;
  a.t = 1;
  a.out = nullptr;
  a.columns = b.columns;
  device.attend(a);
}

}  // namespace

void vision_block(Device& device, const VisionBlock& b) {
  const int64_t ld = padded_ld(b.e), ldq = padded_ld(3 * b.e), ldm = padded_ld(b.fc1.header.n);
  float* normed = device.scratch(kNormed, b.n * ld);
  float* qkv = device.scratch(kQkv, b.n * ldq);
  normalize(device, b, b.x, b.e, b.norm1, normed, ld);
  Epilogue bias;
  bias.bias = b.qkv_bias;
  // Without values only the strips that hold q and k are needed.
  device.linear(normed, ld, b.n, b.qkv, bias, qkv, ldq, b.y ? -1 : (2 * b.e + kLanes - 1) / kLanes);
  if (b.keys) device.copy_rows(qkv + b.e, ldq, b.n, b.e, b.keys);
  float* context = b.y ? device.scratch(kContext, b.n * ld) : nullptr;
  attend_patches(device, b, qkv, ldq, context, ld);
  if (!b.y) return;

  float* hidden = device.scratch(kHidden, b.n * ld);
  float* mlp = device.scratch(kMlp, b.n * ldm);
  Epilogue residual;
  residual.bias = b.out_bias;
  residual.scale = b.scale1;
  residual.residual = b.x;
  residual.residual_ld = b.e;
  device.linear(context, ld, b.n, b.out, residual, hidden, ld);
  normalize(device, b, hidden, ld, b.norm2, normed, ld);
  Epilogue act;
  act.bias = b.fc1_bias;
  act.activation = b.activation;
  device.linear(normed, ld, b.n, b.fc1, act, mlp, ldm);
  Epilogue last;
  last.bias = b.fc2_bias;
  last.scale = b.scale2;
  last.residual = hidden;
  last.residual_ld = ld;
  device.linear(mlp, ldm, b.n, b.fc2, last, b.y, b.e);
}

}  // namespace sv
