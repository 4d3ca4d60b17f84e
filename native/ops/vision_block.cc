// SvVisionBlock: one vision transformer block, with the column mean of its attention when asked, or that alone.
#include "../kernels/vision_block.h"

#include "checks.h"

namespace sv {
namespace {

/** x f32 [n, e]; config int32 [heads, activation, features, columns]; spans int32 [n, 2] or [0] -> y f32 [n, e] or [0, e], columns f32 [n] or [0]. */
void vision_block_op(Op& op) {
  const View x = op.input(0, 2), norm1 = op.input(1), norm1_bias = op.input(2), qkv = op.input(3), qkv_bias = op.input(4);
  const View out = op.input(5), out_bias = op.input(6), norm2 = op.input(7), norm2_bias = op.input(8), fc1 = op.input(9);
  const View fc1_bias = op.input(10), fc2 = op.input(11), fc2_bias = op.input(12), eps = op.input(13), config = op.input(14);
  const View spans = op.input(15);
  const int64_t n = x.dim(0), e = x.dim(1);
  check_size(config, 4, "config");
  const int32_t* c = config.i32();
  require(n > 0 && c[0] > 0 && e % c[0] == 0, "heads: expected a divisor of the width");
  for (const View* v : {&norm1, &norm1_bias, &norm2, &norm2_bias}) check_size(*v, e, "norm");
  check_size(eps, 1, "eps");
  VisionBlock b = {};
  b.qkv = packed(op, qkv, e, "qkv", false);
  require(b.qkv.header.n == 3 * e, "qkv: expected 3 e outputs");
  b.out = packed(op, out, e, "out", false);
  require(b.out.header.n == e, "out: expected e outputs");
  b.fc1 = packed(op, fc1, e, "fc1", false);
  b.fc2 = packed(op, fc2, b.fc1.header.n, "fc2", false);
  require(b.fc2.header.n == e, "fc2: expected e outputs");
  check_size(qkv_bias, 3 * e, "qkv_bias", true);
  check_size(out_bias, e, "out_bias", true);
  check_size(fc1_bias, b.fc1.header.n, "fc1_bias", true);
  check_size(fc2_bias, e, "fc2_bias", true);

  b.x = x.f32();
  b.n = n;
  b.e = e;
  b.heads = c[0];
  b.norm1 = norm1.f32();
  b.norm1_bias = norm1_bias.f32();
  b.norm2 = norm2.f32();
  b.norm2_bias = norm2_bias.f32();
  b.eps = eps.f32();
  b.qkv_bias = qkv_bias.optional();
  b.out_bias = out_bias.optional();
  b.fc1_bias = fc1_bias.optional();
  b.fc2_bias = fc2_bias.optional();
  b.activation = c[1];
  b.spans = read_spans(op, spans, n, n);
  b.y = op.output(0, {c[2] ? n : 0, e}).optional();
  b.columns = op.output(1, {c[3] ? n : 0}).optional();
  vision_block(op.device(), b);
}

}  // namespace

void register_vision_block() {
  register_op<vision_block_op>(
      "SvVisionBlock",
      {"x: float", "norm1: float", "norm1_bias: float", "qkv: uint8", "qkv_bias: float", "out: uint8", "out_bias: float",
       "norm2: float", "norm2_bias: float", "fc1: uint8", "fc1_bias: float", "fc2: uint8", "fc2_bias: float", "eps: float",
       "config: int32", on_device("spans: int32")},
      {"y: float", "columns: float"});
}

}  // namespace sv
