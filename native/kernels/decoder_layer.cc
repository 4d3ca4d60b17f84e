// See decoder_layer.h. Five parallel regions at one token: qkv, attention, o, gate and up, down.
#include "decoder_layer.h"

namespace sv {
namespace {

/** Queries, keys and values of a sequence's rows, side by side [t][ldq]: rotates queries and keys, appends keys and values to the
 *  cache. Returns the attention that is left to do. context: [t][ldc]; null: only columns. */
Attention append_sequence(Device& device, const DecoderLayer& l, const Sequence& s, int64_t first, float* heads, int64_t ldq,
                          int64_t query_width, float* context, int64_t ldc) {
  const int64_t c = s.kv.c, angles = first * l.half;
  heads += first * ldq;
  device.rope_and_append(heads, ldq, s.t, query_width, l.cos + angles, l.sin + angles, l.half, s.kv, s.length);
  Attention a = {};
  const int64_t from = s.wanted == kLastRow ? s.t - 1 : 0;
  a.q = heads + from * ldq;
  a.q_ld = ldq;
  a.t = s.t - from;
  a.heads = query_width / c;
  a.kv_heads = s.kv.heads;
  a.c = c;
  a.rows = {s.kv.k(), s.kv.v(), s.kv.row_stride(), s.kv.bf16, s.rows, s.n_rows, s.tail};
  a.head_stride = s.kv.head_stride();
  a.spans = s.spans ? s.spans + 2 * from : nullptr;
  a.causal = !s.spans;
  a.visible = s.n_rows + s.length - s.tail + (a.causal ? from + 1 : s.t);
  a.scale = l.scale;
  a.softcap = l.softcap;
  a.out = context ? context + first * ldc : nullptr;
  a.out_ld = ldc;
  a.columns = s.wanted < 0 ? nullptr : s.columns;
  return a;
}

/** Only the columns of the last rows, where attention would compute them for all of its rows. */
Attention rated_columns(const Sequence& s, Attention a) {
  const int64_t skipped = s.t + s.wanted;
  a.q += skipped * a.q_ld;
  a.t -= skipped;
  if (a.spans) a.spans += 2 * skipped;
  if (a.causal) a.visible += skipped;
  a.out = nullptr;
  a.columns = s.columns;
  return a;
}

/** y = x W^T + bias + residual; with a norm, of the product before the residual is added to it. Rows of x, residual and y are d wide. */
struct Sum {
  const float *bias, *norm, *residual;
  int64_t residual_ld;
};
void add_product(Device& device, const DecoderLayer& l, const float* x, int64_t ldx, const Matrix& m, const Sum& sum, float* normed,
                 int64_t ld, float* y, int64_t ldy) {
  Epilogue e;
  e.bias = sum.bias;
  if (!sum.norm) {
    e.residual = sum.residual;
    e.residual_ld = sum.residual_ld;
    device.linear(x, ldx, l.t, m, e, y, ldy);
    return;
  }
  device.linear(x, ldx, l.t, m, e, normed, ld);
  device.rms_norm(normed, ld, sum.norm, l.eps, l.t, l.d, normed, ld);
  device.add(normed, ld, sum.residual, sum.residual_ld, l.t, l.d, y, ldy);
}

/** Attention of all rows; returns what o_proj takes, [t][padded_ld(o's inputs)], or null where only columns are wanted. */
float* mix_by_attention(Device& device, const DecoderLayer& l, const float* normed, int64_t ld) {
  const KvCache& kv = l.sequences[0].kv;
  const int64_t c = kv.c, key_width = kv.heads * c, query_width = l.o.header.k, width = query_width + 2 * key_width;
  const int64_t wide = l.qkv.header.n, ldw = padded_ld(wide), ldq = padded_ld(width), ldc = padded_ld(query_width);
  float* heads = device.scratch(kQkv, l.t * ldq);  // q, k, v of a token side by side
  float* gates = l.gated ? device.scratch(kGates, l.t * ldc) : nullptr;
  Epilogue e;
  e.bias = l.qkv_bias;
  if (l.gated) {
    float* both = device.scratch(kWide, l.t * ldw);
    device.linear(normed, ld, l.t, l.qkv, e, both, ldw);
    device.copy_heads(both, ldw, l.t, query_width / c, 2 * c, c, heads, ldq);
    device.copy_heads(both + c, ldw, l.t, query_width / c, 2 * c, c, gates, ldc);
    device.copy_heads(both + 2 * query_width, ldw, l.t, 1, 0, 2 * key_width, heads + query_width, ldq);
  } else {
    device.linear(normed, ld, l.t, l.qkv, e, heads, ldq);
  }
  if (l.q_norm) device.rms_norm(heads, ldq, l.q_norm, l.eps, l.t, c, heads, ldq, query_width / c);
  if (l.k_norm) device.rms_norm(heads + query_width, ldq, l.k_norm, l.eps, l.t, c, heads + query_width, ldq, kv.heads);
  float* context = l.y ? device.scratch(kContext, l.t * ldc) : nullptr;
  int64_t first = 0;
  std::vector<Attention> calls, rated;
  for (const Sequence& s : l.sequences) {
    calls.push_back(append_sequence(device, l, s, first, heads, ldq, query_width, context, ldc));
    if (s.wanted < 0) rated.push_back(rated_columns(s, calls.back()));
    first += s.t;
  }
  device.attend_all(calls.data(), (int64_t)calls.size());
  for (const Attention& a : rated) device.attend(a);
  if (l.gated && context) device.gated_mul(gates, ldc, context, ldc, l.t, query_width, kSigmoid, context, ldc);
  return context;
}

/** The same by the gated delta rule. */
float* mix_by_delta(Device& device, const DecoderLayer& l, const float* normed, int64_t ld) {
  const int64_t width = l.sizes.width(), out_width = l.sizes.value_width();
  const int64_t ldw = padded_ld(width + out_width), ldg = padded_ld(2 * l.sizes.value_heads), ldc = padded_ld(out_width);
  float* rows = device.scratch(kQkv, l.t * ldw);  // q, k, v, z of a token side by side
  float* gates = device.scratch(kGates, l.t * ldg);
  float* context = device.scratch(kContext, l.t * ldc);
  device.linear(normed, ld, l.t, l.qkv, {}, rows, ldw);
  device.linear(normed, ld, l.t, l.ba, {}, gates, ldg);
  std::vector<DeltaSequence> sequences;
  for (const Sequence& s : l.sequences) sequences.push_back({s.t, s.state});
  device.delta_rule({l.sizes, rows, ldw, gates, ldg, l.conv, l.a_log, l.dt_bias, sequences.data(), (int64_t)sequences.size(), context, ldc});
  device.rms_norm(context, ldc, l.delta_norm, l.eps, l.t, l.sizes.dv, context, ldc, l.sizes.value_heads);
  device.gated_mul(rows + width, ldw, context, ldc, l.t, out_width, kSilu, context, ldc);
  return context;
}

}  // namespace

void decoder_layer(Device& device, const DecoderLayer& l) {
  const int64_t mlp_width = l.gate_up.header.n;
  const int64_t ld = padded_ld(l.d), ldc = padded_ld(l.o.header.k), ldm = padded_ld(mlp_width);
  float* normed = device.scratch(kNormed, l.t * ld);

  device.rms_norm(l.x, l.d, l.input_norm, l.eps, l.t, l.d, normed, ld);
  const float* context = l.is_delta ? mix_by_delta(device, l, normed, ld) : mix_by_attention(device, l, normed, ld);
  if (!l.y) return;

  float* hidden = device.scratch(kHidden, l.t * ld);
  float* mlp = device.scratch(kMlp, l.t * ldm);
  add_product(device, l, context, ldc, l.o, {l.o_bias, l.attention_norm, l.x, l.d}, normed, ld, hidden, ld);
  device.rms_norm(hidden, ld, l.post_norm, l.eps, l.t, l.d, normed, ld);
  Epilogue gate;
  gate.activation = l.activation;
  device.linear(normed, ld, l.t, l.gate_up, gate, mlp, ldm);
  add_product(device, l, mlp, ldm, l.down, {nullptr, l.mlp_norm, hidden, ld}, normed, ld, l.y, l.d);
}

}  // namespace sv
