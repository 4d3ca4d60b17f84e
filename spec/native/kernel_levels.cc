// Calls every kernel of one instruction-set level on fixed numbers and prints a line per result: its name and a hash of its bits.
// Equal lines are equal bits, on whatever processor. Argument: the level; with `features`, prints what dispatch.cc finds instead.
// On x86-64 the level is avx2. Results are also compared with the portable level's: the last line has the largest NMSE.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <string>
#include <vector>

#include "kernels/int4.h"
#include "kernels/int8.h"
#include "kernels/kernels.h"
#include "kernels/quantize.h"
#include "kernel_results.h"

using namespace sv;

namespace {

struct Tables {
  const Kernels* k;
  const Int4Kernels* int4;
  const Int8Kernels* int8;
  const QuantizeKernels* quantize;
};

class Run {
 public:
  explicit Run(Tables tables) : t(tables) { random_state = 1; }
  std::vector<Result> all() {
    products();
    int4_products();
    int8_products();
    rows();
    attention(64);
    attention(72);
    delta();
    quantization();
    return results_;
  }

 private:
  Tables t;
  std::vector<Result> results_;

  template <class T>
  void emit(const std::string& name, const T* values, int64_t n) {
    results_.push_back(result_of(name, values, n));
  }
  void emit(const std::string& name, const Floats& values) { emit(name, values.data(), (int64_t)values.size()); }

  void products() {
    for (int type : {kF32, kF16, kBf16})
      for (int64_t k : {2, 97, 2100})
        for (int64_t rows : {1, 2, 3, 5, 6, 7, 13}) {
          const int64_t kp = padded_k(k), strips = 5, strip = kp * kLanes * weight_bytes(type);
          std::vector<char> w((size_t)(strip * strips) + 4096);
          for (int64_t i = 0; i < strip * strips; i += weight_bytes(type)) {
            const float f = random_float();
            const uint16_t h = type == kBf16 ? bf16_of(f) : random_half();
            memcpy(w.data() + i, type == kF32 ? (const void*)&f : &h, (size_t)weight_bytes(type));
          }
          Floats x = noise(rows * kp), out((size_t)(rows * strips * kLanes));
          t.k->matmul[type](x.data(), kp * 4, rows, w.data(), strip, k, strips, out.data(), strips * kLanes * 4);
          emit("matmul " + std::to_string(type) + " k " + std::to_string(k) + " rows " + std::to_string(rows), out);
          if (type != kBf16 || !t.k->matmul_dot_bf16) continue;
          // Not the same bits as elsewhere, but the same for a row alone as among others.
          const uint64_t before = random_state;  // other levels draw no numbers here
          std::vector<uint16_t> pairs = bf16_noise(rows * kp);
          random_state = before;
          Floats one = out, exact = out;
          t.k->matmul_dot_bf16(pairs.data(), kp * 2, rows, w.data(), strip, k, strips, out.data(), strips * kLanes * 4);
          for (int64_t r = 0; r < rows; r++)
            t.k->matmul_dot_bf16(pairs.data() + r * kp, kp * 2, 1, w.data(), strip, k, strips, one.data() + r * strips * kLanes, strips * kLanes * 4);
          Floats wide((size_t)(rows * kp));
          t.k->from_bf16(pairs.data(), rows * kp, wide.data());
          t.k->matmul[kBf16](wide.data(), kp * 4, rows, w.data(), strip, k, strips, exact.data(), strips * kLanes * 4);
          const double error = nmse(result_of("", out.data(), (int64_t)out.size()), result_of("", exact.data(), (int64_t)exact.size()));
          if (out != one || !(error < 1e-9)) {
            printf("failed: the dot product of bf16 pairs, k %d, rows %d, NMSE %g\n", (int)k, (int)rows, error);
            exit(1);
          }
        }
  }

