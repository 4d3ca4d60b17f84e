// Compares the GPU's matrix and row kernels with the processor's, or with f64, on random inputs of ugly sizes, and prints a line
// per comparison: its kind, its name and the error (the kinds and what each allows: cuda_linear.spec.ts). Built with the stand-in
// for CUDA by that test; built with nvcc it does the same on a GPU.
//
// Inputs are followed by NaN in their rows' padding and by guards in memory, outputs and scratch are filled with NaN before.
#include <string>
#include <vector>

#include "../../native/kernels/int4.h"
#include "../../native/kernels/int8.h"
#include "../../native/kernels/pool.h"
#include "cuda_numbers.h"

namespace sv {  // the level that does not fuse, without the others (instead of dispatch.cc)
const Kernels& kernels() { return kernels_portable; }
const Int4Kernels& int4_kernels() { return int4_portable; }
const Int8Kernels& int8_kernels() { return int8_portable; }
}  // namespace sv

using namespace cuda_numbers;

namespace {

// --- matrices ------------------------------------------------------------------------------------------------------------

struct Kind {
  const char* name;
  int32_t type;
  bool gated, fast;
  int32_t group;
  bool scale_bf16, zero_scaled;
};

uint16_t half_bits(float f) {  // of numbers that f16 has
  uint32_t u;
  memcpy(&u, &f, 4);
  if ((u & 0x7fffffff) == 0) return (uint16_t)(u >> 16);
  return (uint16_t)((u >> 16 & 0x8000) | ((u & 0x7fffffff) - (112u << 23)) >> 13);
}

struct Int4Source {
  const Kind* kind;
  int64_t rows, k;
  uint64_t seed;
};
void decode_random(const void* part, int64_t strip, int64_t group, Int4Tile* out) {
  const Int4Source& s = *(const Int4Source*)part;
  const uint64_t saved = state;
  state = s.seed + (uint64_t)(strip * 1000 + group);
  memset(out, 0, sizeof *out);
  for (int r = 0; r < kLanes && strip * kLanes + r < s.rows; r++) {
    for (int i = 0; i < s.kind->group && group * s.kind->group + i < s.k; i++) out->q[r][i] = bits32() & 15;
    const float scale = (float)(8 + (int)(bits32() % 120)) * (bits32() % 8 ? 0x1p-10f : -0x1p-10f);  // 7 bits: f16 and bf16 have it
    const float zero = s.kind->zero_scaled ? (float)((int)(bits32() % 512) - 512) * 0x1p-10f : (float)(bits32() % 64) * 0.25f;
    uint32_t u;
    memcpy(&u, &scale, 4);
    out->scale[r] = s.kind->scale_bf16 ? (uint16_t)(u >> 16) : half_bits(scale);
    out->zero[r] = half_bits(zero);
  }
  state = saved;
}

/** A packed matrix on both sides, and its weights: [strips * 16][k] as stored. */
struct Matrix {
  std::vector<char> packed;
  Floats weights;
  Device<char>* body;
  GpuMatrix gpu;
  Matrix(const Kind& kind, int64_t n, int64_t k) {
    if (kind.type == kInt4) {
      const Int4Source sources[2] = {{&kind, n, k, 77 + (uint64_t)(n * k)}, {&kind, n, k, 99999 + (uint64_t)(n * k)}};
      const Int4Part parts[2] = {{&sources[0], decode_random, n}, {&sources[1], decode_random, n}};
      packed.resize(packed_int4_bytes(parts, 1 + kind.gated, k, kind.group));
      pack_int4(parts, 1 + kind.gated, k, kind.group, kind.gated, kind.scale_bf16, kind.zero_scaled, kind.fast ? 1 : 2, packed.data());
    } else {
      const Floats w = random_floats(2 * n * k, -0.5f, 0.7f);
      if (kind.type == kInt8) {
        const Int8Part parts[2] = {{w.data(), kF32, n, nullptr}, {w.data() + n * k, kF32, n, nullptr}};
        packed.resize(packed_int8_bytes(parts, 1 + kind.gated, k, kind.gated));
        pack_int8(parts, 1 + kind.gated, k, kind.gated, packed.data());
      } else {
        const WeightPart parts[2] = {{w.data(), kF32, n}, {w.data() + n * k, kF32, n}};
        packed.resize(packed_bytes(parts, 1 + kind.gated, k, kind.type, kind.gated));
        pack(parts, 1 + kind.gated, k, kind.type, kind.gated, kind.fast, packed.data());
      }
    }
    memcpy(&gpu.header, packed.data(), sizeof gpu.header);
    const int64_t rows = gpu.header.strips * kLanes;
    std::vector<int32_t> all(rows);
    for (int64_t i = 0; i < rows; i++) all[i] = (int32_t)i;
    weights.resize(rows * k);
    sv::gather_rows(packed.data(), all.data(), rows, weights.data());
    body = new Device<char>(std::vector<char>(packed.begin() + sizeof(PackedHeader), packed.end()));
    gpu.body = body->data;
  }
  ~Matrix() { delete body; }
};

double activate(double x, int32_t kind) {
  const auto sigmoid = [](double v) { return 1 / (1 + exp(-v)); };
  switch (kind) {
    case kGeluTanh: return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case kGeluErf: return 0.5 * x * (1 + erf(x / sqrt(2.)));
    case kQuickGelu: return x * sigmoid(1.702 * x);
    case kSilu: return x * sigmoid(x);
    default: return x;
  }
}

/** Inputs of a product; all of them random but for what a case says. */
struct Inputs {
  int64_t rows;
  Floats x, bias, scale, residual;
  int32_t activation;
};

std::vector<double> expected(const Kind& kind, const Matrix& m, const Inputs& in) {
  const int64_t n = m.gpu.header.n, k = m.gpu.header.k;
  std::vector<double> y;
  for (int64_t r = 0; r < in.rows; r++) {
    const auto dot = [&](int64_t stored) {
      double s = 0;
      for (int64_t i = 0; i < k; i++) s += (double)in.x[r * k + i] * m.weights[stored * k + i];
      return s;
    };
    for (int64_t c = 0; c < n; c++) {
      const int64_t first = kind.gated ? c / kLanes * 2 * kLanes + c % kLanes : c;
      const auto at = [](const Floats& values, int64_t i, double absent) { return values.empty() ? absent : values[i]; };
      double result = activate(dot(first) + at(in.bias, c, 0), in.activation);
      if (kind.gated) result *= dot(first + kLanes) + at(in.bias, n + c, 0);
      y.push_back(result * at(in.scale, c, 1) + at(in.residual, r * n + c, 0));
    }
  }
  return y;
}

/** The first `rows` rows of the product on the GPU; `touched` counts what was written outside of it. */
Floats product(const Matrix& m, const Inputs& in, int64_t rows, int64_t strips, double* touched) {
  const int64_t n = m.gpu.header.n, k = m.gpu.header.k, ldx = k + 3, ldy = n + 5;
  const Device<float> x(spread(Floats(in.x.begin(), in.x.begin() + rows * k), rows, k, ldx));
  const Device<float> bias(in.bias), scale(in.scale);
  Floats first;  // where there is a residual it is in y
  if (!in.residual.empty()) first = spread(Floats(in.residual.begin(), in.residual.begin() + rows * n), rows, n, ldy);
  first.resize((rows + 1) * ldy, 0);
  memset(first.data() + (in.residual.empty() ? 0 : rows * ldy), 0xff, (size_t)(in.residual.empty() ? rows + 1 : 1) * ldy * 4);
  Device<float> y(first);
  Epilogue e;
  e.bias = in.bias.empty() ? nullptr : bias.data;
  e.activation = in.activation;
  e.scale = in.scale.empty() ? nullptr : scale.data;
  if (!in.residual.empty()) e.residual = y.data, e.residual_ld = ldy;
  Scratch scratch;
  gpu::linear(nullptr, scratch.gpu(), x.data, ldx, rows, &m.gpu, &e, y.data, ldy, strips);
  const int64_t outputs = m.gpu.header.gated ? strips * kLanes / 2 : strips * kLanes;
  return gathered(y.read(), rows, strips < 0 || outputs > n ? n : outputs, ldy, touched);
}

// --- cases -----------------------------------------------------------------------------------------------------------------

constexpr int64_t kRows = 65;
constexpr int64_t kFewer[] = {1, 2, 7, 15, 16, 17, 33};

void check_product(const Kind& kind, int64_t n, int64_t k, int round) {
  const string name = string(kind.name) + " n=" + std::to_string(n) + " k=" + std::to_string(k);
  const Matrix m(kind, n, k);
  Inputs in = {kRows, random_floats(kRows * k, -1.5f, 2), {}, {}, {}, kNone};
  if (round % 2) in.bias = random_floats(kind.gated ? 2 * n : n, -1, 1.5f);
  if (round % 3) in.residual = random_floats(kRows * n, -1.5f, 1);
  if (kind.type != kInt8 && round % 4 > 1) in.scale = random_floats(n, 0.5f, 1.5f);
  if (kind.type != kInt8) in.activation = round % 5;
  if (kind.type == kInt8 && round % 2) {  // steps of 1, and values half-way between them
    for (float& v : in.x) v = (float)((int)(bits32() % 509) - 254) * 0.5f;
    for (int64_t r = 0; r < kRows; r++) in.x[r * k + r % k] = 127;
  }
  double touched = 0;
  const Floats all = product(m, in, kRows, -1, &touched);
  if (kind.type == kInt8) {  // the portable product of the processor, to the last bit
    Floats y(kRows * n);
    Epilogue e;
    e.bias = in.bias.empty() ? nullptr : in.bias.data();
    if (!in.residual.empty()) e.residual = in.residual.data(), e.residual_ld = n;
    sv::linear(in.x.data(), k, kRows, m.packed.data(), e, y.data(), n);
    report("same", name + " as the processor", differing(all, y));
  } else {
    report(kind.fast ? "fast" : "exact", name, nmse(all, expected(kind, m, in)));
  }
  for (int i = 0; i < 2; i++) {  // fewer rows, the threads in another order
    const int64_t rows = i ? kFewer[round % 7] : kFewer[(round + 4) % 7];
    schedule(i);
    const Floats fewer = product(m, in, rows, -1, &touched);
    report("same", name + " rows=" + std::to_string(rows), differing(fewer, Floats(all.begin(), all.begin() + rows * n)));
  }
  if (round % 4 == 0) {
    schedule(1);
    report("same", name + " in reverse", differing(product(m, in, kRows, -1, &touched), all));
  }
  schedule(0);
  if (in.residual.empty()) product(m, in, 0, -1, &touched);
  report("same", name + " outside of the output", touched);
}

void check_rows_of(const Kind& kind, int64_t n, int64_t k) {
  const string name = string(kind.name) + " n=" + std::to_string(n) + " k=" + std::to_string(k);
  const Matrix m(kind, n, k);
  const int64_t stored = m.gpu.header.strips * kLanes, begin = stored / 3;
  double touched = 0;
  Device<float> y((stored - begin + 1) * k);
  gpu::dequantize(nullptr, &m.gpu, begin, stored - begin, y.data);
  report("same", name + " dequantized",
         differing(gathered(y.read(), stored - begin, k, k, &touched), Floats(m.weights.begin() + begin * k, m.weights.end())));
  std::vector<int32_t> ids;
  Floats rows;
  for (int i = 0; i < 5; i++) {
    ids.push_back((int32_t)(bits32() % (uint32_t)n));
    rows.insert(rows.end(), m.weights.begin() + ids.back() * k, m.weights.begin() + (ids.back() + 1) * k);
  }
  const Device<int32_t> chosen(ids);
  Device<float> z(6 * k);
  gpu::gather_rows(nullptr, &m.gpu, chosen.data, 5, z.data);
  gpu::gather_rows(nullptr, &m.gpu, chosen.data, 0, z.data);
  report("same", name + " gathered", differing(gathered(z.read(), 5, k, k, &touched), rows));
  report("same", name + " outside of rows", touched);
}

/** Leading strips only, and rows that are not finite, which must not spoil the others. */
void check_special(const Kind& kind) {
  const int64_t n = 100, k = 160;
  const Matrix m(kind, n, k);
  for (const int64_t rows : {int64_t(5), int64_t(40)}) {
    const string name = string(kind.name) + " rows=" + std::to_string(rows);
    Inputs in = {rows, random_floats(rows * k, -1, 1.5f), {}, {}, {}, kNone};
    double touched = 0;
    const Floats all = product(m, in, rows, -1, &touched);
    const int64_t some = kind.gated ? 16 : 32;  // two strips
    Floats leading;
    for (int64_t r = 0; r < rows; r++) leading.insert(leading.end(), all.begin() + r * n, all.begin() + r * n + some);
    report("same", name + " leading strips", differing(product(m, in, rows, 2, &touched), leading));
    in.x[k + 3] = NAN;
    in.x[3 * k + 7] = INFINITY;
    const Floats spoilt = product(m, in, rows, -1, &touched);
    double wrong = 0;
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < n; c++) wrong += r == 1 || r == 3 ? isfinite(spoilt[r * n + c]) : spoilt[r * n + c] != all[r * n + c];
    report("same", name + " beside rows that are not finite", wrong);
    report("same", name + " outside of leading strips", touched);
  }
}

