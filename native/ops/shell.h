// What every op's TensorFlow shell shares: registration through the C API, typed views of inputs, outputs, and errors.
// An op is a function of Op&; whatever it throws becomes the op's status and then a JavaScript exception.
#pragma once
#include <stdint.h>
#include <stdio.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_tensor.h"

namespace sv {

/** A borrowed input or a fresh output. */
struct View {
  void* data = nullptr;
  std::vector<int64_t> dims;
  int64_t bytes = 0;
  int64_t dim(size_t i) const { return dims[i]; }
  int64_t count() const {
    int64_t n = 1;
    for (int64_t d : dims) n *= d;
    return n;
  }
  float* f32() const { return static_cast<float*>(data); }
  const int32_t* i32() const { return static_cast<const int32_t*>(data); }
  char* raw() const { return static_cast<char*>(data); }
  /** The data, or null when the tensor is empty: how an absent bias travels. */
  float* optional() const { return count() ? f32() : nullptr; }
};

[[noreturn]] inline void fail(const std::string& why) { throw std::invalid_argument(why); }
inline void require(bool ok, const char* why) { if (!ok) fail(why); }

class Op {
 public:
  explicit Op(TF_OpKernelContext* context) : context_(context), status_(TF_NewStatus()) {}
  ~Op() {
    for (TF_Tensor* t : held_) TF_DeleteTensor(t);
    TF_DeleteStatus(status_);
  }
  Op(const Op&) = delete;

  View input(int i, int rank = -1) {
    TF_Tensor* t = nullptr;
    TF_GetInput(context_, i, &t, status_);
    check();
    View v = hold(t);
    if (rank >= 0 && (int)v.dims.size() != rank)
      fail("input " + std::to_string(i) + ": expected rank " + std::to_string(rank) + ", received " + std::to_string(v.dims.size()));
    return v;
  }

  int inputs() const { return TF_NumInputs(context_); }

  View output(int i, TF_DataType type, std::vector<int64_t> dims) {
    int64_t bytes = (int64_t)TF_DataTypeSize(type);
    for (int64_t d : dims) {  // TensorFlow ends the process over such shapes
      if (d < 0 || (d > 0 && bytes > kMostBytes / d)) fail("expected sizes of 0 or more whose product fits into memory");
      bytes *= d;
    }
    TF_Tensor* t = TF_AllocateOutput(context_, i, type, dims.data(), (int)dims.size(), (size_t)bytes, status_);
    check();
    return hold(t);
  }
  /** A packed matrix: read whole again and again, so in huge pages where the system gives them (a tenth of the time). */
  View packed_output(int i, int64_t bytes) {
    View v = output(i, TF_UINT8, {bytes});
#if defined(__linux__)
    const uintptr_t page = 4096, begin = ((uintptr_t)v.data + page - 1) / page * page, end = ((uintptr_t)v.data + (uintptr_t)bytes) / page * page;
    if (bytes >= 4 << 20 && end > begin) madvise((void*)begin, end - begin, MADV_HUGEPAGE);  // advice: failing is no error
#endif
    return v;
  }
  View output(int i, std::vector<int64_t> dims) { return output(i, TF_FLOAT, std::move(dims)); }

  void report(TF_Code code, const char* what) {
    TF_SetStatus(status_, code, what);
    TF_OpKernelContext_Failure(context_, status_);
  }

 private:
  static constexpr int64_t kMostBytes = (int64_t)1 << 46;

  void check() {
    if (TF_GetCode(status_) != TF_OK) throw std::runtime_error(TF_Message(status_));
  }
  View hold(TF_Tensor* t) {
    held_.push_back(t);
    View v;
    v.data = TF_TensorData(t);
    v.bytes = (int64_t)TF_TensorByteSize(t);
    for (int i = 0; i < TF_NumDims(t); i++) v.dims.push_back(TF_Dim(t, i));
    return v;
  }

  TF_OpKernelContext* context_;
  TF_Status* status_;
  std::vector<TF_Tensor*> held_;
};

template <void (*F)(Op&)>
void compute(void*, TF_OpKernelContext* context) {
  Op op(context);
  try {
    F(op);
  } catch (const std::bad_alloc&) {
    op.report(TF_RESOURCE_EXHAUSTED, "out of memory; free sessions, use a smaller image, or a shorter contextLength");
  } catch (const std::invalid_argument& e) {
    op.report(TF_INVALID_ARGUMENT, e.what());
  } catch (const std::exception& e) {
    op.report(TF_INTERNAL, e.what());
  }
}

/** Registers op `name` and its CPU kernel. Specs as in "x: float". int32 inputs are read on the host on every device. */
template <void (*F)(Op&)>
void register_op(const char* name, std::initializer_list<const char*> inputs, std::initializer_list<const char*> outputs,
                 bool stateful = false, bool lists = false) {
  TF_Status* status = TF_NewStatus();
  TF_OpDefinitionBuilder* op = TF_NewOpDefinitionBuilder(name);
  TF_KernelBuilder* kernel = TF_NewKernelBuilder(name, "CPU", nullptr, &compute<F>, nullptr);
  for (const char* spec : inputs) {
    TF_OpDefinitionBuilderAddInput(op, spec);
    const std::string s(spec);
    if (s.find("int32") != std::string::npos) TF_KernelBuilder_HostMemory(kernel, s.substr(0, s.find(':')).c_str());
  }
  for (const char* spec : outputs) TF_OpDefinitionBuilderAddOutput(op, spec);
  if (lists) TF_OpDefinitionBuilderAddAttr(op, "N: int >= 1");
  if (stateful) TF_OpDefinitionBuilderSetIsStateful(op, true);
  TF_RegisterOpDefinition(op, status);
  if (TF_GetCode(status) == TF_OK) TF_RegisterKernelBuilder((std::string(name) + "Cpu").c_str(), kernel, status);
  if (TF_GetCode(status) != TF_OK) fprintf(stderr, "sparsevila: cannot register %s: %s\n", name, TF_Message(status));
  TF_DeleteStatus(status);
}

/** Memory that tensors are made from: a mapped file, or JavaScript memory. */
struct Source { const char* data; int64_t bytes; };
/** Throws when there is no such source. Implemented by the addon. */
Source source(int32_t id);

void register_all_ops();

}  // namespace sv
