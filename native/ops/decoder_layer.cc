// SvDecoderLayer: one decoder layer over the KV cache, which it extends in place by the rows of x. SvDecoderLayers: several.
#include "../kernels/decoder_layer.h"

#include "checks.h"

namespace sv {
namespace {

/** Where a layer's inputs lie among the op's: input `first` of the layer's own, then one every `stride`. */
struct Inputs { int first, stride; int at(int i) const { return first + i * stride; } };

/** A layer's own inputs: kv, rows int32 [r], range int32 [tail, length, columns] as in SvGatheredSparseAttention, where length
 *  counts the rows before x; then the weights. x and y are the caller's. */
DecoderLayer read_layer(Op& op, Inputs in, const float* x, int64_t t, int64_t d, const View& table) {
  const View kv = op.input(in.at(0)), rows = op.input(in.at(1), 1), range = op.input(in.at(2));
  const View input_norm = op.input(in.at(3)), qkv = op.input(in.at(4)), qkv_bias = op.input(in.at(5)), o = op.input(in.at(6));
  const View o_bias = op.input(in.at(7)), post_norm = op.input(in.at(8)), gate_up = op.input(in.at(9));
  const View down = op.input(in.at(10)), eps = op.input(in.at(11));
  require(t > 0, "x: expected at least one row");
  require(table.dim(0) == 2 && table.dim(1) == t, "table: expected [2, t, c / 2]");
  const int64_t c = 2 * table.dim(2);
  check_size(range, 3, "range");
  check_size(eps, 1, "eps");
  check_size(input_norm, d, "input_norm");
  check_size(post_norm, d, "post_norm");
  const KvCache cache = kv_cache(kv, c);
  DecoderLayer l = {};
  l.qkv = packed(op, qkv, d, "qkv", false);
  const int64_t query_width = l.qkv.header.n - 2 * cache.heads * c;
  require(query_width > 0 && query_width % (cache.heads * c) == 0, "qkv: heads do not divide over the kv heads");
  check_size(qkv_bias, l.qkv.header.n, "qkv_bias", true);
  l.o = packed(op, o, query_width, "o", false);
  require(l.o.header.n == d, "o: expected d outputs");
  check_size(o_bias, d, "o_bias", true);
  l.gate_up = packed(op, gate_up, d, "gate_up", true);
  l.down = packed(op, down, l.gate_up.header.n, "down", false);
  require(l.down.header.n == d, "down: expected d outputs");
  const int64_t tail = range.i32()[0], length = range.i32()[1];
  check_rows(op, rows, tail, length, t, cache.capacity);

  l.x = x;
  l.t = t;
  l.d = d;
  l.kv = cache;
  l.input_norm = input_norm.f32();
  l.post_norm = post_norm.f32();
  l.eps = eps.f32();
  l.qkv_bias = qkv_bias.optional();
  l.o_bias = o_bias.optional();
  l.cos = table.f32();
  l.sin = table.f32() + t * (c / 2);
  l.rows = rows.i32();
  l.n_rows = rows.count();
  l.tail = tail;
  l.length = length;
  return l;
}

/** x f32 [t, d], table f32 [2, t, c / 2], a layer -> y, columns f32 [r + length - tail + t] or [0]. */
void decoder_layer_op(Op& op) {
  const View x = op.input(0, 2), table = op.input(1, 3), range = op.input(4);
  DecoderLayer l = read_layer(op, {2, 1}, x.f32(), x.dim(0), x.dim(1), table);
  l.y = op.output(0, x.dims).f32();
  l.columns = op.output(1, {range.i32()[2] ? l.n_rows + l.length - l.tail + l.t : 0}).optional();
  decoder_layer(op.device(), l);
}

/** The same for N layers, one after another: a call costs more than a small layer's share of a token. All layers are checked
 *  before the first writes to its cache. */
void decoder_layers_op(Op& op) {
  const View x = op.input(0, 2), table = op.input(1, 3);
  const int n = (op.inputs() - 2) / 12;
  const View y = op.output(0, x.dims);
  float* other = op.device().scratch(kLayers, x.count());
  std::vector<DecoderLayer> layers;
  for (int i = 0; i < n; i++) layers.push_back(read_layer(op, {2 + i, n}, x.f32(), x.dim(0), x.dim(1), table));
  for (int i = 0; i < n; i++) {
    const bool into_y = (n - 1 - i) % 2 == 0;
    if (i > 0) layers[i].x = into_y ? other : y.f32();
    layers[i].y = into_y ? y.f32() : other;
    decoder_layer(op.device(), layers[i]);
  }
}

}  // namespace

void register_decoder_layer() {
  register_op<decoder_layer_op>(
      "SvDecoderLayer",
      {"x: float", "table: float", "kv: uint8", on_device("rows: int32"), "range: int32", "input_norm: float", "qkv: uint8",
       "qkv_bias: float", "o: uint8", "o_bias: float", "post_norm: float", "gate_up: uint8", "down: uint8", "eps: float"},
      {"y: float", "columns: float"}, true);
  register_op<decoder_layers_op>(
      "SvDecoderLayers",
      {"x: float", "table: float", "kv: N * uint8", on_device("rows: N * int32"), "range: N * int32", "input_norm: N * float",
       "qkv: N * uint8", "qkv_bias: N * float", "o: N * uint8", "o_bias: N * float", "post_norm: N * float",
       "gate_up: N * uint8", "down: N * uint8", "eps: N * float"},
      {"y: float"}, true, true);
}

}  // namespace sv
