// SvDecoderLayer: one decoder layer over the KV cache, which it extends in place by the rows of x.
#include "../kernels/decoder_layer.h"

#include "checks.h"

namespace sv {
namespace {

/** x f32 [t, d]; table f32 [2, t, c / 2]; rows int32 [r] and range int32 [tail, length, columns] as in
 *  SvGatheredSparseAttention, where length counts the rows before x; columns f32 [r + length - tail + t] or [0]. */
void decoder_layer_op(Op& op) {
  const View x = op.input(0, 2), kv = op.input(1), table = op.input(2, 3), rows = op.input(3, 1), range = op.input(4);
  const View input_norm = op.input(5), qkv = op.input(6), qkv_bias = op.input(7), o = op.input(8), o_bias = op.input(9);
  const View post_norm = op.input(10), gate_up = op.input(11), down = op.input(12), eps = op.input(13);
  const int64_t t = x.dim(0), d = x.dim(1), c = 2 * table.dim(2);
  require(t > 0, "x: expected at least one row");
  require(table.dim(0) == 2 && table.dim(1) == t, "table: expected [2, t, c / 2]");
  check_size(range, 3, "range");
  check_size(eps, 1, "eps");
  check_size(input_norm, d, "input_norm");
  check_size(post_norm, d, "post_norm");
  const KvView cache = kv_view(kv, c);
  const PackedHeader& h = packed(qkv, d, "qkv", false);
  const int64_t query_width = h.n - 2 * cache.kv_heads * c;
  require(query_width > 0 && query_width % (cache.kv_heads * c) == 0, "qkv: heads do not divide over the kv heads");
  check_size(qkv_bias, h.n, "qkv_bias", true);
  require(packed(o, query_width, "o", false).n == d, "o: expected d outputs");
  check_size(o_bias, d, "o_bias", true);
  const PackedHeader& g = packed(gate_up, d, "gate_up", true);
  require(packed(down, g.n, "down", false).n == d, "down: expected d outputs");
  const int64_t tail = range.i32()[0], length = range.i32()[1];
  check_rows(rows, tail, length, t, cache.capacity);

  DecoderLayer l = {};
  l.x = x.f32();
  l.t = t;
  l.d = d;
  l.kv = cache.data;
  l.bf16 = cache.bf16;
  l.kv_heads = cache.kv_heads;
  l.capacity = cache.capacity;
  l.c = c;
  l.input_norm = input_norm.f32();
  l.post_norm = post_norm.f32();
  l.eps = eps.f32()[0];
  l.qkv = qkv.data;
  l.o = o.data;
  l.gate_up = gate_up.data;
  l.down = down.data;
  l.qkv_bias = qkv_bias.optional();
  l.o_bias = o_bias.optional();
  l.cos = table.f32();
  l.sin = table.f32() + t * (c / 2);
  l.rows = rows.i32();
  l.n_rows = rows.count();
  l.tail = tail;
  l.length = length;
  l.y = op.output(0, x.dims).f32();
  l.columns = op.output(1, {range.i32()[2] ? l.n_rows + length - tail + t : 0}).optional();
  decoder_layer(l);
}

}  // namespace

void register_decoder_layer() {
  register_op<decoder_layer_op>(
      "SvDecoderLayer",
      {"x: float", "kv: uint8", "table: float", "rows: int32", "range: int32", "input_norm: float", "qkv: uint8",
       "qkv_bias: float", "o: uint8", "o_bias: float", "post_norm: float", "gate_up: uint8", "down: uint8", "eps: float"},
      {"y: float", "columns: float"}, true);
}

}  // namespace sv
