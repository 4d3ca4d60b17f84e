// See decoder_layer.h. Five parallel regions at one token: qkv, attention, o, gate and up, down.
#include "decoder_layer.h"

#include <math.h>

#include "attention.h"
#include "linear.h"
#include "pool.h"

namespace sv {
namespace {

void norm_rows(const DecoderLayer& l, const float* x, int64_t ldx, const float* w, float* y, int64_t ldy) {
  parallel(l.t, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) kernels().rms_norm(x + i * ldx, w, l.eps, l.d, y + i * ldy);
  });
}

}  // namespace

void decoder_layer(const DecoderLayer& l) {
  const auto& qkv = *static_cast<const PackedHeader*>(l.qkv);
  const auto& gate_up = *static_cast<const PackedHeader*>(l.gate_up);
  const int64_t key_width = l.kv_heads * l.c, query_width = qkv.n - 2 * key_width;
  const int64_t ld = padded_ld(l.d), ldq = padded_ld(qkv.n), ldc = padded_ld(query_width), ldm = padded_ld(gate_up.n);
  const int64_t element = l.bf16 ? 2 : 4, row_stride = l.c * element, head_stride = l.capacity * row_stride;
  char *k = l.kv, *v = l.kv + l.kv_heads * head_stride;
  float* normed = shared_scratch(kNormed, l.t * ld);
  float* heads = shared_scratch(kQkv, l.t * ldq);        // q, k, v of a token side by side
  float* context = shared_scratch(kContext, l.t * ldc);
  float* hidden = shared_scratch(kHidden, l.t * ld);
  float* mlp = shared_scratch(kMlp, l.t * ldm);

  norm_rows(l, l.x, l.d, l.input_norm, normed, ld);
  Epilogue e;
  e.bias = l.qkv_bias;
  linear(normed, ld, l.t, l.qkv, e, heads, ldq);
  parallel(l.t, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      float* row = heads + i * ldq;
      for (int64_t x = 0; x < query_width + key_width; x += l.c)
        kernels().rope(row + x, l.cos + i * (l.c / 2), l.sin + i * (l.c / 2), l.c / 2);
      kv_write(k, v, l.bf16, head_stride, row_stride, l.length + i, row + query_width, row + query_width + key_width, 0, 1,
               l.kv_heads, l.c);
    }
  });

  Attention a = {};
  a.q = heads;
  a.q_ld = ldq;
  a.t = l.t;
  a.heads = query_width / l.c;
  a.kv_heads = l.kv_heads;
  a.c = l.c;
  a.rows = {k, v, row_stride, l.bf16, l.rows, l.n_rows, l.tail};
  a.head_stride = head_stride;
  a.visible = l.n_rows + l.length - l.tail + 1;
  a.causal = true;
  a.scale = 1.f / sqrtf((float)l.c);
  a.out = context;
  a.out_ld = ldc;
  a.columns = l.columns;
  attend(a);

  Epilogue residual;
  residual.bias = l.o_bias;
  residual.residual = l.x;
  residual.residual_ld = l.d;
  linear(context, ldc, l.t, l.o, residual, hidden, ld);
  norm_rows(l, hidden, ld, l.post_norm, normed, ld);
  linear(normed, ld, l.t, l.gate_up, Epilogue{}, mlp, ldm);
  Epilogue last;
  last.residual = hidden;
  last.residual_ld = ld;
  linear(mlp, ldm, l.t, l.down, last, l.y, l.d);
}

}  // namespace sv
