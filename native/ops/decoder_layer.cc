// SvDecoderLayers, SvDecoderLayer: rows of several sequences through one decoder layer after another, or of one through one layer. Each sequence has a KV cache in each layer,
// which is extended in place by the sequence's rows.
#include "../kernels/decoder_layer.h"

#include <math.h>

#include "checks.h"

namespace sv {
namespace {

/** Where the op's inputs lie: x, table, segments, ranges, spans; then the lists kv and rows, of one tensor for each layer and sequence;
 *  then the lists of weights, of one tensor for each layer. */
struct Inputs {
  static constexpr int kOwn = 5, kWeights = 7;
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

/** What all layers of a call share. */
struct Shared {
  View x, table, segments, ranges, spans;
  int64_t t() const { return x.dim(0); }
  int64_t d() const { return x.dim(1); }
  /** Layers that ranges and spans are about. */
  int64_t layers() const { return ranges.count() / (3 * segments.count()); }
};

/** range int32 [tail, length, columns], where length counts the rows before x. */
Sequence read_sequence(Op& op, const View& kv, const View& rows, const int32_t* range, const int32_t* spans, int64_t t, int64_t c,
                       const DeltaSizes* delta) {
  Sequence s = {};
  s.t = t;
  if (delta) {
    require(range[2] == kNoColumns, "ranges: expected no columns of a delta layer");
    s.state = delta_state(kv, *delta);
    return s;
  }
  s.kv = kv_cache(kv, c);
  s.rows = rows.i32();
  s.n_rows = rows.count();
  s.tail = range[0];
  s.length = range[1];
  require(range[2] >= -t && range[2] <= kLastRow, "ranges: expected columns 0, 1, 2, or less than 0 for some of the last rows");
  s.wanted = range[2];
  check_rows(op, rows, s.tail, s.length, t, s.kv.capacity);
  s.spans = spans;
  if (spans) check_spans(op, spans, t, s.n_rows + s.length - s.tail + t);
  return s;
}

/** The sequences of one layer: `index` is its own in ranges and spans. */
std::vector<Sequence> read_sequences(Op& op, const Inputs& in, int layer, int64_t index, const Shared& shared, int64_t c,
                                     const DeltaSizes* delta) {
  const int64_t t = shared.t();
  require(index >= 0 && index < shared.layers(), "options: expected an index within ranges");
  const int32_t *range = shared.ranges.i32() + 3 * index * in.sequences, *segments = shared.segments.i32();
  const int32_t* spans = shared.spans.count() ? shared.spans.i32() + 2 * index * t : nullptr;
  std::vector<Sequence> sequences;
  for (int s = 0; s < in.sequences; s++) {
    const View kv = op.input(in.kv(layer, s)), rows = op.input(in.rows(layer, s), 1);
    sequences.push_back(read_sequence(op, kv, rows, range + 3 * s, spans, segments[s], c, delta));
    require(sequences[(size_t)s].kv.heads == sequences[0].kv.heads, "kv: expected as many heads in the caches of all sequences");
    if (spans) spans += 2 * segments[s];
  }
  return sequences;
}

/** Options of a layer, int32 [13]: which vectors there are, activation, bits of the scale of scores (0: c^-1/2), index, bits of the softcap of
 *  scores (0: none), number of its rotary table, head width (0: twice the table's), whether queries have gates; key heads (0: no delta
 *  layer), value heads, their widths, taps. */
enum Option : int {
  kPresent,
  kActivation,
  kScale,
  kIndex,
  kSoftcap,
  kTable,
  kHeadWidth,
  kGated,
  kKeyHeads,
  kValueHeads,
  kKeyWidth,
  kValueWidth,
  kTaps,
  kOptions
};

/** What is in the place of attention. */
void read_delta(Op& op, const Inputs& in, int layer, const Shared& shared, const int32_t* options, DecoderLayer& l) {
  l.is_delta = true;
  l.sizes = delta_sizes(options + kKeyHeads);
  l.sequences = read_sequences(op, in, layer, options[kIndex], shared, 0, &l.sizes);
  l.ba = packed(op, op.input(in.weight(3, layer)), shared.d(), "ba", false);
  require(l.ba.header.n == 2 * l.sizes.value_heads, "ba: expected two outputs of each value head");
  require(l.qkv.header.n == l.sizes.width() + l.sizes.value_width(), "qkv: expected queries, keys, values and z");
}

void read_attention(Op& op, const Inputs& in, int layer, const Shared& shared, const int32_t* options, DecoderLayer& l) {
  const int64_t half = shared.table.dim(2), c = options[kHeadWidth] ? options[kHeadWidth] : 2 * half;
  require(c >= 2 * half, "options: expected heads at least as wide as what is rotated of them");
  l.sequences = read_sequences(op, in, layer, options[kIndex], shared, c, nullptr);
  l.gated = options[kGated] != 0;
  const int64_t heads = l.sequences[0].kv.heads;
  const int64_t query_width = (l.qkv.header.n - 2 * heads * c) / (l.gated ? 2 : 1);
  require(query_width > 0 && query_width % (heads * c) == 0 && l.qkv.header.n == (l.gated ? 2 : 1) * query_width + 2 * heads * c,
          "qkv: heads do not divide over the kv heads");
  memcpy(&l.scale, &options[kScale], 4);
  if (l.scale == 0) l.scale = 1.f / sqrtf((float)c);
  memcpy(&l.softcap, &options[kSoftcap], 4);
  require(l.softcap >= 0, "options: expected a softcap of at least 0");
  const int64_t table = options[kTable], angles = shared.t() * half;
  require(table >= 0 && 2 * table < shared.table.dim(0), "options: expected the number of a rotary table");
  l.cos = shared.table.f32() + 2 * table * angles;
  l.sin = l.cos + angles;
  l.half = half;
}

void read_vectors(const View& all, int32_t present, DecoderLayer& l) {
  const int64_t c = l.is_delta ? 0 : l.sequences[0].kv.c, d = l.d;
  Vectors next(all, present);
  l.input_norm = next.required(d);
  l.qkv_bias = next(l.qkv.header.n);
  l.q_norm = next(c);
  l.k_norm = next(c);
  l.o_bias = next(d);
  l.attention_norm = next(d);
  l.post_norm = next.required(d);
  l.mlp_norm = next(d);
  l.eps = next.required(1);
  if (l.is_delta) {
    l.conv = next.required(l.sizes.width() * l.sizes.taps);
    l.a_log = next.required(l.sizes.value_heads);
    l.dt_bias = next.required(l.sizes.value_heads);
    l.delta_norm = next.required(l.sizes.dv);
  }
  next.finish();
}

/** One layer; x and y are the caller's. */
DecoderLayer read_layer(Op& op, const Inputs& in, int layer, const Shared& shared) {
  const auto weight = [&](int i) { return op.input(in.weight(i, layer)); };
  const View vectors = weight(0), options = weight(1), qkv = weight(2), o = weight(4), gate_up = weight(5), down = weight(6);
  const int64_t d = shared.d();
  check_size(options, kOptions, "options");
  DecoderLayer l = {};
  l.x = shared.x.f32();
  l.t = shared.t();
  l.d = d;
  l.qkv = packed(op, qkv, d, "qkv", false);
  (options.i32()[kKeyHeads] ? read_delta : read_attention)(op, in, layer, shared, options.i32(), l);
  const int64_t key_width = l.is_delta ? 0 : l.sequences[0].kv.heads * l.sequences[0].kv.c;
  l.o = packed(op, o, l.is_delta ? l.sizes.value_width() : (l.qkv.header.n - 2 * key_width) / (l.gated ? 2 : 1), "o", false);
  require(l.o.header.n == d, "o: expected d outputs");
  l.gate_up = packed(op, gate_up, d, "gate_up", true);
  l.down = packed(op, down, l.gate_up.header.n, "down", false);
  require(l.down.header.n == d, "down: expected d outputs");
  read_vectors(vectors, options.i32()[kPresent], l);
  l.activation = options.i32()[kActivation];
  return l;
}

void check_shared(const Shared& shared) {
  const int64_t t = shared.t(), sequences = shared.segments.count();
  require(t > 0, "x: expected at least one row");
  require(shared.table.dim(0) > 0 && shared.table.dim(0) % 2 == 0 && shared.table.dim(1) == t, "table: expected [2 tables, t, c / 2]");
  require(shared.ranges.count() > 0 && shared.ranges.count() % (3 * sequences) == 0, "ranges: expected [layers, sequences, 3]");
  require(!shared.spans.count() || shared.spans.count() == 2 * shared.layers() * t, "spans: expected [layers, t, 2]");
  int64_t sum = 0;
  for (int64_t s = 0; s < sequences; s++) {
    require(shared.segments.i32()[s] > 0, "segments: expected at least one row of each sequence");
    sum += shared.segments.i32()[s];
  }
  require(sum == t, "segments: expected as many rows as x has");
}

/** x f32 [t, d], table f32 [2 tables, t, c / 2] (cosines and sines of each, or of the part of a head that is rotated), segments int32 [sequences] (rows of x of each), ranges int32 [layers, sequences, 3] and spans
 *  int32 [layers, t, 2] or [0] of all layers of a model, of which the call runs some; kv and rows and weights of those -> y f32 [t, d],
 *  columns f32 [n]: those of all layers and sequences that want them, in this order. Where a sequence wants the columns of its last row,
 *  there is one layer, all want them, and y is [0, d]. All layers are checked before the first writes to a cache. One call costs more
 *  than a small layer's share of a token. */
void decoder_layers_op(Op& op) {
  const Shared shared = {op.input(0, 2), op.input(1, 3), op.input(2, 1), op.input(3), op.input(4)};
  const Inputs in = inputs_of(op, (int)shared.segments.count());
  check_shared(shared);
  std::vector<DecoderLayer> layers;
  int64_t columns = 0, last_rows = 0;
  for (int i = 0; i < in.layers; i++) {
    layers.push_back(read_layer(op, in, i, shared));
    for (const Sequence& s : layers.back().sequences) {
      columns += s.columns_count();
      last_rows += s.wanted == kLastRow;
    }
  }
  require(!last_rows || (in.layers == 1 && last_rows == in.sequences), "columns of last rows: expected one layer, and no other kind");
  const View y = op.output(0, {last_rows ? 0 : shared.t(), shared.d()});
  float* column = op.output(1, {columns}).f32();
  float* other = in.layers > 1 ? op.device().scratch(kLayers, shared.x.count()) : nullptr;
  for (int i = 0; i < in.layers; i++) {
    DecoderLayer& l = layers[(size_t)i];
    for (Sequence& s : l.sequences) {
      s.columns = s.wanted ? column : nullptr;
      column += s.columns_count();
    }
    const bool into_y = (in.layers - 1 - i) % 2 == 0;
    if (i > 0) l.x = into_y ? other : y.f32();
    l.y = last_rows ? nullptr : into_y ? y.f32()
                                       : other;
    decoder_layer(op.device(), l);
  }
}

}  // namespace

void register_decoder_layer() {
  register_op<decoder_layers_op>("SvDecoderLayers",
                                 {"x: float", "table: float", "segments: int32", "ranges: int32", on_device("spans: int32"),
                                  "kv: M * uint8", on_device("rows: M * int32"), "vectors: N * float", "options: N * int32",
                                  "qkv: N * uint8", "ba: N * uint8", "o: N * uint8", "gate_up: N * uint8", "down: N * uint8"},
                                 {"y: float", "columns: float"}, true, {"M", "N"});
  // One layer and one sequence: without the lengths of lists, a call takes two microseconds less.
  register_op<decoder_layers_op>("SvDecoderLayer",
                                 {"x: float", "table: float", "segments: int32", "ranges: int32", on_device("spans: int32"), "kv: uint8",
                                  on_device("rows: int32"), "vectors: float", "options: int32", "qkv: uint8", "ba: uint8",
                                  "o: uint8", "gate_up: uint8", "down: uint8"},
                                 {"y: float", "columns: float"}, true);
}

}  // namespace sv
