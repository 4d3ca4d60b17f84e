// The N-API door: what Node sees of the native code. Registers the ops once per process, loads a device, maps checkpoint
// files, chooses kernels and threads, measures the machine. Tensors pass through TensorFlow's ops, never through here.
#include <fcntl.h>
#include <node_api.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <mutex>
#include <string>

#include "kernels/kernels.h"
#include "kernels/limits.h"
#include "kernels/pool.h"
#include "ops/gpu_ops.h"
#include "ops/shell.h"

namespace sv {
namespace {

struct Entry { Source source; bool mapped; napi_ref keep; };
std::mutex sources_mutex;
std::map<int32_t, Entry> sources;
int32_t next_source = 1;

int32_t add_source(Entry entry) {
  std::lock_guard<std::mutex> lock(sources_mutex);
  sources[next_source] = entry;
  return next_source++;
}

}  // namespace

Source source(int32_t id) {
  std::lock_guard<std::mutex> lock(sources_mutex);
  const auto it = sources.find(id);
  if (it == sources.end()) fail("no such source: " + std::to_string(id));
  return it->second.source;
}

namespace {

struct Call {
  napi_env env;
  napi_value args[2];
  size_t count = 2;
  Call(napi_env e, napi_callback_info info) : env(e) { napi_get_cb_info(e, info, &count, args, nullptr, nullptr); }
  std::string text(int i) const {
    size_t n = 0;
    napi_get_value_string_utf8(env, args[i], nullptr, 0, &n);
    std::string s(n, 0);
    napi_get_value_string_utf8(env, args[i], s.data(), n + 1, &n);
    return s;
  }
  int32_t integer(int i) const {
    int32_t v = 0;
    napi_get_value_int32(env, args[i], &v);
    return v;
  }
  napi_value number(double v) const {
    napi_value out;
    napi_create_double(env, v, &out);
    return out;
  }
  napi_value string(const char* v) const {
    napi_value out;
    napi_create_string_utf8(env, v, NAPI_AUTO_LENGTH, &out);
    return out;
  }
  napi_value error(const std::string& why) const {
    napi_throw_error(env, nullptr, why.c_str());
    return nullptr;
  }
};

/** loadDevice(path): loads a device library; before tfjs-node-gpu is required. */
napi_value LoadDevice(napi_env env, napi_callback_info info) {
  Call call(env, info);
  try {
    load_device(call.text(0).c_str());
  } catch (const std::exception& e) {
    return call.error(e.what());
  }
  return nullptr;
}

/** deviceReport(): what the loaded device library says of its devices, or why it has none; '' when none is loaded. */
napi_value DeviceReport(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto reason = (const char* (*)())device_function("sparsevila_gpu_reason");
  const auto devices = (int (*)(char*, int64_t))device_function("sparsevila_gpu_devices");
  if (!reason || !devices) return call.string("");
  if (const char* why = reason()) return call.string(why);
  std::string json((size_t)devices(nullptr, 0) + 1, 0);
  devices(json.data(), (int64_t)json.size());
  return call.string(json.c_str());
}

/** deviceCounters(): what TensorFlow has asked of the loaded device so far; undefined when none is loaded. */
napi_value DeviceCounters(napi_env env, napi_callback_info) {
  const auto read = (void (*)(int64_t*, int32_t))device_function("sparsevila_gpu_counters");
  if (!read) return nullptr;
  const char* names[] = {"toDevice", "toDeviceBytes", "toHost", "toHostBytes", "onDevice", "onDeviceBytes", "allocations", "bytes", "peakBytes"};
  int64_t counts[sizeof names / sizeof *names] = {};
  read(counts, sizeof names / sizeof *names);
  napi_value result;
  napi_create_object(env, &result);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    napi_value count;
    napi_create_double(env, (double)counts[i], &count);
    napi_set_named_property(env, result, names[i], count);
  }
  return result;
}

/** mapFile(path): maps a file for reading; returns its source id. */
napi_value MapFile(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const std::string path = call.text(0);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) != 0 || st.st_size <= 0) {
    const std::string why = fd < 0 ? strerror(errno) : "empty file";
    if (fd >= 0) close(fd);
    return call.error("cannot map " + path + ": " + why);
  }
  void* p = mmap(nullptr, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  if (p == MAP_FAILED) return call.error("cannot map " + path + ": " + strerror(errno));
  madvise(p, (size_t)st.st_size, MADV_SEQUENTIAL);
  return call.number(add_source({{static_cast<const char*>(p), st.st_size}, true, nullptr}));
}

