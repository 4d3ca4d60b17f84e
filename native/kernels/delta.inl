// The gated delta rule on the rows of one head. Included once per instruction-set level, after rows.inl. Sums over keys are four
// chains, merged in a fixed order.

namespace sv {
namespace SV_LEVEL {

/** y[c] = silu(sum over j of x[j][c] w[j][c]). */
static void conv_silu(const float* const* x, const float* w, int64_t ldw, int64_t taps, int64_t n, float* y) {
  SV_EACH_VEC(n) {
    vec sum = mul(load_part(x[0] + i, left), load_part(w + i, left));
    for (int64_t j = 1; j < taps; j++) sum = fma(load_part(x[j] + i, left), load_part(w + j * ldw + i, left), sum);
    store_part(y + i, activation(sum, kSilu), left);
  }
}

/** x = scale x / sqrt(sum(x^2) + 1e-6). */
static void l2_norm(float* x, float scale, int64_t n) {
  vec s = zero();
  SV_EACH_VEC(n) {
    const vec v = load_part(x + i, left);
    s = fma(v, v, s);
  }
  const vec inverse = splat(scale / __builtin_sqrtf(sum_lanes(s) + 1e-6f));
  SV_EACH_VEC(n) store_part(x + i, mul(load_part(x + i, left), inverse), left);
}

SV_INLINE vec sum_chains(const vec* chain) { return add(add(chain[0], chain[1]), add(chain[2], chain[3])); }

/** One token in a strip of 16 columns, S [dk][16]. */
SV_INLINE vec delta_token(float* S, const float* q, const float* k, vec v, float decay, float beta, int64_t dk) {
  vec chain[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 <= dk; i += 4)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) chain[j] = fma(splat(k[i + j]), load(S + (i + j) * kLanes), chain[j]);
  for (; i < dk; i++) chain[0] = fma(splat(k[i]), load(S + i * kLanes), chain[0]);
  const vec fade = splat(decay), change = mul(splat(beta), sub(v, mul(fade, sum_chains(chain))));
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) chain[j] = zero();
  for (i = 0; i + 4 <= dk; i += 4)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      const vec s = fma(splat(k[i + j]), change, mul(fade, load(S + (i + j) * kLanes)));
      store(S + (i + j) * kLanes, s);
      chain[j] = fma(splat(q[i + j]), s, chain[j]);
    }
  for (; i < dk; i++) {
    const vec s = fma(splat(k[i]), change, mul(fade, load(S + i * kLanes)));
    store(S + i * kLanes, s);
    chain[0] = fma(splat(q[i]), s, chain[0]);
  }
  return sum_chains(chain);
}

static void delta_rows(float* state, const DeltaRows& r) {
  const int64_t dv = r.dv;
  for (int64_t from = 0; from < dv; from += kLanes) {
    const int64_t left = dv - from < kLanes ? dv - from : kLanes;
    float* S = state + from * r.dk;
    for (int64_t i = 0; i < r.t; i++) {
      const int64_t at = i * r.ld;
      const vec v = load_part(r.v + at + from, left);
      store_part(r.out + i * r.ldo + from, delta_token(S, r.q + at, r.k + at, v, r.decay[i], r.beta[i], r.dk), left);
    }
  }
}

}  // namespace SV_LEVEL
}  // namespace sv
