// See gpu_device.h.
#include "gpu_device.h"

#include <new>
#include <stdexcept>

#include "../device/stream.h"
#include "gpu_matrices.h"

namespace sv {
namespace {

const GpuMatrix matrix(const Matrix& m) { return {m.header, static_cast<const char*>(m.packed) + sizeof(PackedHeader)}; }

/** Host memory as the packing kernels want it. */
struct HostMemory {
  explicit HostMemory(int64_t bytes) : data(::operator new((size_t)bytes, std::align_val_t(64))) {}
  ~HostMemory() { ::operator delete(data, std::align_val_t(64)); }
  HostMemory(const HostMemory&) = delete;
  void* data;
};

SP_Stream stream_of(TF_OpKernelContext* context) {
  TF_Status* status = TF_NewStatus();
  const SP_Stream stream = TF_GetStream(context, status);
  const std::string why = TF_GetCode(status) == TF_OK ? "" : TF_Message(status);
  TF_DeleteStatus(status);
  if (!why.empty()) throw std::runtime_error("no stream: " + why);
  return stream;
}

}  // namespace

// --- memory ------------------------------------------------------------------------------------------------

GpuDevice::Block::Block(TF_OpKernelContext* context, int64_t bytes) {
  TF_Status* status = TF_NewStatus();
  TF_AllocatorAttributes device = {TF_ALLOCATOR_ATTRIBUTES_STRUCT_SIZE, 0};
  tensor_ = TF_AllocateTemp(context, TF_UINT8, &bytes, 1, &device, status);
  if (TF_GetCode(status) != TF_OK) tensor_ = nullptr;
  TF_DeleteStatus(status);
}
GpuDevice::Block::~Block() {
  if (tensor_) TF_DeleteTensor(tensor_);
}
void* GpuDevice::Block::data() const { return tensor_ ? TF_TensorData(tensor_) : nullptr; }
int64_t GpuDevice::Block::bytes() const { return tensor_ ? (int64_t)TF_TensorByteSize(tensor_) : 0; }

GpuDevice::GpuDevice(const GpuKernels& table, TF_OpKernelContext* context)
    : table_(table), context_(context) {
  const SP_Stream stream = stream_of(context);
  stream_ = stream->stream;
  table_.use_device(stream->device);
}
GpuDevice::~GpuDevice() = default;

GpuScratch GpuDevice::call_scratch() {
  taken_.clear();
  return {[](void* state, int64_t bytes) {
            auto& self = *static_cast<GpuDevice*>(state);
            self.taken_.emplace_back(self.context_, bytes);
            if (!self.taken_.back().data()) self.exhausted_ = true;
            return self.taken_.back().data();
          },
          this};
}

float* GpuDevice::scratch(SharedSlot slot, int64_t floats) {
  Block& block = slots_[slot];
  if (block.bytes() < floats * 4) block = Block(context_, floats * 4);
  if (!block.data() && floats > 0) throw std::bad_alloc();
  return static_cast<float*>(block.data());
}

void GpuDevice::finish() {
  const char* why = table_.last_error();
  if (exhausted_) throw std::bad_alloc();
  if (why) throw std::runtime_error(std::string("the GPU: ") + why);
}

void GpuDevice::fill(void* to, int64_t bytes, const Fill& body) {
  if (bytes == 0) return;
  const HostMemory host(bytes);
  body(host.data);
  table_.upload(stream_, to, host.data, bytes);
}

void GpuDevice::fill_matrix(void* to, int64_t bytes, const Fill& body) {
  fill(to, bytes, [&](void* host) {
    body(host);
    remember_header(to, bytes, *static_cast<const PackedHeader*>(host));
  });
}

const char* GpuDevice::find_matrix(const void* packed, int64_t bytes, Matrix* found) {
  found->packed = packed;
  return find_header(packed, bytes, &found->header) ? nullptr : "not a packed matrix";
}

void GpuDevice::forget_matrix(const void* memory) { forget_header(memory); }

// --- kernels -----------------------------------------------------------------------------------------------

void GpuDevice::rms_norm(const float* x, int64_t ldx, const float* w, const float* eps, int64_t rows, int64_t d, float* y, int64_t ldy,
                         int64_t heads) {
  if (rows * heads > 0) table_.rms_norm(stream_, x, ldx, w, eps, rows, d, y, ldy, heads);
}

void GpuDevice::layer_norm(const float* x, int64_t ldx, const float* w, const float* b, const float* eps, int64_t rows, int64_t d, float* y,
                           int64_t ldy) {
  if (rows > 0) table_.layer_norm(stream_, x, ldx, w, b, eps, rows, d, y, ldy);
}

void GpuDevice::rope(const float* x, int64_t ldx, const float* cos, const float* sin, int64_t t, int64_t heads, int64_t c, float* y,
                     int64_t ldy) {
  if (t * heads > 0) table_.rope(stream_, x, ldx, cos, sin, t, heads, c, c / 2, y, ldy);
}

void GpuDevice::add(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t rows, int64_t d, float* y, int64_t ldy) {
  if (rows * d > 0) table_.add_rows(stream_, a, lda, b, ldb, rows, d, y, ldy);
}

void GpuDevice::gated_mul(const float* gate, int64_t ldg, const float* x, int64_t ldx, int64_t rows, int64_t n, int32_t activation, float* y,
                          int64_t ldy) {
  if (rows * n > 0) table_.gated_mul(stream_, gate, ldg, x, ldx, rows, n, activation, y, ldy);
}

void GpuDevice::copy_heads(const float* x, int64_t ldx, int64_t rows, int64_t heads, int64_t step, int64_t c, float* y, int64_t ldy) {
  if (rows * heads * c > 0) copy({rows, heads, c}, x, {ldx, step, 1}, y, {ldy, c, 1});
}

void GpuDevice::copy_rows(const float* x, int64_t ldx, int64_t rows, int64_t width, float* y) {
  if (rows * width > 0) copy({rows, width}, x, {ldx, 1}, y, {width, 1});
}

void GpuDevice::linear(const float* x, int64_t ldx, int64_t rows, const Matrix& m, const Epilogue& e, float* y, int64_t ldy, int64_t strips) {
  const GpuMatrix w = matrix(m);
  if (rows > 0) table_.linear(stream_, call_scratch(), x, ldx, rows, &w, &e, y, ldy, strips);
}

void GpuDevice::gather_rows(const Matrix& m, const int32_t* ids, int64_t count, float* y) {
  if (count == 0) return;
  const GpuMatrix w = matrix(m);
  const GpuScratch memory = call_scratch();
  auto* copy = static_cast<int32_t*>(memory.take(memory.state, count * 4));
  if (!copy) return;
  table_.upload(stream_, copy, ids, count * 4);
  table_.gather_rows(stream_, &w, copy, count, y);
}

void GpuDevice::dequantize(const Matrix& m, int64_t row, int64_t rows, float* y) {
  const GpuMatrix w = matrix(m);
  if (rows > 0) table_.dequantize(stream_, &w, row, rows, y);
}

void GpuDevice::attend(const Attention& a) { table_.attend(stream_, call_scratch(), &a); }

void GpuDevice::kv_write(const KvCache& kv, int64_t at, const float* keys, const float* values, int64_t ld, int64_t t) {
  if (t > 0)
    table_.kv_write(stream_, kv.k(), kv.v(), kv.bf16, kv.head_stride(), kv.row_stride(), at, keys, values, ld, t, kv.heads, kv.c);
}

void GpuDevice::kv_read(const KvCache& kv, int64_t begin, int64_t end, float* y) {
  if (end > begin) table_.kv_read(stream_, kv.data, kv.bf16, 2 * kv.heads, kv.capacity, kv.row_stride(), begin, end, kv.c, y);
}

void GpuDevice::kv_copy(const KvCache& from, int64_t rows, const KvCache& to) {
  for (int64_t h = 0; h < 2 * from.heads && rows > 0; h++)
    table_.move(stream_, to.data + h * to.head_stride(), from.data + h * from.head_stride(), rows * from.row_stride());
}

void GpuDevice::rope_and_append(float* qkv, int64_t ld, int64_t t, int64_t query_width, const float* cos, const float* sin, int64_t half,
                                const KvCache& kv, int64_t at) {
  const int64_t key_width = kv.heads * kv.c;
  if (t > 0) table_.rope(stream_, qkv, ld, cos, sin, t, (query_width + key_width) / kv.c, kv.c, half, qkv, ld);
  kv_write(kv, at, qkv + query_width, qkv + query_width + key_width, ld, t);
}

void GpuDevice::delta_rule(const Delta& d) {
  Delta one = d;
  one.count = 1;
  for (int64_t i = 0; i < d.count; i++) {
    one.sequences = d.sequences + i;
    table_.delta_rule(stream_, call_scratch(), &one);
    one.x += one.sequences->t * d.ldx;
    one.gates += one.sequences->t * d.ldg;
    one.out += one.sequences->t * d.ldo;
  }
}

void GpuDevice::sample(const float* logits, int64_t rows, int64_t n, const Sampling* samplings, int32_t* ids) {
  for (int64_t i = 0; i < rows; i++) {
    const Sampling& s = samplings[i];
    const GpuSampling sampling = {s.temperature, s.top_k, s.top_p, s.uniform};
    table_.sample(stream_, call_scratch(), logits + i * n, n, &sampling, ids + i);
  }
}

void GpuDevice::binary(GpuBinary op, const std::vector<int64_t>& dims, const float* a, const std::vector<int64_t>& a_strides,
                       const float* b, const std::vector<int64_t>& b_strides, float* y) {
  table_.binary(stream_, op, (int32_t)dims.size(), dims.data(), a, a_strides.data(), b, b_strides.data(), y);
}

void GpuDevice::copy(const std::vector<int64_t>& dims, const void* x, const std::vector<int64_t>& x_strides, void* y,
                     const std::vector<int64_t>& y_strides) {
  table_.copy(stream_, (int32_t)dims.size(), dims.data(), x, x_strides.data(), y, y_strides.data(), 4);
}

void GpuDevice::gather(const void* x, const int32_t* ids, int64_t outer, int64_t n, int64_t count, int64_t inner, void* y) {
  table_.gather(stream_, x, ids, outer, n, count, inner, 4, y);
}

}  // namespace sv
