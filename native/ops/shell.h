// Shared by the TensorFlow shells of all ops: registration through the C API, typed views of inputs, outputs, and errors.
// An op is a function of Op&, written once for every device; whatever it throws becomes the op's status and then a JavaScript
// exception.
#pragma once
#include <stdint.h>
#include <string.h>

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "../kernels/device.h"
#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_tensor.h"

namespace sv {

/** A borrowed input or a fresh output. Its data is the device's memory; the host's for what is declared so. */
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
  /** The data; null if the tensor is empty, which encodes a missing bias. */
  float* optional() const { return count() ? f32() : nullptr; }
};

/** An error that TensorFlow returned, with its code. */
struct StatusError : std::runtime_error {
  StatusError(TF_Code c, const char* message) : std::runtime_error(message), code(c) {}
  const TF_Code code;
};

[[noreturn]] inline void fail(const std::string& why) { throw std::invalid_argument(why); }
inline void require(bool ok, const char* why) {
  if (!ok) fail(why);
}

class Op {
 public:
  Op(TF_OpKernelContext* context, Device& device) : context_(context), status_(TF_NewStatus()), device_(device) {}
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
  Device& device() { return device_; }

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
  View output(int i, std::vector<int64_t> dims) { return output(i, TF_FLOAT, std::move(dims)); }
  /** An output uint8 [bytes] in the host's memory, which TensorFlow gives to `release` together with `owner` when it is no longer used. */
  void own_output(int i, void* data, int64_t bytes, void (*release)(void* data, size_t bytes, void* owner), void* owner) {
    TF_Tensor* t = TF_NewTensor(TF_UINT8, &bytes, 1, data, (size_t)bytes, release, owner);
    held_.push_back(t);
    TF_SetOutput(context_, i, t, status_);
    check();
  }
  /** Where inputs and outputs lie. */
  std::vector<const void*> addresses() const {
    std::vector<const void*> all;
    for (const TF_Tensor* t : held_) all.push_back(TF_TensorData(t));
    return all;
  }

 private:
  static constexpr int64_t kMostBytes = (int64_t)1 << 46;

  void check() {
    if (TF_GetCode(status_) != TF_OK) throw StatusError(TF_GetCode(status_), TF_Message(status_));
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
  Device& device_;
  std::vector<TF_Tensor*> held_;
};

/** An input or output in the words of an op definition, "x: float". Of any type but int32 it lies in the device's memory. */
struct Port {
  const char* spec;
  bool host;
  Port(const char* text) : spec(text), host(strstr(text, "int32") != nullptr) {}
  std::string name() const { return std::string(spec, strcspn(spec, ":")); }
};
/** An int32 port for many values, which kernels read and no shell does. */
inline Port on_device(const char* spec) {
  Port port(spec);
  port.host = false;
  return port;
}
/** A port of any type that the host computes with on every device. */
inline Port on_host(const char* spec) {
  Port port(spec);
  port.host = true;
  return port;
}

using OpBody = void (*)(Op&);
using Compute = void (*)(void*, TF_OpKernelContext*);
void run_on_cpu(OpBody, TF_OpKernelContext*);
void run_on_gpu(OpBody, TF_OpKernelContext*);

struct OpDefinition {
  const char* name;
  std::vector<Port> inputs, outputs;
  bool stateful;
  std::vector<const char*> lists;  // names of the lengths of inputs that are lists of tensors
  Compute cpu, gpu;
};
/** Registers the op and its CPU kernel now, its GPU kernel when a device is loaded. */
void register_definition(OpDefinition);

template <OpBody F>
void register_op(const char* name, std::initializer_list<Port> inputs, std::initializer_list<Port> outputs, bool stateful = false,
                 std::initializer_list<const char*> lists = {}) {
  register_definition({name, inputs, outputs, stateful, lists, [](void*, TF_OpKernelContext* c) { run_on_cpu(F, c); },
                       [](void*, TF_OpKernelContext* c) { run_on_gpu(F, c); }});
}

void register_all_ops();

}  // namespace sv
