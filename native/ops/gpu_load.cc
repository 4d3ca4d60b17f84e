// Loads a device library, which has the device for TensorFlow and the kernels for ops. Once per process.
#include <dlfcn.h>

#include <mutex>
#include <stdexcept>
#include <string>

#include "gpu_ops.h"
#include "library_names.h"
#include "tensorflow/c/c_api_experimental.h"

namespace sv {
namespace {

std::mutex mutex;
std::string loaded_path;
void* library = nullptr;

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw std::runtime_error("cannot load the device library " + path + ": " + why);
}

const GpuKernels* table_of(void* handle, const std::string& path) {
  const auto get = (const GpuKernels* (*)())dlsym(handle, "sparsevila_gpu_kernels");
  if (!get) refuse(path, "it has no sparsevila_gpu_kernels");
  const GpuKernels* table = get();
  if (!table || table->bytes != (int64_t)sizeof(GpuKernels)) refuse(path, "it was built from other sources; run `npx sparsevila setup`");
  return table;
}

/** The function is in libtensorflow_cc, which this module does not link: tfjs-node's binding brings it, after us. */
void load_plugin(const std::string& path) {
  void* tensorflow = dlopen(SV_LIBTENSORFLOW_CC, RTLD_LAZY);
  if (!tensorflow) refuse(path, dlerror());
  const auto load = (decltype(&TF_LoadPluggableDeviceLibrary))dlsym(tensorflow, "TF_LoadPluggableDeviceLibrary");
  if (!load) refuse(path, "libtensorflow has no TF_LoadPluggableDeviceLibrary");
  TF_Status* status = TF_NewStatus();
  load(path.c_str(), status);  // what it returns lives as long as the process
  const std::string why = TF_GetCode(status) == TF_OK ? "" : TF_Message(status);
  TF_DeleteStatus(status);
  if (!why.empty()) refuse(path, why);
}

}  // namespace

void load_device(const char* path) {
  std::lock_guard<std::mutex> lock(mutex);
  if (loaded_path == path) return;
  if (library) refuse(path, "this process has loaded " + loaded_path);
  void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!handle) refuse(path, dlerror());
  const GpuKernels* table = table_of(handle, path);
  load_plugin(path);
  library = handle;
  loaded_path = path;
  register_gpu_ops(table);
}

void* device_function(const char* name) {
  std::lock_guard<std::mutex> lock(mutex);
  return library ? dlsym(library, name) : nullptr;
}

}  // namespace sv
