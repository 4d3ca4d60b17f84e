// The gated delta rule on the GPU: outputs and state against double precision, and rows in one call against rows in several.
#include "cuda_testing.h"

using namespace testing;
using sv::Delta;
using sv::DeltaSequence;
using sv::DeltaSizes;

namespace {

struct Inputs {
  std::vector<float> x, gates, conv, a_log, dt_bias;
};

double silu(double x) { return x / (1 + exp(-x)); }

std::vector<double> reference(const DeltaSizes& s, const Inputs& in, int64_t t, int64_t ldx, int64_t ldg) {
  std::vector<double> out((size_t)(t * s.value_width())), mixed((size_t)(t * s.width()));
  for (int64_t i = 0; i < t; i++)
    for (int64_t c = 0; c < s.width(); c++) {
      double sum = 0;
      for (int64_t j = 0; j < s.taps; j++)
        if (i - s.taps + 1 + j >= 0) sum += (double)in.x[(size_t)((i - s.taps + 1 + j) * ldx + c)] * in.conv[(size_t)(c * s.taps + j)];
      mixed[(size_t)(i * s.width() + c)] = silu(sum);
    }
  for (int64_t h = 0; h < s.value_heads; h++) {
    std::vector<double> state((size_t)(s.dk * s.dv));
    const int64_t key_head = h / (s.value_heads / s.key_heads);
    for (int64_t i = 0; i < t; i++) {
      const double* row = &mixed[(size_t)(i * s.width())];
      const double *q = row + key_head * s.dk, *k = row + s.key_width() + key_head * s.dk, *v = row + 2 * s.key_width() + h * s.dv;
      double qq = 1e-6, kk = 1e-6;
      for (int64_t j = 0; j < s.dk; j++) qq += q[j] * q[j], kk += k[j] * k[j];
      const float* gates = &in.gates[(size_t)(i * ldg)];
      const double step = log1p(exp((double)gates[s.value_heads + h] + in.dt_bias[(size_t)h]));
      const double decay = exp(-exp((double)in.a_log[(size_t)h]) * step), beta = 1 / (1 + exp(-(double)gates[h]));
      for (int64_t c = 0; c < s.dv; c++) {
        double memory = 0, read = 0;
        for (int64_t j = 0; j < s.dk; j++) memory += decay * state[(size_t)(j * s.dv + c)] * k[j] / sqrt(kk);
        const double change = beta * (v[c] - memory);
        for (int64_t j = 0; j < s.dk; j++) {
          double& value = state[(size_t)(j * s.dv + c)];
          value = decay * value + k[j] / sqrt(kk) * change;
          read += q[j] / sqrt(qq) / sqrt((double)s.dk) * value;
        }
        out[(size_t)(i * s.value_width() + h * s.dv + c)] = read;
      }
    }
  }
  return out;
}

/** Outputs of t rows that come in calls which end at `borders`. */
std::vector<float> run(const DeltaSizes& s, const Inputs& in, int64_t ldx, int64_t ldg, const std::vector<int64_t>& borders) {
  const int64_t t = borders.back(), ldo = s.value_width() + 1;
  Device<float> x(in.x), gates(in.gates), conv(in.conv), a_log(in.a_log), dt_bias(in.dt_bias), out((size_t)(t * ldo));
  Device<float> state(std::vector<float>((size_t)s.state_floats()));
  int64_t from = 0;
  for (const int64_t to : borders) {
    Scratch scratch;
    const DeltaSequence sequence = {to - from, state.data};
    const Delta d = {s, x.data + from * ldx, ldx, gates.data + from * ldg, ldg, conv.data, a_log.data, dt_bias.data, &sequence, 1,
                     out.data + from * ldo, ldo};
    sv::gpu::delta_rule(nullptr, scratch.gpu(), &d);
    from = to;
  }
  std::vector<float> rows;
  const std::vector<float> all = out.host();
  for (int64_t i = 0; i < t; i++) rows.insert(rows.end(), &all[(size_t)(i * ldo)], &all[(size_t)(i * ldo + s.value_width())]);
  return rows;
}

void check_rule(const DeltaSizes& s, int64_t t) {
  const int64_t ldx = s.width() + 5, ldg = 2 * s.value_heads + 3;
  Random random((uint32_t)(s.dv * 100 + t));
  Inputs in = {random.noises(t * ldx), random.noises(t * ldg), random.noises(s.width() * s.taps), random.noises(s.value_heads),
               random.noises(s.value_heads)};
  const std::string name = "delta_rule of " + std::to_string(t) + " rows, heads of " + std::to_string(s.dk) + "x" + std::to_string(s.dv);
  const auto whole = in_every_order(name, [&] { return run(s, in, ldx, ldg, {t}); });
  const double error = nmse(whole, reference(s, in, t, ldx, ldg));
  check(error < 1e-11, name + ": " + std::to_string(error));
  if (t < 3) return;
  check(same_bits(run(s, in, ldx, ldg, {1, 3, t}), whole), name + " in several calls");
}

}  // namespace

int main() {
  check_rule({2, 6, 13, 21, 4}, 19);
  check_rule({2, 2, 40, 70, 4}, 5);
  check_rule({1, 2, 7, 3, 1}, 4);
  check_rule({3, 3, 8, 16, 3}, 1);
  return finish();
}
