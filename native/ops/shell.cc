// See shell.h. Runs op bodies on a device, and registers ops and their kernels.
#include "shell.h"

#include <stdio.h>

#include <new>

#include "../kernels/pool.h"
#include "gpu_device.h"
#include "gpu_ops.h"
#include "source.h"

namespace sv {
namespace {

const GpuKernels* gpu_table = nullptr;

std::vector<OpDefinition>& definitions() {
  static std::vector<OpDefinition> all;
  return all;
}

/** An exception of `body` becomes the status of the op. */
template <class F>
void report_errors(TF_OpKernelContext* context, F&& body) {
  const auto report = [&](TF_Code code, const char* what) {
    TF_Status* status = TF_NewStatus();
    TF_SetStatus(status, code, what);
    TF_OpKernelContext_Failure(context, status);
    TF_DeleteStatus(status);
  };
  try {
    body();
  } catch (const StatusError& e) {
    report(e.code, e.what());
  } catch (const std::bad_alloc&) {
    report(TF_RESOURCE_EXHAUSTED, "out of memory; free sessions, use a smaller image, or a shorter contextLength");
  } catch (const FileError& e) {
    report(e.changed ? TF_DATA_LOSS : TF_UNAVAILABLE, e.what());
  } catch (const std::invalid_argument& e) {
    report(TF_INVALID_ARGUMENT, e.what());
  } catch (const std::exception& e) {
    report(TF_INTERNAL, e.what());
  }
}

void register_kernel(const OpDefinition& op, const char* device, Compute compute, TF_Status* status) {
  TF_KernelBuilder* kernel = TF_NewKernelBuilder(op.name, device, nullptr, compute, nullptr);
  for (const std::vector<Port>* ports : {&op.inputs, &op.outputs})
    for (const Port& port : *ports)
      if (port.host) TF_KernelBuilder_HostMemory(kernel, port.name().c_str());
  TF_RegisterKernelBuilder((std::string(op.name) + device).c_str(), kernel, status);
}

}  // namespace

void run_on_cpu(OpBody body, TF_OpKernelContext* context) {
  const OnlyCaller only;
  report_errors(context, [&] {
    Op op(context, cpu_device());
    const auto check = [&] {
      if (have_ranges_failed()) check_ranges(op.addresses());
    };
    try {
      body(op);
    } catch (const std::invalid_argument&) {
      check();  // zeros in the place of what is gone look like wrong values
      throw;
    }
    check();
  });
}

void run_on_gpu(OpBody body, TF_OpKernelContext* context) {
  const OnlyCaller only;
  report_errors(context, [&] {
    GpuDevice device(*gpu_table, context);
    Op op(context, device);
    body(op);
    device.finish();
  });
}

void register_definition(OpDefinition op) {
  TF_Status* status = TF_NewStatus();
  TF_OpDefinitionBuilder* builder = TF_NewOpDefinitionBuilder(op.name);
  for (const Port& port : op.inputs) TF_OpDefinitionBuilderAddInput(builder, port.spec);
  for (const Port& port : op.outputs) TF_OpDefinitionBuilderAddOutput(builder, port.spec);
  for (const char* length : op.lists) TF_OpDefinitionBuilderAddAttr(builder, (std::string(length) + ": int >= 1").c_str());
  if (op.stateful) TF_OpDefinitionBuilderSetIsStateful(builder, true);
  TF_RegisterOpDefinition(builder, status);
  if (TF_GetCode(status) == TF_OK) register_kernel(op, "CPU", op.cpu, status);
  if (TF_GetCode(status) != TF_OK) fprintf(stderr, "sparsevila: cannot register %s: %s\n", op.name, TF_Message(status));
  TF_DeleteStatus(status);
  definitions().push_back(std::move(op));
}

void register_gpu_ops(const GpuKernels* table) {
  gpu_table = table;
  TF_Status* status = TF_NewStatus();
  for (const OpDefinition& op : definitions()) {
    register_kernel(op, "GPU", op.gpu, status);
    if (TF_GetCode(status) != TF_OK) fprintf(stderr, "sparsevila: cannot register %s on the GPU: %s\n", op.name, TF_Message(status));
  }
  TF_DeleteStatus(status);
  register_stock_ops();
}

}  // namespace sv
