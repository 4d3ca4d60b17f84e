// SvVisionBlock: one vision transformer block; its output, the column mean of its attention and its keys, each when asked.
#include "../kernels/vision_block.h"

#include "checks.h"

namespace sv {
namespace {

/** x f32 [n, e]; table f32 [2, n, c / 2] or [0]; spans int32 [n, 2] or [0]; vectors f32, see below; options int32 [present, heads,
 *  activation, features, columns (1: mean over rows, 2: of row 0), keys] -> y f32 [n, e] or [0, e], columns f32 [n] or [0], keys f32
 *  [n, e] or [0, e]. */
void vision_block_op(Op& op) {
  const View x = op.input(0, 2), table = op.input(1), spans = op.input(2), vectors = op.input(3), options = op.input(4);
  const View qkv = op.input(5), out = op.input(6), fc1 = op.input(7), fc2 = op.input(8);
  const int64_t n = x.dim(0), e = x.dim(1);
  check_size(options, 6, "options");
  const int32_t* o = options.i32();
  require(n > 0 && o[1] > 0 && e % o[1] == 0, "heads: expected a divisor of the width");
  const int64_t c = e / o[1];
  require(!table.count() || (c % 2 == 0 && table.count() == n * c), "table: expected [2, n, c / 2]");
  VisionBlock b = {};
  b.qkv = packed(op, qkv, e, "qkv", false);
  require(b.qkv.header.n == 3 * e, "qkv: expected 3 e outputs");
  b.out = packed(op, out, e, "out", false);
  require(b.out.header.n == e, "out: expected e outputs");
  b.fc1 = packed(op, fc1, e, "fc1");
  b.fc2 = packed(op, fc2, b.fc1.header.n, "fc2", false);
  require(b.fc2.header.n == e, "fc2: expected e outputs");

  b.x = x.f32();
  b.n = n;
  b.e = e;
  b.heads = o[1];
  Vectors next(vectors, o[0]);
  b.norm1.weight = next.required(e);
  b.norm1.bias = next(e);
  b.qkv_bias = next(3 * e);
  b.q_norm = next(e);
  b.k_norm = next(e);
  b.out_bias = next(e);
  b.scale1 = next(e);
  b.norm2.weight = next.required(e);
  b.norm2.bias = next(e);
  b.fc1_bias = next(b.fc1.header.n * (b.fc1.header.gated ? 2 : 1));
  b.fc2_bias = next(e);
  b.scale2 = next(e);
  b.eps = next.required(1);
  next.finish();
  b.activation = o[2];
  b.cos = table.optional();
  b.sin = b.cos ? b.cos + n * (c / 2) : nullptr;
  b.spans = read_spans(op, spans, n, n);
  b.y = op.output(0, {o[3] ? n : 0, e}).optional();
  b.columns = op.output(1, {o[4] ? n : 0}).optional();
  b.of_first_row = o[4] == 2;
  b.keys = op.output(2, {o[5] ? n : 0, e}).optional();
  vision_block(op.device(), b);
}

}  // namespace

void register_vision_block() {
  register_op<vision_block_op>("SvVisionBlock",
                               {"x: float", "table: float", on_device("spans: int32"), "vectors: float", "options: int32", "qkv: uint8",
                                "out: uint8", "fc1: uint8", "fc2: uint8"},
                               {"y: float", "columns: float", "keys: float"});
}

}  // namespace sv