/** mapMemory(typedArray): the array's bytes as a source; the array is kept alive until release. */
napi_value MapMemory(napi_env env, napi_callback_info info) {
  Call call(env, info);
  napi_value buffer;
  size_t length = 0, offset = 0, bytes = 0;
  void* data = nullptr;
  napi_typedarray_type type;
  if (napi_get_typedarray_info(env, call.args[0], &type, &length, &data, &buffer, &offset) != napi_ok)
    return call.error("expected a typed array");
  const size_t size = type == napi_float32_array || type == napi_int32_array || type == napi_uint32_array ? 4
                      : type == napi_uint16_array || type == napi_int16_array                            ? 2
                      : type == napi_float64_array || type == napi_bigint64_array                        ? 8
                                                                                                         : 1;
  bytes = length * size;
  napi_ref keep;
  napi_create_reference(env, call.args[0], 1, &keep);
  return call.number(add_source({{static_cast<const char*>(data), (int64_t)bytes}, false, keep}));
}

/** release(id): unmaps. Tensors made from the source are copies and stay. */
napi_value Release(napi_env env, napi_callback_info info) {
  Call call(env, info);
  std::lock_guard<std::mutex> lock(sources_mutex);
  const auto it = sources.find(call.integer(0));
  if (it == sources.end()) return nullptr;
  if (it->second.mapped) munmap(const_cast<char*>(it->second.source.data), (size_t)it->second.source.bytes);
  if (it->second.keep) napi_delete_reference(env, it->second.keep);
  sources.erase(it);
  return nullptr;
}

/** cpuFeatures(): { avx2: boolean, ... }. */
napi_value CpuFeatures(napi_env env, napi_callback_info) {
  const std::string have = std::string(" ") + cpu_features() + " ";
  napi_value result;
  napi_create_object(env, &result);
  for (const char* name : {"avx2", "avx512", "avx512vnni", "avx512bf16", "avx512amx"}) {
    napi_value present;
    napi_get_boolean(env, have.find(std::string(" ") + name + " ") != std::string::npos, &present);
    napi_set_named_property(env, result, name, present);
  }
  return result;
}

/** isa(level?): the instruction-set level in use; with a level ('' = the best), changes it first. */
napi_value Isa(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (call.count > 0) {
    const std::string level = call.text(0);
    if (const char* why = select_kernels(level.c_str()))
      return call.error("SPARSEVILA_ISA '" + level + "': " + why + " (this processor has: " + cpu_features() + ")");
  }
  return call.string(kernels().name);
}

/** threads(n?): threads in use; with n, changes them first. */
napi_value Threads(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (call.count > 0) set_thread_count(call.integer(0));
  return call.number(thread_count());
}

napi_value ScratchBytes(napi_env env, napi_callback_info info) { return Call(env, info).number((double)scratch_bytes()); }

/** measure('read' | 'f32' | 'bf16' | 'int8'): bytes or operations per second. */
napi_value Measure(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const std::string what = call.text(0);
  if (what == "read") return call.number(measure_read_bandwidth());
  if (what == "f32") return call.number(measure_f32_peak());
  if (what == "bf16") return call.number(measure_bf16_peak());
  if (what == "int8") return call.number(measure_int8_peak());
  return call.error("expected 'read', 'f32', 'bf16' or 'int8', received '" + what + "'");
}

}  // namespace
}  // namespace sv

// Called once per Node environment: the main thread and every worker. Registration guards itself.
NAPI_MODULE_INIT() {
  sv::register_all_ops();
  const napi_property_descriptor functions[] = {
      {"loadDevice", nullptr, sv::LoadDevice, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"deviceReport", nullptr, sv::DeviceReport, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"deviceCounters", nullptr, sv::DeviceCounters, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"mapFile", nullptr, sv::MapFile, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"mapMemory", nullptr, sv::MapMemory, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"release", nullptr, sv::Release, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"cpuFeatures", nullptr, sv::CpuFeatures, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"isa", nullptr, sv::Isa, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"threads", nullptr, sv::Threads, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"scratchBytes", nullptr, sv::ScratchBytes, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"measure", nullptr, sv::Measure, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
  };
  napi_define_properties(env, exports, sizeof functions / sizeof *functions, functions);
  return exports;
}
