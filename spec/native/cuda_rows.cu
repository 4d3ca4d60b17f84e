// The GPU's kernels of rows against f64: norms and rotary embedding. Part of the program of cuda_linear.cu, which says how it is built.
#include "cuda_numbers.h"

namespace cuda_numbers {
namespace {

void check_norms(int64_t rows, int64_t d) {
  const Floats x = random_floats(rows * d, -2, 3), w = random_floats(d, 0.5f, 1.5f), b = random_floats(d, -0.5f, 1);
  const Floats eps = {0.01f};
  const int64_t ldx = d + 2, ldy = d + 3;
  const Device<float> dx(spread(x, rows, d, ldx)), dw(w), db(b), de(eps);
  std::vector<double> rms, layer;
  for (int64_t r = 0; r < rows; r++) {
    double square = 0, sum = 0, variance = 0;
    for (int64_t i = 0; i < d; i++) square += (double)x[r * d + i] * x[r * d + i], sum += x[r * d + i];
    for (int64_t i = 0; i < d; i++) variance += pow(x[r * d + i] - sum / (double)d, 2);
    for (int64_t i = 0; i < d; i++) {
      rms.push_back(x[r * d + i] / sqrt(square / (double)d + eps[0]) * w[i]);
      layer.push_back((x[r * d + i] - sum / (double)d) / sqrt(variance / (double)d + eps[0]) * w[i] + b[i]);
    }
  }
  const string size = " rows=" + std::to_string(rows) + " d=" + std::to_string(d);
  double touched = 0;
  Floats first[2];
  for (int order = 0; order < 2; order++) {
    schedule(order);
    Device<float> y((rows + 1) * ldy), z((rows + 1) * ldy);
    gpu::rms_norm(nullptr, dx.data, ldx, dw.data, de.data, rows, d, y.data, ldy, 1);
    gpu::layer_norm(nullptr, dx.data, ldx, dw.data, db.data, de.data, rows, d, z.data, ldy);
    const Floats results[2] = {gathered(y.read(), rows, d, ldy, &touched), gathered(z.read(), rows, d, ldy, &touched)};
    for (int i = 0; i < 2; i++) {
      if (order) report("same", string(i ? "layer_norm" : "rms_norm") + size + " in reverse", differing(results[i], first[i]));
      else first[i] = results[i];
    }
  }
  schedule(0);
  report("f64", "rms_norm" + size, nmse(first[0], rms));
  report("f64", "layer_norm" + size, nmse(first[1], layer));
  report("same", "outside of norms" + size, touched);
}

void check_rope(int64_t t, int64_t heads, int64_t c) {
  const int64_t half = c / 2, d = heads * c, ldx = d + 3;
  const Floats x = random_floats(t * d, -2, 3), cos = random_floats(t * half, -1, 1), sin = random_floats(t * half, -1, 1);
  const Device<float> dc(cos), ds(sin);
  std::vector<double> want(t * d);
  for (int64_t i = 0; i < t; i++)
    for (int64_t h = 0; h < heads; h++)
      for (int64_t j = 0; j < half; j++) {
        const int64_t a = i * d + h * c + j;
        const double p = x[a], q = x[a + half], cs = cos[i * half + j], sn = sin[i * half + j];
        want[a] = p * cs - q * sn;
        want[a + half] = q * cs + p * sn;
      }
  const string name = "rope t=" + std::to_string(t) + " heads=" + std::to_string(heads) + " c=" + std::to_string(c);
  double touched = 0;
  Device<float> in(spread(x, t, d, ldx)), out((t + 1) * (d + 1));
  gpu::rope(nullptr, in.data, ldx, dc.data, ds.data, t, heads, c, half, out.data, d + 1);
  gpu::rope(nullptr, in.data, ldx, dc.data, ds.data, t, heads, c, half, in.data, ldx);
  const Floats apart = gathered(out.read(), t, d, d + 1, &touched);
  report("f64", name, nmse(apart, want));
  report("same", name + " in place", differing(gathered(in.read(), t, d, ldx, &touched), apart));
  report("same", name + " outside", touched);
}

}  // namespace

void check_rows() {
  for (const int64_t d : {1, 33, 128, 1000}) check_norms(d == 128 ? 7 : 3, d);
  check_norms(0, 5);
  check_rope(5, 3, 14);
  check_rope(1, 2, 64);
  check_rope(0, 2, 64);
}

}  // namespace cuda_numbers
