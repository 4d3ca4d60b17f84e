// SvRmsNorm, SvLayerNorm, SvRope: ops on rows.
#include "checks.h"

namespace sv {
namespace {

void rms_norm_op(Op& op) {
  const View x = op.input(0, 2), w = op.input(1), eps = op.input(2);
  const int64_t d = x.dim(1);
  check_size(w, d, "weight");
  check_size(eps, 1, "eps");
  const View y = op.output(0, x.dims);
  op.device().rms_norm(x.f32(), d, w.f32(), eps.f32(), x.dim(0), d, y.f32(), d);
}

void layer_norm_op(Op& op) {
  const View x = op.input(0, 2), w = op.input(1), b = op.input(2), eps = op.input(3);
  const int64_t d = x.dim(1);
  check_size(w, d, "weight");
  check_size(b, d, "bias");
  check_size(eps, 1, "eps");
  const View y = op.output(0, x.dims);
  op.device().layer_norm(x.f32(), d, w.f32(), b.f32(), eps.f32(), x.dim(0), d, y.f32(), d);
}

/** x f32 [t, h, c], table f32 [2, t, c / 2] (cosines, then sines) -> f32 [t, h, c]. */
void rope_op(Op& op) {
  const View x = op.input(0, 3), table = op.input(1, 3);
  const int64_t t = x.dim(0), h = x.dim(1), c = x.dim(2), half = c / 2;
  require(c % 2 == 0, "rope: expected an even head width");
  require(table.dim(0) == 2 && table.dim(1) == t && table.dim(2) == half, "table: expected [2, t, c / 2]");
  const View y = op.output(0, x.dims);
  op.device().rope(x.f32(), h * c, table.f32(), table.f32() + t * half, t, h, c, y.f32(), h * c);
}

}  // namespace

void register_rows() {
  register_op<rms_norm_op>("SvRmsNorm", {"x: float", "w: float", "eps: float"}, {"y: float"});
  register_op<layer_norm_op>("SvLayerNorm", {"x: float", "w: float", "b: float", "eps: float"}, {"y: float"});
  register_op<rope_op>("SvRope", {"x: float", "table: float"}, {"y: float"});
}

}  // namespace sv