const Kind kKinds[] = {
    {"f32", kF32, false, false, 0, false, false},
    {"f32 gated", kF32, true, false, 0, false, false},
    {"f16", kF16, false, false, 0, false, false},
    {"f16 gated", kF16, true, false, 0, false, false},
    {"bf16", kBf16, false, false, 0, false, false},
    {"bf16 gated", kBf16, true, false, 0, false, false},
    {"bf16 dot", kBf16, false, true, 0, false, false},
    {"bf16 dot gated", kBf16, true, true, 0, false, false},
    {"int4 group=128", kInt4, false, false, 128, false, false},
    {"int4 group=64 bf16 scales", kInt4, false, false, 64, true, false},
    {"int4 group=32 scaled zeros", kInt4, false, false, 32, false, true},
    {"int4 group=128 gated bf16 scales scaled zeros", kInt4, true, false, 128, true, true},
    {"int4 group=64 gated", kInt4, true, false, 64, false, false},
    {"int4 group=32 fast", kInt4, false, true, 32, true, false},
    {"int4 group=128 gated fast", kInt4, true, true, 128, false, true},
    {"int8", kInt8, false, false, 0, false, false},
    {"int8 gated", kInt8, true, false, 0, false, false},
};

}  // namespace

int main() {
  set_thread_count(1);
  schedule(0);
  int round = 0;
  for (const Kind& kind : kKinds) {
    state = 1 + (uint64_t)(&kind - kKinds);
    for (const int64_t n : {1, 15, 16, 48, 100})
      for (const int64_t k : {1, 31, 32, 96, 128, 160, 257})
        if ((n + k + round) % 2 || n == 100) check_product(kind, n, k, round++);
    for (const int64_t n : {1, 48, 100}) check_rows_of(kind, n, n == 48 ? 128 : 161);
    check_special(kind);
  }
  // A matrix wide enough for blocks of two strips, an odd number of them; inputs enough for every warp to have several units.
  for (const int i : {4, 8, 13, 15}) check_product(kKinds[i], i == 4 ? 1025 * 16 : 48, i == 4 ? 17 : 2400, round++);
  check_product(kKinds[4], 3, 300000, 1);  // activations that fill the scratch: 64 rows, then one more
  check_rows();
  must(cudaDeviceSynchronize());
  must(cudaGetLastError());
#if defined(SV_STANDIN)
  report("same", "memory around allocations", (double)sparsevila_standin_check());
#endif
  return 0;
}