  void int4_products() {
    for (int64_t group : {32, 64, 128})
      for (int planes : {1, 2})
        for (int zero_scaled : {0, 1})
          for (int64_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 17}) {
            const int64_t k = 3 * group - 5, groups = int4_groups(k, group), kp = groups * group, strips = 3;
            PackedHeader h = {};
            h.group = (int32_t)group;
            h.zero_scaled = zero_scaled;
            h.scale_bf16 = zero_scaled;
            h.planes = planes;
            h.strip_bytes = groups * int4_tile_bytes(group);
            std::vector<char> w((size_t)(strips * h.strip_bytes) + 4096);
            for (char& b : w) b = (char)random_word();
            for (int64_t tile = 0; tile < strips * groups; tile++)
              for (int i = 0; i < 32; i++) {
                const uint16_t number = random_half();
                memcpy(w.data() + (tile + 1) * int4_tile_bytes(group) - 64 + i * 2, &number, 2);
              }
            const QuantizedRows q0 = {nullptr, planes * kp + groups * 16, kp, groups, planes};
            std::vector<int8_t> bytes((size_t)(rows * q0.stride));
            const QuantizedRows q = {bytes.data(), q0.stride, kp, groups, planes};
            Floats x = noise(rows * k), out((size_t)(rows * strips * kLanes));
            for (int64_t i = 0; i < group; i++) x[(size_t)i] *= rows % 2 ? 1.f : 0.f;  // a group of zeros
            for (int64_t r = 0; r < rows; r++) t.int4->quantize_row(x.data() + r * k, k, group, planes, bytes.data() + r * q.stride);
            t.int4->matmul(q, 0, rows, h, w.data(), strips, out.data(), strips * kLanes);
            const std::string name =
                "int4 g " + std::to_string(group) + " planes " + std::to_string(planes) + " form " + std::to_string(zero_scaled) + " rows " + std::to_string(rows);
            emit(name, out);
            emit(name + " quantized", bytes.data(), rows * q.stride);
          }
  }

