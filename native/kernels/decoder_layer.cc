// See decoder_layer.h. Five parallel regions at one token: qkv, attention, o, gate and up, down.
#include "decoder_layer.h"

#include <math.h>

namespace sv {
namespace {

Attention layer_attention(const DecoderLayer& l, const float* q, int64_t ldq, int64_t query_width, float* context, int64_t ldc) {
  Attention a = {};
  a.q = q;
  a.q_ld = ldq;
  a.t = l.t;
  a.heads = query_width / l.kv.c;
  a.kv_heads = l.kv.heads;
  a.c = l.kv.c;
  a.rows = {l.kv.k(), l.kv.v(), l.kv.row_stride(), l.kv.bf16, l.rows, l.n_rows, l.tail};
  a.head_stride = l.kv.head_stride();
  a.visible = l.n_rows + l.length - l.tail + 1;
  a.causal = true;
  a.scale = 1.f / sqrtf((float)l.kv.c);
  a.out = context;
  a.out_ld = ldc;
  a.columns = l.columns;
  return a;
}

}  // namespace

void decoder_layer(Device& device, const DecoderLayer& l) {
  const int64_t qkv_width = l.qkv.header.n, query_width = qkv_width - 2 * l.kv.heads * l.kv.c, mlp_width = l.gate_up.header.n;
  const int64_t ld = padded_ld(l.d), ldq = padded_ld(qkv_width), ldc = padded_ld(query_width), ldm = padded_ld(mlp_width);
  float* normed = device.scratch(kNormed, l.t * ld);
  float* heads = device.scratch(kQkv, l.t * ldq);        // q, k, v of a token side by side
  float* context = device.scratch(kContext, l.t * ldc);
  float* hidden = device.scratch(kHidden, l.t * ld);
  float* mlp = device.scratch(kMlp, l.t * ldm);

  device.rms_norm(l.x, l.d, l.input_norm, l.eps, l.t, l.d, normed, ld);
  Epilogue e;
  e.bias = l.qkv_bias;
  device.linear(normed, ld, l.t, l.qkv, e, heads, ldq);
  device.rope_and_append(heads, ldq, l.t, query_width, l.cos, l.sin, l.kv, l.length);
  device.attend(layer_attention(l, heads, ldq, query_width, context, ldc));

  Epilogue residual;
  residual.bias = l.o_bias;
  residual.residual = l.x;
  residual.residual_ld = l.d;
  device.linear(context, ldc, l.t, l.o, residual, hidden, ld);
  device.rms_norm(hidden, ld, l.post_norm, l.eps, l.t, l.d, normed, ld);
  device.linear(normed, ld, l.t, l.gate_up, Epilogue{}, mlp, ldm);
  Epilogue last;
  last.residual = hidden;
  last.residual_ld = ld;
  device.linear(mlp, ldm, l.t, l.down, last, l.y, l.d);
}

}  // namespace sv
