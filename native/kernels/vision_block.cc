// See vision_block.h.
#include "vision_block.h"

#include <math.h>

#include "attention.h"
#include "linear.h"
#include "pool.h"

namespace sv {
namespace {

void norm_rows(const VisionBlock& b, const float* x, int64_t ldx, const float* w, const float* bias, float* y, int64_t ldy) {
  parallel(b.n, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) kernels().layer_norm(x + i * ldx, w, bias, b.eps, b.e, y + i * ldy);
  });
}

}  // namespace

void vision_block(const VisionBlock& b) {
  const auto& fc1 = *static_cast<const PackedHeader*>(b.fc1);
  const int64_t ld = padded_ld(b.e), ldq = padded_ld(3 * b.e), ldm = padded_ld(fc1.n), c = b.e / b.heads;
  float* normed = shared_scratch(kNormed, b.n * ld);
  float* qkv = shared_scratch(kQkv, b.n * ldq);
  norm_rows(b, b.x, b.e, b.norm1, b.norm1_bias, normed, ld);
  Epilogue bias;
  bias.bias = b.qkv_bias;
  // Without values only the strips that hold q and k are needed.
  linear(normed, ld, b.n, b.qkv, bias, qkv, ldq, b.y ? -1 : (2 * b.e + kLanes - 1) / kLanes);

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
  a.scale = 1.f / sqrtf((float)c);
  a.columns = b.columns;
  if (b.y) {
    a.out = shared_scratch(kContext, b.n * ld);
    a.out_ld = ld;
  }
  attend(a);
  if (!b.y) return;

  float* hidden = shared_scratch(kHidden, b.n * ld);
  float* mlp = shared_scratch(kMlp, b.n * ldm);
  Epilogue residual;
  residual.bias = b.out_bias;
  residual.residual = b.x;
  residual.residual_ld = b.e;
  linear(a.out, ld, b.n, b.out, residual, hidden, ld);
  norm_rows(b, hidden, ld, b.norm2, b.norm2_bias, normed, ld);
  Epilogue act;
  act.bias = b.fc1_bias;
  act.activation = b.activation;
  linear(normed, ld, b.n, b.fc1, act, mlp, ldm);
  Epilogue last;
  last.bias = b.fc2_bias;
  last.residual = hidden;
  last.residual_ld = ld;
  linear(mlp, ldm, b.n, b.fc2, last, b.y, b.e);
}

}  // namespace sv