  void int8_products() {
    for (int64_t k : {3, 4, 29, 512})
      for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13}) {
        const int64_t kp = int8_padded_k(k), strip = kp * kLanes + 128, strips = 3;
        std::vector<char> w((size_t)(strip * strips));
        for (char& b : w) b = (char)(random_word() % 5 == 0 ? -128 : random_word());
        for (int64_t s = 0; s < strips; s++)
          for (int lane = 0; lane < kLanes; lane++) {
            const float scale = fabsf(random_float());
            int32_t sum = 0;
            for (int64_t c = 0; c < kp; c++) sum += (int8_t)w[(size_t)(s * strip + c / 4 * 64 + lane * 4 + c % 4)];
            sum *= 128;
            memcpy(w.data() + s * strip + kp * 16 + lane * 4, &scale, 4);
            memcpy(w.data() + s * strip + kp * 16 + 64 + lane * 4, &sum, 4);
          }
        Floats x = noise(rows * k), d((size_t)rows), out((size_t)(rows * strips * kLanes));
        std::vector<int8_t> bytes((size_t)(rows * kp));
        for (int64_t r = 0; r < rows; r++) d[(size_t)r] = t.int8->quantize_row(x.data() + r * k, k, bytes.data() + r * kp);
        t.int8->matmul(bytes.data(), kp, d.data(), rows, kp, w.data(), strip, strips, out.data(), strips * kLanes);
        emit("int8 k " + std::to_string(k) + " rows " + std::to_string(rows), out);
      }
  }

  void rows() {
    for (int64_t n : {1, 16, 45, 896}) {
      const std::string at = " n " + std::to_string(n);
      const Floats a = noise(n), b = noise(n), c = noise(n);
      Floats y((size_t)n), wide((size_t)n);
      t.k->rms_norm(a.data(), b.data(), 1e-6f, n, y.data());
      emit("rms_norm" + at, y);
      t.k->layer_norm(a.data(), b.data(), c.data(), 1e-6f, n, y.data());
      emit("layer_norm" + at, y);
      for (int32_t kind : {kGeluTanh, kGeluErf, kQuickGelu, kSilu, kSigmoid}) {
        for (int64_t i = 0; i < n; i++) y[(size_t)i] = a[(size_t)i] * (float)(i % 60);
        if (n > 4) y[0] = NAN, y[1] = INFINITY, y[2] = -INFINITY, y[3] = -0.f;
        t.k->activate(y.data(), n, kind);
        emit("activate " + std::to_string(kind) + at, y);
        t.k->gated_mul(a.data(), b.data(), n, kind, y.data());
        emit("gated_mul " + std::to_string(kind) + at, y);
      }
      t.k->add(a.data(), b.data(), n, y.data());
      emit("add" + at, y);
      t.k->mul(a.data(), b.data(), n, y.data());
      emit("mul" + at, y);
      Floats head = noise(2 * n);
      t.k->rope(head.data(), a.data(), b.data(), n);
      emit("rope" + at, head);
      y = a;
      t.k->l2_norm(y.data(), 0.5f, n);
      emit("l2_norm" + at, y);
      std::vector<uint16_t> hi((size_t)n), rest((size_t)n);
      t.k->to_bf16(a.data(), n, hi.data());
      emit("to_bf16" + at, hi.data(), n);
      t.k->bf16_rest(a.data(), n, hi.data(), rest.data());
      emit("bf16_rest" + at, rest.data(), n);
      t.k->from_bf16(hi.data(), n, wide.data());
      emit("from_bf16" + at, wide);
      for (uint16_t& h : rest) h = (uint16_t)random_word();
      t.k->from_f16(rest.data(), n, wide.data());
      emit("from_f16" + at, wide);
    }
    std::vector<uint32_t> words(16 * 37), out(16 * 37);
    const uint32_t* pointers[16];
    for (int i = 0; i < 16; i++) pointers[i] = words.data() + i * 37;
    for (uint32_t& w : words) w = random_word();
    t.k->transpose_words(pointers, 37, out.data(), 16);
    emit("transpose_words", out.data(), 16 * 37);
  }

  void attention(int64_t c) {
    const int64_t n = 300, cp = (c + 15) / 16 * 16;
    const Floats k = noise(n * c), v = noise(n * c);
    const std::vector<uint16_t> kb = bf16_noise(n * c), vb = bf16_noise(n * c);
    std::vector<int32_t> listed;
    for (int32_t i = 0; i < 200; i += 1 + i % 3) listed.push_back(i);
    const int64_t length = (int64_t)listed.size() + 100;
    for (int32_t bf16 : {0, 1})
      for (int64_t m : {1, 2, 3, 4, 5, 6, 7, 20})
        for (float cap : {0.f, 5.f}) {
          Floats q = noise(m * c), scores((size_t)(m * 512)), scratch((size_t)attention_scratch(m, c) + 4096), columns(512);
          std::vector<int32_t> limit((size_t)m), first((size_t)m);
          for (int64_t i = 0; i < m; i++) limit[(size_t)i] = (int32_t)(length - 3 * i), first[(size_t)i] = (int32_t)(i % 2 * 5);
          AttentionStrip a = {};
          a.q = q.data(), a.m = m, a.c = c, a.limit = limit.data(), a.first = first.data(), a.length = length, a.softcap = cap;
          a.rows = {bf16 ? (const char*)kb.data() : (const char*)k.data(), bf16 ? (const char*)vb.data() : (const char*)v.data(), c * (bf16 ? 2 : 4), bf16,
                    listed.data(), (int64_t)listed.size(), 200};
          a.scores = scores.data(), a.score_stride = 512;
          Floats o((size_t)(m * cp)), top((size_t)m), sum((size_t)m), po = o, ptop = top, psum = sum;
          for (int64_t begin = 0; begin < length; begin += kAttentionChunk) {
            t.k->attend_chunk(a, begin, {po.data(), ptop.data(), psum.data()}, scratch.data());
            t.k->merge({o.data(), top.data(), sum.data()}, {po.data(), ptop.data(), psum.data()}, m, cp, begin == 0);
          }
          t.k->column_sum(a, top.data(), sum.data(), columns.data());
          const std::string name = "attention c " + std::to_string(c) + (bf16 ? " bf16" : " f32") + " m " + std::to_string(m) + (cap > 0 ? " cap" : "");
          emit(name, o);
          emit(name + " sums", sum);
          emit(name + " columns", columns);
          t.k->scores_only(a, 0, {po.data(), ptop.data(), psum.data()}, scratch.data());
          emit(name + " only scores", psum);
        }
  }

  void delta() {
    const int64_t n = 45, rows = 6, dk = 18, dv = 37;
    const Floats x = noise(4 * n), w = noise(4 * n), q = noise(rows * 64), k = noise(rows * 64), v = noise(rows * 64), decay = noise(rows), beta = noise(rows);
    const float* taps[4] = {x.data(), x.data() + n, x.data() + 2 * n, x.data() + 3 * n};
    Floats y((size_t)n), out((size_t)(rows * 64)), state = noise((dv + 15) / 16 * 16 * dk);
    t.k->conv_silu(taps, w.data(), n, 4, n, y.data());
    emit("conv_silu", y);
    t.k->delta_rows(state.data(), {q.data(), k.data(), v.data(), 64, rows, dk, dv, decay.data(), beta.data(), out.data(), 64});
    emit("delta_rows", out);
    emit("delta_rows state", state);
  }

  void quantization() {
    const int64_t n = 93;
    const Floats w = noise(n), columns = noise(n);
    Floats out((size_t)n), level((size_t)n);
    std::vector<uint8_t> q((size_t)n);
    float ends[2];
    t.quantize->scale(w.data(), columns.data(), 1.7f, 1.25f, n, out.data());
    emit("scale", out);
    t.quantize->range(w.data(), n, ends, ends + 1);
    emit("range", ends, 2);
    for (float step : {0.25f, 0.3f}) {  // of the first some weights are half way
      for (int64_t i = 0; i < n; i++) level[(size_t)i] = (float)(i - 40) / 8.f + (i % 5 == 0 ? w[(size_t)i] : 0.f);
      t.quantize->levels(level.data(), n, step, 7, out.data());
      emit("levels " + std::to_string(step), out);
    }
    t.quantize->narrow(out.data(), n, q.data());
    t.quantize->widen(q.data(), n, level.data());
    emit("narrow and widen", level);
    t.quantize->restore(level.data(), n, 0.3f, 7, columns.data(), 1.7f, out.data());
    emit("restore", out);
    const int64_t size = 24;
    std::vector<double> matrix((size_t)(size * size)), inverse(matrix.size()), rows((size_t)(size * kFeedbackRows)), step((size_t)kFeedbackRows, 0.3), zero((size_t)kFeedbackRows, 7.0);
    for (int64_t i = 0; i < size; i++)
      for (int64_t j = 0; j < size; j++) matrix[(size_t)(i * size + j)] = i == j ? 30.0 : (double)((i * j) % 7) / 7.0;
    t.quantize->cholesky(matrix.data(), size);
    emit("cholesky", matrix.data(), size * size);
    t.quantize->invert(matrix.data(), size, inverse.data());
    emit("invert", inverse.data(), size * size);
    for (double& x : rows) x = random_float();
    std::vector<uint8_t> rounded(rows.size());
    t.quantize->feedback(rows.data(), size, matrix.data(), size, step.data(), zero.data(), rounded.data());
    emit("feedback", rounded.data(), (int64_t)rounded.size());
    t.quantize->square(inverse.data(), size, matrix.data());
    emit("square", matrix.data(), size * size);
  }
};

