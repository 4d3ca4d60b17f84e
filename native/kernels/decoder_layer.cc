// See decoder_layer.h. Five parallel regions at one token: qkv, attention, o, gate and up, down.
#include "decoder_layer.h"

#include <math.h>

namespace sv {
namespace {

/** Queries, keys and values of a sequence's rows, side by side [t][ldq]: rotates queries and keys, appends keys and values to the
 *  cache, attends. context: [t][ldc]. */
void attend_sequence(Device& device, const Sequence& s, float* heads, int64_t ldq, int64_t query_width, const float* cos,
                     const float* sin, float* context, int64_t ldc) {
  device.rope_and_append(heads, ldq, s.t, query_width, cos, sin, s.kv, s.length);
  Attention a = {};
  a.q = heads;
  a.q_ld = ldq;
  a.t = s.t;
  a.heads = query_width / s.kv.c;
  a.kv_heads = s.kv.heads;
  a.c = s.kv.c;
  a.rows = {s.kv.k(), s.kv.v(), s.kv.row_stride(), s.kv.bf16, s.rows, s.n_rows, s.tail};
  a.head_stride = s.kv.head_stride();
  a.spans = s.spans;
  a.causal = !s.spans;
  a.visible = s.n_rows + s.length - s.tail + (a.causal ? 1 : s.t);
  a.scale = 1.f / sqrtf((float)s.kv.c);
  a.out = context;
  a.out_ld = ldc;
  a.columns = s.columns;
  device.attend(a);
}

}  // namespace

void decoder_layer(Device& device, const DecoderLayer& l) {
  const KvCache& kv = l.sequences[0].kv;
  const int64_t qkv_width = l.qkv.header.n, query_width = qkv_width - 2 * kv.heads * kv.c, mlp_width = l.gate_up.header.n;
  const int64_t ld = padded_ld(l.d), ldq = padded_ld(qkv_width), ldc = padded_ld(query_width), ldm = padded_ld(mlp_width);
  float* normed = device.scratch(kNormed, l.t * ld);
  float* heads = device.scratch(kQkv, l.t * ldq);  // q, k, v of a token side by side
  float* context = device.scratch(kContext, l.t * ldc);
  float* hidden = device.scratch(kHidden, l.t * ld);
  float* mlp = device.scratch(kMlp, l.t * ldm);

  device.rms_norm(l.x, l.d, l.input_norm, l.eps, l.t, l.d, normed, ld);
  Epilogue e;
  e.bias = l.qkv_bias;
  device.linear(normed, ld, l.t, l.qkv, e, heads, ldq);
  int64_t first = 0;
  for (const Sequence& s : l.sequences) {
    const int64_t angles = first * (kv.c / 2);
    attend_sequence(device, s, heads + first * ldq, ldq, query_width, l.cos + angles, l.sin + angles, context + first * ldc, ldc);
    first += s.t;
  }

  Epilogue residual;
  residual.bias = l.o_bias;
  residual.residual = l.x;
  residual.residual_ld = l.d;
  device.linear(context, ldc, l.t, l.o, residual, hidden, ld);
  device.rms_norm(hidden, ld, l.post_norm, l.eps, l.t, l.d, normed, ld);
  Epilogue gate;
  gate.activation = kSilu;
  device.linear(normed, ld, l.t, l.gate_up, gate, mlp, ldm);
  Epilogue last;
  last.residual = hidden;
  last.residual_ld = ld;
  device.linear(mlp, ldm, l.t, l.down, last, l.y, l.d);
}

}  // namespace sv
