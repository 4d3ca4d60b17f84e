// SvDecoderLayers: rows of several sequences through one decoder layer after another. Each sequence has a KV cache in each layer,
// which is extended in place by the sequence's rows.
#include "../kernels/decoder_layer.h"

#include "checks.h"

namespace sv {
namespace {

/** Where the op's inputs lie: x, table, segments, ranges, spans; then the lists kv and rows, of one tensor for each layer and sequence; then
 *  the lists of weights, of one tensor for each layer. */
struct Inputs {
  static constexpr int kOwn = 5, kWeights = 9;
  int layers, sequences;
  int kv(int layer, int sequence) const { return kOwn + layer * sequences + sequence; }
  int rows(int layer, int sequence) const { return kOwn + (layers + layer) * sequences + sequence; }
  int weight(int i, int layer) const { return kOwn + 2 * layers * sequences + i * layers + layer; }
};

Inputs inputs_of(const Op& op, int sequences) {
  const int lists = op.inputs() - Inputs::kOwn, each = 2 * sequences + Inputs::kWeights;
  require(sequences > 0 && lists > 0 && lists % each == 0, "kv, rows: expected one tensor for each layer and sequence");
  return {lists / each, sequences};
}

/** range int32 [tail, length, columns] as in SvGatheredSparseAttention, where length counts the rows before x. */
Sequence read_sequence(Op& op, const View& kv, const View& rows, const int32_t* range, const int32_t* spans, int64_t t, int64_t c) {
  Sequence s = {};
  s.t = t;
  s.kv = kv_cache(kv, c);
  s.rows = rows.i32();
  s.n_rows = rows.count();
  s.tail = range[0];
  s.length = range[1];
  s.wants_columns = range[2] != 0;
  check_rows(op, rows, s.tail, s.length, t, s.kv.capacity);
  s.spans = spans;
  if (spans) check_spans(op, spans, t, s.n_rows + s.length - s.tail + t);
  return s;
}

/** The sequences and weights of one layer; x and y are the caller's. */
DecoderLayer read_layer(Op& op, const Inputs& in, int layer, const View& x, const View& table, const View& segments, const View& ranges,
                        const View& spans) {
  const auto weight = [&](int i) { return op.input(in.weight(i, layer)); };
  const View input_norm = weight(0), qkv = weight(1), qkv_bias = weight(2), o = weight(3), o_bias = weight(4), post_norm = weight(5);
  const View gate_up = weight(6), down = weight(7), eps = weight(8);
  const int64_t t = x.dim(0), d = x.dim(1), c = 2 * table.dim(2);
  check_size(eps, 1, "eps");
  check_size(input_norm, d, "input_norm");
  check_size(post_norm, d, "post_norm");
  DecoderLayer l = {};
  const int32_t* span = spans.count() ? spans.i32() + 2 * layer * t : nullptr;
  for (int s = 0; s < in.sequences; s++) {
    const int32_t* range = ranges.i32() + 3 * (layer * in.sequences + s);
    l.sequences.push_back(read_sequence(op, op.input(in.kv(layer, s)), op.input(in.rows(layer, s), 1), range, span, segments.i32()[s], c));
    if (span) span += 2 * segments.i32()[s];
    require(l.sequences[s].kv.heads == l.sequences[0].kv.heads, "kv: expected as many heads in the caches of all sequences");
  }
  const int64_t heads = l.sequences[0].kv.heads;
  l.qkv = packed(op, qkv, d, "qkv", false);
  const int64_t query_width = l.qkv.header.n - 2 * heads * c;
  require(query_width > 0 && query_width % (heads * c) == 0, "qkv: heads do not divide over the kv heads");
  check_size(qkv_bias, l.qkv.header.n, "qkv_bias", true);
  l.o = packed(op, o, query_width, "o", false);
  require(l.o.header.n == d, "o: expected d outputs");
  check_size(o_bias, d, "o_bias", true);
  l.gate_up = packed(op, gate_up, d, "gate_up", true);
  l.down = packed(op, down, l.gate_up.header.n, "down", false);
  require(l.down.header.n == d, "down: expected d outputs");
  l.x = x.f32();
  l.t = t;
  l.d = d;
  l.input_norm = input_norm.f32();
  l.post_norm = post_norm.f32();
  l.eps = eps.f32();
  l.qkv_bias = qkv_bias.optional();
  l.o_bias = o_bias.optional();
  l.cos = table.f32();
  l.sin = table.f32() + t * (c / 2);
  return l;
}

/** x f32 [t, d], table f32 [2, t, c / 2], segments int32 [sequences] (rows of x of each), ranges int32 [layers, sequences, 3], spans
 *  int32 [layers, t, 2] or [0], kv and rows and weights -> y f32 [t, d], columns f32 [n]: those of all layers and sequences that want them, in this order. All layers
 *  are checked before the first writes to a cache. One call costs more than a small layer's share of a token. */
void decoder_layers_op(Op& op) {
  const View x = op.input(0, 2), table = op.input(1, 3), segments = op.input(2, 1), ranges = op.input(3), spans = op.input(4);
  const Inputs in = inputs_of(op, (int)segments.count());
  const int64_t t = x.dim(0);
  require(t > 0, "x: expected at least one row");
  require(table.dim(0) == 2 && table.dim(1) == t, "table: expected [2, t, c / 2]");
  check_size(ranges, (int64_t)3 * in.layers * in.sequences, "ranges");
  require(!spans.count() || spans.count() == 2 * in.layers * t, "spans: expected [layers, t, 2]");
  int64_t sum = 0;
  for (int s = 0; s < in.sequences; s++) {
    require(segments.i32()[s] > 0, "segments: expected at least one row of each sequence");
    sum += segments.i32()[s];
  }
  require(sum == t, "segments: expected as many rows as x has");
  std::vector<DecoderLayer> layers;
  int64_t columns = 0;
  for (int i = 0; i < in.layers; i++) {
    layers.push_back(read_layer(op, in, i, x, table, segments, ranges, spans));
    for (const Sequence& s : layers.back().sequences) columns += s.columns_count();
  }
  const View y = op.output(0, x.dims);
  float* column = op.output(1, {columns}).f32();
  float* other = in.layers > 1 ? op.device().scratch(kLayers, x.count()) : nullptr;
  for (int i = 0; i < in.layers; i++) {
    DecoderLayer& l = layers[(size_t)i];
    for (Sequence& s : l.sequences) {
      s.columns = s.wants_columns ? column : nullptr;
      column += s.columns_count();
    }
    const bool into_y = (in.layers - 1 - i) % 2 == 0;
    if (i > 0) l.x = into_y ? other : y.f32();
    l.y = into_y ? y.f32() : other;
    decoder_layer(op.device(), l);
  }
}

}  // namespace

void register_decoder_layer() {
  register_op<decoder_layers_op>(
      "SvDecoderLayers",
      {"x: float", "table: float", "segments: int32", "ranges: int32", on_device("spans: int32"), "kv: M * uint8", on_device("rows: M * int32"),
       "input_norm: N * float", "qkv: N * uint8", "qkv_bias: N * float", "o: N * uint8", "o_bias: N * float", "post_norm: N * float",
       "gate_up: N * uint8", "down: N * uint8", "eps: N * float"},
      {"y: float", "columns: float"}, true, {"M", "N"});
}

}  // namespace sv
