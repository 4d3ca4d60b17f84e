// SvAttention: full or causal attention over plain tensors. SvGatheredSparseAttention: the same over rows of a KV cache,
// read through an index. Both also yield the column mean of the softmax when asked.
#include <math.h>
#include <string.h>

#include "checks.h"

namespace sv {
namespace {

/** q f32 [t, h, c], k and v f32 [n, g, c], flags int32 [causal, columns, bits of the scale of scores (0:
 *  c^-1/2), bits of their softcap (0: none)], spans int32 [t, 2] or [0]. Causal: query i sees keys
 *  0 .. n - t + i. */
void attention_op(Op& op) {
  const View q = op.input(0, 3), k = op.input(1, 3), v = op.input(2, 3), flags = op.input(3), spans = op.input(4);
  check_size(flags, 4, "flags");
  const int64_t t = q.dim(0), h = q.dim(1), c = q.dim(2), n = k.dim(0), g = k.dim(1);
  require(k.dims == v.dims && k.dim(2) == c, "k, v: expected equal shapes and the head width of q");
  require(g > 0 && h % g == 0 && t > 0 && n > 0, "heads: expected a multiple of the kv heads, and at least one row");
  const bool causal = flags.i32()[0], columns = flags.i32()[1];
  require(!causal || n >= t, "causal attention needs at least as many keys as queries");
  const View out = op.output(0, q.dims), mean = op.output(1, {columns ? n : 0});
  Attention a = {};
  a.q = q.f32();
  a.q_ld = h * c;
  a.t = t;
  a.heads = h;
  a.kv_heads = g;
  a.c = c;
  a.rows = {k.raw(), v.raw(), g * c * 4, 0, nullptr, 0, 0};
  a.head_stride = c * 4;
  a.spans = read_spans(op, spans, t, n);
  require(!a.spans || !causal, "spans: expected none with causal attention");
  a.visible = causal ? n - t + 1 : n;
  a.causal = causal;
  memcpy(&a.scale, &flags.i32()[2], 4);
  memcpy(&a.softcap, &flags.i32()[3], 4);
  require(a.softcap >= 0, "flags: expected a softcap of at least 0");
  if (a.scale == 0) a.scale = 1.f / sqrtf((float)c);
  a.out = out.f32();
  a.out_ld = h * c;
  a.columns = mean.optional();
  op.device().attend(a);
}

/** q f32 [t, h, c] (already in the cache as its last t rows), kv, rows int32 [r], range int32 [tail, length, columns], spans int32
 *  [t, 2] over rows and then tail .. length - 1, or [0]. */
void gathered_op(Op& op) {
  const View q = op.input(0, 3), kv = op.input(1), rows = op.input(2, 1), range = op.input(3), spans = op.input(4);
  check_size(range, 3, "range");
  const int64_t t = q.dim(0), h = q.dim(1), c = q.dim(2), tail = range.i32()[0], before = range.i32()[1] - t;
  const KvCache cache = kv_cache(kv, c);
  require(cache.heads > 0 && h % cache.heads == 0 && t > 0, "heads: expected a multiple of the kv heads");
  check_rows(op, rows, tail, before, t, cache.capacity);
  const int64_t all = rows.count() + before - tail + t;
  const View out = op.output(0, q.dims), mean = op.output(1, {range.i32()[2] ? all : 0});
  Attention a = {};
  a.q = q.f32();
  a.q_ld = h * c;
  a.t = t;
  a.heads = h;
  a.kv_heads = cache.heads;
  a.c = c;
  a.head_stride = cache.head_stride();
  a.rows = {cache.k(), cache.v(), cache.row_stride(), cache.bf16, rows.i32(), rows.count(), tail};
  a.spans = read_spans(op, spans, t, all);
  a.causal = !a.spans;
  a.visible = a.causal ? all - t + 1 : all;
  a.scale = 1.f / sqrtf((float)c);
  a.out = out.f32();
  a.out_ld = h * c;
  a.columns = mean.optional();
  op.device().attend(a);
}

}  // namespace

void register_attention() {
  register_op<attention_op>("SvAttention", {"q: float", "k: float", "v: float", "flags: int32", on_device("spans: int32")},
                            {"y: float", "columns: float"});
  register_op<gathered_op>("SvGatheredSparseAttention", {"q: float", "kv: uint8", on_device("rows: int32"), "range: int32", on_device("spans: int32")},
                           {"y: float", "columns: float"}, true);
}

}  // namespace sv
