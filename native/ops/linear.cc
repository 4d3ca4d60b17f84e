// SvLinear: y = activation(x W^T + bias), or activation(x G^T + bias) (x U^T + bias). SvGatedMlp: y = (silu(x G^T) * (x U^T)) D^T. SvEmbed: rows of a packed table.
#include "checks.h"

namespace sv {
namespace {

/** x f32 [t, k], w packed [n, k], bias f32 [n] ([2 n] of gated matrices) or [0], activation int32 -> f32 [t, n]. */
void linear_op(Op& op) {
  const View x = op.input(0, 2), w = op.input(1), bias = op.input(2), activation = op.input(3);
  const Matrix m = packed(op, w, x.dim(1), "weight");
  const PackedHeader& h = m.header;
  check_size(bias, h.gated ? 2 * h.n : h.n, "bias", true);
  require(activation.count() == 1, "activation: expected one value");
  const View y = op.output(0, {x.dim(0), h.n});
  Epilogue e;
  e.bias = bias.optional();
  e.activation = activation.i32()[0];
  op.device().linear(x.f32(), x.dim(1), x.dim(0), m, e, y.f32(), h.n);
}

void gated_mlp_op(Op& op) {
  const View x = op.input(0, 2), gate_up = op.input(1), down = op.input(2);
  const Matrix g = packed(op, gate_up, x.dim(1), "gate_up", true), d = packed(op, down, g.header.n, "down", false);
  const int64_t t = x.dim(0), ld = padded_ld(g.header.n);
  const View y = op.output(0, {t, d.header.n});
  float* hidden = op.device().scratch(kMlp, t * ld);
  Epilogue gate;
  gate.activation = kSilu;
  op.device().linear(x.f32(), x.dim(1), t, g, gate, hidden, ld);
  op.device().linear(hidden, ld, t, d, {}, y.f32(), d.header.n);
}

void embed_op(Op& op) {
  const View table = op.input(0), ids = op.input(1, 1);
  const Matrix m = packed(op, table, -1, "table", false);
  const PackedHeader& h = m.header;
  for (int64_t i = 0; i < ids.count(); i++)
    if (ids.i32()[i] < 0 || ids.i32()[i] >= h.n)
      fail("token id " + std::to_string(ids.i32()[i]) + " is outside the vocabulary of " + std::to_string(h.n));
  const View y = op.output(0, {ids.count(), h.k});
  op.device().gather_rows(m, ids.i32(), ids.count(), y.f32());
}

}  // namespace

void register_linear() {
  register_op<linear_op>("SvLinear", {"x: float", "w: uint8", "bias: float", "activation: int32"}, {"y: float"});
  register_op<gated_mlp_op>("SvGatedMlp", {"x: float", "gate_up: uint8", "down: uint8"}, {"y: float"});
  register_op<embed_op>("SvEmbed", {"table: uint8", "ids: int32"}, {"y: float"});
}

}  // namespace sv
