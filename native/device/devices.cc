// Finds the usable GPUs of this machine, or why there are none; for the device, and as text for `doctor`.

#include "devices.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <stdexcept>

#include "../cuda/cuda.h"

namespace sv {
namespace {

constexpr int kOldest = 8;  // compute capability: what cuda/mma.h asks for

std::string why_none(cudaError_t error, int driver, int runtime) {
  const std::string needs = "CUDA " + version_text(runtime / 1000 * 1000);
  if (error == cudaErrorInsufficientDriver && driver == 0)
    return "No NVIDIA driver was found (libcuda.so.1). Install one that supports " + needs + " or newer; in a container, start it with the GPU (docker run --gpus all).";
  if (error == cudaErrorInsufficientDriver)
    return "The NVIDIA driver supports CUDA " + version_text(driver) + " but " + needs + " is needed. Install a newer driver.";
  if (error == cudaErrorNoDevice) return "The NVIDIA driver sees no GPU. Look at `nvidia-smi`, and whether CUDA_VISIBLE_DEVICES hides it.";
  return std::string("The NVIDIA driver does not start: ") + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + "). Look at `nvidia-smi`.";
}

/** The bytes of a GPU's memory that the setting allows, of `all`. Throws std::invalid_argument saying what is wrong with it. */
int64_t memory_limit(const char* setting, int64_t all) {
  if (!setting || !*setting) return all;
  char* end;
  double value = strtod(setting, &end);
  const char* units = "KMGT";
  const char* unit = *end ? strchr(units, *end) : nullptr;
  if (unit && end != setting) value = ldexp(value, 10 * int(unit - units + 1)), end++;
  if (end == setting || *end || !(value > 0) || !(value < 1e18))
    throw std::invalid_argument("Expected bytes such as 40G, or a share of the GPU's memory such as 0.5, for SPARSEVILA_GPU_MEMORY but received '" +
                                std::string(setting) + "'. Unset it to use what is free.");
  const int64_t bytes = int64_t(unit || value > 1 ? value : value * double(all));
  return bytes < all ? bytes : all;
}

Gpus look() {
  Gpus found = {};
  cudaDriverGetVersion(&found.driver);
  cudaRuntimeGetVersion(&found.runtime);
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  std::string old;
  for (int i = 0; error == cudaSuccess && i < count; i++) {
    cudaDeviceProp p;
    char bus[32] = "";
    error = cudaGetDeviceProperties(&p, i);
    if (error == cudaSuccess) error = cudaDeviceGetPCIBusId(bus, sizeof bus, i);
    if (error != cudaSuccess) break;
    if (p.major >= kOldest) found.usable.push_back({i, p.name, bus, p.major, p.minor, p.multiProcessorCount, int64_t(p.totalGlobalMem), 0});
    else old += (old.empty() ? "" : ", ") + std::string(p.name) + " has " + std::to_string(p.major) + "." + std::to_string(p.minor);
  }
  if (error != cudaSuccess) {
    cudaGetLastError();
    found.usable.clear();
    found.reason = why_none(error, found.driver, found.runtime);
  } else if (found.usable.empty()) {
    found.reason = old.empty() ? why_none(cudaErrorNoDevice, found.driver, found.runtime)
                               : "A GPU of compute capability 8.0 or newer is needed (Ampere, 2020), but " + old + ". Use the CPU.";
  }
  try {
    for (Gpu& gpu : found.usable) gpu.limit = memory_limit(getenv("SPARSEVILA_GPU_MEMORY"), gpu.memory);
  } catch (const std::invalid_argument& error) {
    found.usable.clear();
    found.reason = error.what();
  }
  return found;
}

/** As a JSON string. */
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += uint8_t(c) < 32 ? ' ' : c;
  }
  return out + "\"";
}

/** Only the device in use is asked for its free memory, since that starts a CUDA context on it; the thread's current device stays. */
std::string describe(const Gpu& gpu, bool is_used) {
  size_t free = 0, total = 0;
  int current = 0;
  const bool had_device = cudaGetDevice(&current) == cudaSuccess;
  const bool is_known = is_used && cudaSetDevice(gpu.index) == cudaSuccess && cudaMemGetInfo(&free, &total) == cudaSuccess;
  if (is_used && had_device) cudaSetDevice(current);
  cudaGetLastError();
  return "{\"name\":" + quoted(gpu.name) + ",\"memory\":" + std::to_string(gpu.memory) + ",\"free\":" + (is_known ? std::to_string(free) : "null") +
         ",\"capability\":\"" + std::to_string(gpu.major) + "." + std::to_string(gpu.minor) + "\",\"multiprocessors\":" +
         std::to_string(gpu.multiprocessors) + ",\"bus\":" + quoted(gpu.bus) + "}";
}

}  // namespace

const Gpus& gpus() {
  static const Gpus* const all = new Gpus(look());
  return *all;
}

std::string version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

}  // namespace sv

#define SV_EXPORT extern "C" __attribute__((visibility("default")))

/** Why there is no device, and what to try; null when there are some. */
SV_EXPORT const char* sparsevila_gpu_reason() {
  const std::string& reason = sv::gpus().reason;
  return reason.empty() ? nullptr : reason.c_str();
}

/** Writes {"driver": "13.0" | null, "runtime": "13.0", "devices": [{name, memory, free (bytes, or null of devices that are not in use), capability, multiprocessors,
 * bus}]} as JSON, the first device being the one in use; as much as fits and a zero; returns its length. */
SV_EXPORT int sparsevila_gpu_devices(char* json, int64_t size) {
  const sv::Gpus& all = sv::gpus();
  std::string text = "{\"driver\":" + (all.driver == 0 ? "null" : "\"" + sv::version_text(all.driver) + "\"") + ",\"runtime\":\"" +
                     sv::version_text(all.runtime) + "\",\"devices\":[";
  for (size_t i = 0; i < all.usable.size(); i++) text += (i == 0 ? "" : ",") + sv::describe(all.usable[i], i == 0);
  text += "]}";
  if (size > 0) {
    const size_t fits = text.size() < size_t(size) ? text.size() : size_t(size) - 1;
    memcpy(json, text.data(), fits);
    json[fits] = 0;
  }
  return int(text.size());
}
