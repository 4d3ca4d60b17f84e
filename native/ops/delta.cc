// SvStateAlloc, SvStateCopy, SvDeltaRule: states of delta layers are made, changed and copied by ops only, because a call changes them in
// place. Nothing reads one but ops.
#include "../kernels/delta.h"

#include <string.h>

#include "checks.h"

namespace sv {
namespace {

/** sizes int32 [key heads, value heads, their widths, taps] -> a state of zeros, uint8. */
void alloc_op(Op& op) {
  const View sizes = op.input(0);
  check_size(sizes, 5, "sizes");
  const int64_t bytes = delta_sizes(sizes.i32()).state_floats() * 4;
  const View state = op.output(0, TF_UINT8, {bytes});
  op.device().forget_matrix(state.data);
  op.device().fill(state.data, bytes, [bytes](void* to) { memset(to, 0, (size_t)bytes); });
}

/** A state of the same content. */
void copy_op(Op& op) {
  const View state = op.input(0, 1);
  require(state.bytes % 4 == 0, "state: expected whole floats");
  const View copy = op.output(0, TF_UINT8, state.dims);
  op.device().forget_matrix(copy.data);
  op.device().copy_rows(reinterpret_cast<float*>(state.raw()), 0, 1, state.bytes / 4, copy.f32());
}

/** x f32 [t, width] and gates f32 [t, 2 value heads] of one sequence, its state, vectors (conv, a_log, dt_bias), sizes -> f32 [t, value
 *  width]. See delta.h. */
void rule_op(Op& op) {
  const View x = op.input(0, 2), gates = op.input(1, 2), state = op.input(2), vectors = op.input(3), sizes = op.input(4);
  check_size(sizes, 5, "sizes");
  const DeltaSizes s = delta_sizes(sizes.i32());
  const int64_t t = x.dim(0), heads = s.value_heads;
  require(x.dim(1) == s.width(), "x: expected query, key and value heads");
  require(gates.dim(0) == t && gates.dim(1) == 2 * heads, "gates: expected b and a of each value head");
  Vectors next(vectors, 7);
  const float *conv = next.required(s.width() * s.taps), *a_log = next.required(heads), *dt_bias = next.required(heads);
  next.finish();
  const DeltaSequence sequence = {t, delta_state(state, s)};
  const View y = op.output(0, {t, s.value_width()});
  if (t == 0) return;
  op.device().delta_rule(
      {s, x.f32(), s.width(), gates.f32(), 2 * heads, conv, a_log, dt_bias, &sequence, 1, y.f32(), s.value_width()});
}

}  // namespace

void register_delta() {
  register_op<alloc_op>("SvStateAlloc", {"sizes: int32"}, {"state: uint8"}, true);
  register_op<copy_op>("SvStateCopy", {"state: uint8"}, {"copy: uint8"}, true);
  register_op<rule_op>("SvDeltaRule", {"x: float", "gates: float", "state: uint8", "vectors: float", "sizes: int32"}, {"y: float"}, true);
}

}  // namespace sv
