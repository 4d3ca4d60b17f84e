// GPU kernels for the float ops of TensorFlow itself that models, sessions and quantizing use through tfjs: without them each
// would be computed on the processor, with a copy there and back. Names and inputs are those of TensorFlow's op definitions.
#include <stdio.h>

#include "gpu_device.h"
#include "gpu_ops.h"
#include "shell.h"

namespace sv {
namespace {

using Sizes = std::vector<int64_t>;
constexpr size_t kMostDims = 6;  // of the kernels

GpuDevice& gpu(Op& op) { return static_cast<GpuDevice&>(op.device()); }

int64_t product(const Sizes& dims, size_t from, size_t to) {
  int64_t n = 1;
  for (size_t i = from; i < to; i++) n *= dims[i];
  return n;
}

/** Elements from one index to the next in every dimension of a dense tensor. */
Sizes strides(const Sizes& dims) {
  Sizes s(dims.size());
  for (size_t i = 0; i < dims.size(); i++) s[i] = product(dims, i + 1, dims.size());
  return s;
}

void check_rank(const Sizes& dims) {
  if (dims.size() > kMostDims) fail("expected at most 6 dimensions on a GPU, received " + std::to_string(dims.size()));
}

/** An axis of `rank` dimensions, negative from the last. */
size_t axis_of(const View& axis, size_t rank) {
  const int64_t i = axis.i32()[0], at = i < 0 ? i + (int64_t)rank : i;
  if (at < 0 || at >= (int64_t)rank) fail("axis: " + std::to_string(i) + " of " + std::to_string(rank) + " dimensions");
  return (size_t)at;
}

/** x and y, broadcast against each other from the last dimension on. */
template <GpuBinary kind>
void binary_op(Op& op) {
  const View a = op.input(0), b = op.input(1);
  const size_t rank = a.dims.size() > b.dims.size() ? a.dims.size() : b.dims.size();
  Sizes dims(rank), sides[2];
  const auto size = [&](const View& v, size_t i) { return i + v.dims.size() < rank ? 1 : v.dims[i + v.dims.size() - rank]; };
  for (size_t i = 0; i < rank; i++) {
    const int64_t n = size(a, i), m = size(b, i);
    if (n != m && n != 1 && m != 1) fail("Incompatible shapes: sizes " + std::to_string(n) + " and " + std::to_string(m));
    dims[i] = n == 1 ? m : n;
  }
  for (const View* v : {&a, &b}) {
    const Sizes own = strides(v->dims);
    for (size_t i = 0; i < rank; i++) sides[v == &b].push_back(size(*v, i) == 1 ? 0 : own[i + v->dims.size() - rank]);
  }
  check_rank(dims);
  const View y = op.output(0, dims);
  if (y.count() > 0) gpu(op).binary(kind, dims, a.f32(), sides[0], b.f32(), sides[1], y.f32());
}

/** values (N of equal shapes but for the axis), axis. */
void concat_op(Op& op) {
  const int n = op.inputs() - 1;
  std::vector<View> parts;
  for (int i = 0; i < n; i++) parts.push_back(op.input(i));
  Sizes dims = parts[0].dims;
  const size_t axis = axis_of(op.input(n), dims.size());
  dims[axis] = 0;
  for (const View& part : parts) {
    require(part.dims.size() == dims.size(), "ConcatOp : Ranks of all input tensors should match");
    for (size_t i = 0; i < dims.size(); i++)
      require(i == axis || part.dims[i] == dims[i], "ConcatOp : Dimension mismatch in all dimensions but the axis");
    dims[axis] += part.dims[axis];
  }
  const View y = op.output(0, dims);
  const int64_t outer = product(dims, 0, axis), row = product(dims, axis, dims.size());
  int64_t at = 0;
  for (const View& part : parts) {
    const int64_t own = part.count() / (outer ? outer : 1);
    if (part.count() > 0) gpu(op).copy({outer, own}, part.data, {own, 1}, y.f32() + at, {row, 1});
    at += own;
  }
}

/** x, begin, size (-1: to the end). */
void slice_op(Op& op) {
  const View x = op.input(0), begin = op.input(1), size = op.input(2);
  const size_t rank = x.dims.size();
  require(begin.count() == (int64_t)rank && size.count() == (int64_t)rank, "slice: expected one begin and one size for each dimension");
  const Sizes from = strides(x.dims);
  Sizes dims(rank);
  int64_t first = 0;
  for (size_t i = 0; i < rank; i++) {
    const int64_t at = begin.i32()[i], n = size.i32()[i] == -1 ? x.dims[i] - at : size.i32()[i];
    if (at < 0 || n < 0 || at + n > x.dims[i])
      fail("slice: " + std::to_string(n) + " from " + std::to_string(at) + " of " + std::to_string(x.dims[i]));
    dims[i] = n;
    first += at * from[i];
  }
  check_rank(dims);
  const View y = op.output(0, dims);
  if (y.count() > 0) gpu(op).copy(dims, x.f32() + first, from, y.data, strides(dims));
}

/** x, perm. */
void transpose_op(Op& op) {
  const View x = op.input(0), perm = op.input(1);
  const size_t rank = x.dims.size();
  require(perm.count() == (int64_t)rank, "transpose: expected one index for each dimension");
  const Sizes own = strides(x.dims);
  Sizes dims(rank), from(rank);
  uint64_t seen = 0;
  for (size_t i = 0; i < rank; i++) {
    const int32_t p = perm.i32()[i];
    require(p >= 0 && p < (int32_t)rank && !(seen >> p & 1), "transpose: expected a permutation");
    seen |= (uint64_t)1 << p;
    dims[i] = x.dims[(size_t)p];
    from[i] = own[(size_t)p];
  }
  check_rank(dims);
  const View y = op.output(0, dims);
  if (y.count() > 0) gpu(op).copy(dims, x.data, from, y.data, strides(dims));
}

/** params, indices (on the device, so not checked: one outside gives zeros), axis. */
void gather_op(Op& op) {
  const View x = op.input(0), ids = op.input(1);
  const size_t axis = axis_of(op.input(2), x.dims.size());
  Sizes dims(x.dims.begin(), x.dims.begin() + (int64_t)axis);
  dims.insert(dims.end(), ids.dims.begin(), ids.dims.end());
  dims.insert(dims.end(), x.dims.begin() + (int64_t)axis + 1, x.dims.end());
  const View y = op.output(0, dims);
  const int64_t outer = product(x.dims, 0, axis), inner = product(x.dims, axis + 1, x.dims.size());
  if (y.count() > 0) gpu(op).gather(x.data, ids.i32(), outer, x.dims[axis], ids.count(), inner, y.data);
}

void* check_batch_dims(TF_OpKernelConstruction* context) {
  TF_Status* status = TF_NewStatus();
  int32_t batch_dims = 0;
  TF_OpKernelConstruction_GetAttrInt32(context, "batch_dims", &batch_dims, status);
  if (TF_GetCode(status) == TF_OK && batch_dims != 0) TF_SetStatus(status, TF_UNIMPLEMENTED, "gather with batch dimensions on a GPU");
  if (TF_GetCode(status) != TF_OK) TF_OpKernelConstruction_Failure(context, status);
  TF_DeleteStatus(status);
  return nullptr;
}

/** Registers the GPU kernel of a stock op for floats; `host`: inputs that the shell reads; `create`: looks at its attributes. */
template <OpBody F>
void register_stock(const char* name, std::initializer_list<const char*> floats, std::initializer_list<const char*> host,
                    void* (*create)(TF_OpKernelConstruction*) = nullptr) {
  TF_Status* status = TF_NewStatus();
  TF_KernelBuilder* kernel = TF_NewKernelBuilder(
      name, "GPU", create, [](void*, TF_OpKernelContext* c) { run_on_gpu(F, c); }, nullptr);
  for (const char* attr : floats) TF_KernelBuilder_TypeConstraint(kernel, attr, TF_FLOAT, status);
  for (const char* input : host) TF_KernelBuilder_HostMemory(kernel, input);
  if (TF_GetCode(status) == TF_OK) TF_RegisterKernelBuilder((std::string("Sv") + name).c_str(), kernel, status);
  if (TF_GetCode(status) != TF_OK) fprintf(stderr, "sparsevila: cannot register %s on the GPU: %s\n", name, TF_Message(status));
  TF_DeleteStatus(status);
}

}  // namespace

void register_stock_ops() {
  register_stock<binary_op<kAdd>>("Add", {"T"}, {});
  register_stock<binary_op<kAdd>>("AddV2", {"T"}, {});
  register_stock<binary_op<kSub>>("Sub", {"T"}, {});
  register_stock<binary_op<kMul>>("Mul", {"T"}, {});
  register_stock<binary_op<kDiv>>("RealDiv", {"T"}, {});
  register_stock<concat_op>("ConcatV2", {"T"}, {"axis"});
  register_stock<slice_op>("Slice", {"T"}, {"begin", "size"});
  register_stock<transpose_op>("Transpose", {"T"}, {"perm"});
  register_stock<gather_op>("GatherV2", {"Tparams"}, {"axis"}, check_batch_dims);
}

}  // namespace sv
