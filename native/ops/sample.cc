// SvSample: one token id from a row of logits; what sampling means is said in src/ops/sample.ts.
#include <string.h>

#include "checks.h"

namespace sv {
namespace {

/** logits f32 [v] or [1, v], sampling int32 [4]: top-k, and the bits of temperature, top-p and the uniform number -> int32 [1]. */
void sample_op(Op& op) {
  const View logits = op.input(0), sampling = op.input(1);
  check_size(sampling, 4, "sampling");
  require(logits.dims.size() == 1 || (logits.dims.size() == 2 && logits.dim(0) == 1), "logits: expected one row");
  if (logits.count() > kMostLogits) fail("logits: expected at most " + std::to_string(kMostLogits) + ", received " + std::to_string(logits.count()));
  Sampling s = {};
  s.top_k = sampling.i32()[0];
  memcpy(&s.temperature, sampling.i32() + 1, 4);
  memcpy(&s.top_p, sampling.i32() + 2, 4);
  memcpy(&s.uniform, sampling.i32() + 3, 4);
  require(s.temperature >= 0 && s.top_k >= 0 && s.top_p > 0 && s.top_p <= 1 && s.uniform >= 0 && s.uniform < 1,
          "sampling: expected temperature and top-k of at least 0, top-p in (0, 1], a uniform number in [0, 1)");
  const View id = op.output(0, TF_INT32, {1});
  op.device().sample(logits.f32(), logits.count(), s, static_cast<int32_t*>(id.data));
}

}  // namespace

void register_sample() { register_op<sample_op>("SvSample", {"logits: float", "sampling: int32"}, {on_device("id: int32")}); }

}  // namespace sv
