// The GPU's kernels as a Device for one op: the table of a device library, on the op's stream, with scratch memory that
// TensorFlow gives for the op. Nothing waits, and nothing of the device is read.
//
// Memory that is given back while work on it is still queued may be handed out again at once: whatever uses it next is
// queued behind, on the same stream, and TensorFlow's copies wait for that stream.
#pragma once
#include "../cuda/kernels.h"
#include "../kernels/device.h"
#include "tensorflow/c/kernels.h"

namespace sv {

class GpuDevice : public Device {
 public:
  /** Throws when the context's device is not ours. */
  GpuDevice(const GpuKernels&, TF_OpKernelContext*);
  ~GpuDevice() override;
  GpuDevice(const GpuDevice&) = delete;
  /** To be called after the op has queued all its work. Throws its error, if there was one. */
  void finish();

  void rms_norm(const float* x, int64_t ldx, const float* w, const float* eps, int64_t rows, int64_t d, float* y, int64_t ldy,
                int64_t heads) override;
  void layer_norm(const float* x, int64_t ldx, const float* w, const float* b, const float* eps, int64_t rows, int64_t d, float* y,
                  int64_t ldy) override;
  void rope(const float* x, int64_t ldx, const float* cos, const float* sin, int64_t t, int64_t heads, int64_t c, float* y,
            int64_t ldy) override;
  void add(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t rows, int64_t d, float* y, int64_t ldy) override;
  void gated_mul(const float* gate, int64_t ldg, const float* x, int64_t ldx, int64_t rows, int64_t n, int32_t activation, float* y,
                 int64_t ldy) override;
  void copy_rows(const float* x, int64_t ldx, int64_t rows, int64_t width, float* y) override;
  void copy_heads(const float* x, int64_t ldx, int64_t rows, int64_t heads, int64_t step, int64_t c, float* y, int64_t ldy) override;
  void linear(const float* x, int64_t ldx, int64_t rows, const Matrix&, const Epilogue&, float* y, int64_t ldy, int64_t strips) override;
  void gather_rows(const Matrix&, const int32_t* ids, int64_t count, float* y) override;
  void dequantize(const Matrix&, int64_t row, int64_t rows, float* y) override;
  void attend(const Attention&) override;
  void kv_write(const KvCache&, int64_t at, const float* keys, const float* values, int64_t ld, int64_t t) override;
  void kv_read(const KvCache&, int64_t begin, int64_t end, float* y) override;
  void kv_copy(const KvCache& from, int64_t rows, const KvCache& to) override;
  void rope_and_append(float* qkv, int64_t ld, int64_t t, int64_t query_width, const float* cos, const float* sin, int64_t half,
                       const KvCache&, int64_t at) override;
  void delta_rule(const Delta&) override;
  void sample(const float* logits, int64_t rows, int64_t n, const Sampling* samplings, int32_t* ids) override;

  float* scratch(SharedSlot, int64_t floats) override;
  void fill(void* to, int64_t bytes, const Fill& body) override;
  void fill_matrix(void* to, int64_t bytes, const Fill& body) override;
  const char* find_matrix(const void* packed, int64_t bytes, Matrix* found) override;
  void forget_matrix(const void* memory) override;
  bool is_host() const override { return false; }

  // Kernels for TensorFlow's own ops: see GpuKernels.
  void binary(GpuBinary, const std::vector<int64_t>& dims, const float* a, const std::vector<int64_t>& a_strides, const float* b,
              const std::vector<int64_t>& b_strides, float* y);
  void copy(const std::vector<int64_t>& dims, const void* x, const std::vector<int64_t>& x_strides, void* y,
            const std::vector<int64_t>& y_strides);
  void gather(const void* x, const int32_t* ids, int64_t outer, int64_t n, int64_t count, int64_t inner, void* y);

 private:
  /** Device memory until it is destroyed; null data when there is none. */
  class Block {
   public:
    Block() = default;
    Block(TF_OpKernelContext*, int64_t bytes);
    ~Block();
    Block(Block&& other) noexcept { swap(other); }
    Block& operator=(Block&& other) noexcept {
      swap(other);
      return *this;
    }
    void* data() const;
    int64_t bytes() const;

   private:
    void swap(Block& other) { std::swap(tensor_, other.tensor_); }
    TF_Tensor* tensor_ = nullptr;
  };

  /** Memory for one call of the table. */
  GpuScratch call_scratch();

  const GpuKernels& table_;
  TF_OpKernelContext* context_;
  GpuStream stream_;
  Block slots_[kSharedSlots];
  std::vector<Block> taken_;
  bool exhausted_ = false;
};

}  // namespace sv
