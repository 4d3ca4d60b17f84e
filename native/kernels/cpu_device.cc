// The kernels of this folder as a Device. Its memory is the host's, and its scratch is the pool's.
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <vector>

#include "device.h"

namespace sv {
namespace {

class CpuDevice : public Device {
 public:
  void rms_norm(const float* x, int64_t ldx, const float* w, const float* eps, int64_t rows, int64_t d, float* y, int64_t ldy,
                int64_t heads) override {
    parallel(rows, 8, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; i++)
        for (int64_t h = 0; h < heads; h++) kernels().rms_norm(x + i * ldx + h * d, w, *eps, d, y + i * ldy + h * d);
    });
  }
  void layer_norm(const float* x, int64_t ldx, const float* w, const float* b, const float* eps, int64_t rows, int64_t d, float* y,
                  int64_t ldy) override {
    parallel(rows, 8, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; i++) kernels().layer_norm(x + i * ldx, w, b, *eps, d, y + i * ldy);
    });
  }
  void rope(const float* x, int64_t ldx, const float* cos, const float* sin, int64_t t, int64_t heads, int64_t c, float* y,
            int64_t ldy) override {
    parallel(t, 8, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; i++) {
        if (x != y) memcpy(y + i * ldy, x + i * ldx, (size_t)(heads * c) * 4);
        for (int64_t j = 0; j < heads; j++) kernels().rope(y + i * ldy + j * c, cos + i * (c / 2), sin + i * (c / 2), c / 2);
      }
    });
  }
  void add(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t rows, int64_t d, float* y, int64_t ldy) override {
    for (int64_t i = 0; i < rows; i++) kernels().add(a + i * lda, b + i * ldb, d, y + i * ldy);
  }
  void gated_mul(const float* gate, int64_t ldg, const float* x, int64_t ldx, int64_t rows, int64_t n, int32_t activation, float* y,
                 int64_t ldy) override {
    parallel(rows, 8, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; i++) kernels().gated_mul(gate + i * ldg, x + i * ldx, n, activation, y + i * ldy);
    });
  }
  void copy_rows(const float* x, int64_t ldx, int64_t rows, int64_t width, float* y) override {
    for (int64_t i = 0; i < rows; i++) memcpy(y + i * width, x + i * ldx, (size_t)width * 4);
  }
  void copy_heads(const float* x, int64_t ldx, int64_t rows, int64_t heads, int64_t step, int64_t c, float* y, int64_t ldy) override {
    for (int64_t i = 0; i < rows; i++)
      for (int64_t h = 0; h < heads; h++) memcpy(y + i * ldy + h * c, x + i * ldx + h * step, (size_t)c * 4);
  }

  void linear(const float* x, int64_t ldx, int64_t rows, const Matrix& m, const Epilogue& e, float* y, int64_t ldy,
              int64_t strips) override {
    sv::linear(x, ldx, rows, m.packed, e, y, ldy, strips);
  }
  void gather_rows(const Matrix& m, const int32_t* ids, int64_t count, float* y) override { sv::gather_rows(m.packed, ids, count, y); }
  void dequantize(const Matrix& m, int64_t row, int64_t rows, float* y) override {
    std::vector<int32_t> ids;
    for (int64_t i = row; i < row + rows; i++) ids.push_back((int32_t)i);
    sv::gather_rows(m.packed, ids.data(), rows, y);
  }

  void attend(const Attention& a) override { sv::attend(a); }
  void attend_all(const Attention* calls, int64_t count) override { sv::attend_all(calls, count); }
  void kv_write(const KvCache& kv, int64_t at, const float* keys, const float* values, int64_t ld, int64_t t) override {
    sv::kv_write(kv.k(), kv.v(), kv.bf16, kv.head_stride(), kv.row_stride(), at, keys, values, ld, t, kv.heads, kv.c);
  }
  void kv_read(const KvCache& kv, int64_t begin, int64_t end, float* y) override {
    const int64_t n = (end - begin) * kv.c;
    for (int64_t h = 0; h < 2 * kv.heads; h++) {
      const char* from = kv.data + h * kv.head_stride() + begin * kv.row_stride();
      if (kv.bf16) kernels().from_bf16((const uint16_t*)from, n, y + h * n);
      else memcpy(y + h * n, from, (size_t)n * 4);
    }
  }
  void kv_copy(const KvCache& from, int64_t rows, const KvCache& to) override {
    parallel(2 * from.heads, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t h = begin; h < end; h++)
        memcpy(to.data + h * to.head_stride(), from.data + h * from.head_stride(), (size_t)(rows * from.row_stride()));
    });
  }
  void rope_and_append(float* qkv, int64_t ld, int64_t t, int64_t query_width, const float* cos, const float* sin, int64_t half,
                       const KvCache& kv, int64_t at) override {
    const int64_t c = kv.c, key_width = kv.heads * c;
    parallel(t, 8, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; i++) {
        float* row = qkv + i * ld;
        for (int64_t x = 0; x < query_width + key_width; x += c) kernels().rope(row + x, cos + i * half, sin + i * half, half);
        kv_write(kv, at + i, row + query_width, row + query_width + key_width, 0, 1);
      }
    });
  }

  void delta_rule(const Delta& d) override { sv::delta_rule(d); }
  void sample(const float* logits, int64_t rows, int64_t n, const Sampling* samplings, int32_t* ids) override {
    parallel(rows, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; i++) ids[i] = sv::sample(logits + i * n, n, samplings[i], kernels().sample_weights);
    });
  }

  float* scratch(SharedSlot slot, int64_t floats) override { return shared_scratch(slot, floats); }
  void fill(void* to, int64_t, const Fill& body) override { body(to); }
  /** A matrix is read whole again and again, so it lies in huge pages where the system gives them (a tenth of the time). */
  void fill_matrix(void* to, int64_t bytes, const Fill& body) override {
#if defined(__linux__)
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = ((uintptr_t)to + page - 1) / page * page, end = ((uintptr_t)to + (uintptr_t)bytes) / page * page;
    if (bytes >= 4 << 20 && end > begin) madvise((void*)begin, end - begin, MADV_HUGEPAGE);  // advice: failing is no error
#else
    (void)bytes;
#endif
    body(to);
  }
  const char* find_matrix(const void* packed, int64_t bytes, Matrix* found) override {
    if (const char* why = check_packed(packed, bytes)) return why;
    *found = {*static_cast<const PackedHeader*>(packed), packed};
    return nullptr;
  }
  void forget_matrix(const void*) override {}
  bool is_host() const override { return true; }
};

}  // namespace

Device& cpu_device() {
  static CpuDevice device;
  return device;
}

}  // namespace sv
