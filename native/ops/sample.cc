// SvSample: a token id from each row of logits; what sampling means is said in src/ops/sample.ts.
#include <string.h>

#include "checks.h"

namespace sv {
namespace {

/** Of int32 [4]: top-k, and the bits of temperature, top-p and the uniform number. */
Sampling read_sampling(const int32_t* values) {
  Sampling s = {};
  s.top_k = values[0];
  memcpy(&s.temperature, values + 1, 4);
  memcpy(&s.top_p, values + 2, 4);
  memcpy(&s.uniform, values + 3, 4);
  require(s.temperature >= 0 && s.top_k >= 0 && s.top_p > 0 && s.top_p <= 1 && s.uniform >= 0 && s.uniform < 1,
          "sampling: expected temperature and top-k of at least 0, top-p in (0, 1], a uniform number in [0, 1)");
  return s;
}

/** logits f32 [v] or [rows, v], sampling int32 [rows, 4] as `read_sampling` -> int32 [rows]. */
void sample_op(Op& op) {
  const View logits = op.input(0), sampling = op.input(1, 2);
  require(logits.dims.size() == 1 || logits.dims.size() == 2, "logits: expected [v] or [rows, v]");
  const int64_t rows = logits.dims.size() == 1 ? 1 : logits.dim(0), v = logits.dims.back();
  require(rows > 0 && sampling.dim(0) == rows && sampling.dim(1) == 4, "sampling: expected parameters for each row of logits");
  if (v > kMostLogits) fail("logits: expected at most " + std::to_string(kMostLogits) + ", received " + std::to_string(v));
  std::vector<Sampling> samplings;
  for (int64_t i = 0; i < rows; i++) samplings.push_back(read_sampling(sampling.i32() + 4 * i));
  const View ids = op.output(0, TF_INT32, {rows});
  op.device().sample(logits.f32(), rows, v, samplings.data(), static_cast<int32_t*>(ids.data));
}

}  // namespace

void register_sample() { register_op<sample_op>("SvSample", {"logits: float", "sampling: int32"}, {on_device("ids: int32")}); }

}  // namespace sv