#if defined(__aarch64__)
Tables tables() { return {&kernels(), &int4_kernels(), &int8_kernels(), strcmp(kernels().name, "portable") ? &quantize_neon : &quantize_portable}; }
#else
Tables tables() { return {&kernels_avx2, &int4_avx2, &int8_avx2, &quantize_avx2}; }
#endif

}  // namespace

int main(int, char** argv) {
#if defined(__aarch64__)
  if (!strcmp(argv[1], "features")) {
    select_kernels(nullptr);
    printf("%s; %s\n", cpu_features(), kernels().name);
    return 0;
  }
  if (const char* why = select_kernels(argv[1])) {
    printf("failed: %s: %s\n", argv[1], why);
    return 1;
  }
#else
  (void)argv;
#endif
  const std::vector<Result> results = Run(tables()).all();
  for (const Result& r : results) printf("%s: %016llx\n", r.name.c_str(), (unsigned long long)r.hash);
#if defined(__aarch64__)
  select_kernels("portable");
  const std::vector<Result> plain = Run(tables()).all();
  double worst = 0;
  const char* where = "";
  for (size_t i = 0; i < plain.size(); i++) {
    const double error = nmse(results[i], plain[i]);
    if (!(error <= worst)) worst = error, where = plain[i].name.c_str();
  }
  printf("worst: %g (%s)\n", worst, where);
#endif
  return 0;
}
