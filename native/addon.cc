// The N-API functions of the native code. Registers the ops once per process, loads a device, opens checkpoint
// files, chooses kernels and threads, measures the machine. Tensors pass through TensorFlow's ops, never through here.
// Several environments (the main thread and workers) call at the same time. Kernels, threads and the device are the process's;
// a source belongs to the environment that opened it.
#include <node_api.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "kernels/kernels.h"
#include "kernels/machine_peak.h"
#include "kernels/pool.h"
#include "ops/gpu_ops.h"
#include "ops/shell.h"
#include "ops/source.h"

namespace sv {
namespace {

/** A source, and a reference of the environment that made it, which keeps its memory alive. */
struct Entry {
  std::unique_ptr<Source> source;
  napi_env env;
  napi_ref keep;
};
std::mutex sources_mutex;
std::map<int32_t, Entry> sources;
int32_t next_source = 1;

int32_t add_source(Entry entry) {
  std::lock_guard<std::mutex> lock(sources_mutex);
  while (sources.count(next_source)) next_source = next_source % INT32_MAX + 1;
  const int32_t id = next_source;
  next_source = next_source % INT32_MAX + 1;
  sources[id] = std::move(entry);
  return id;
}

/** Removes the sources for which `is_over` is true. */
template <class F>
void remove_sources(F&& is_over) {
  const OnlyCaller only;
  std::lock_guard<std::mutex> lock(sources_mutex);
  for (auto it = sources.begin(); it != sources.end();) {
    if (!is_over(it->first, it->second)) {
      ++it;
      continue;
    }
    if (it->second.keep) napi_delete_reference(it->second.env, it->second.keep);
    it = sources.erase(it);
  }
}

/** Called when an environment ends, also when its worker is terminated in the middle of a load. */
void remove_environment(napi_env env, void*, void*) {
  remove_sources([env](int32_t, const Entry& entry) { return entry.env == env; });
}

}  // namespace

const Source& source(int32_t id) {
  std::lock_guard<std::mutex> lock(sources_mutex);
  const auto it = sources.find(id);
  if (it == sources.end()) fail("no such source: " + std::to_string(id));
  return *it->second.source;
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
  /** `code`: a code of src/errors.ts, if there is a more specific one than ERR_OP. */
  napi_value error(const std::string& why, const char* code = nullptr) const {
    napi_throw_error(env, code, why.c_str());
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

/** deviceReport(): the loaded device library's report on its devices, or why it has none; '' if none is loaded. */
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

/** deviceCounters(): what TensorFlow has requested from the loaded device so far; undefined if none is loaded. */
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

/** openFile(path): a file as a source, whose id is returned. */
napi_value OpenFile(napi_env env, napi_callback_info info) {
  Call call(env, info);
  try {
    return call.number(add_source({std::make_unique<Source>(call.text(0)), env, nullptr}));
  } catch (const std::exception& e) {
    return call.error(e.what(), "ERR_FILE_UNREADABLE");
  }
}

/** createFile(path): a new file as a source, into which matrices can be packed; `reserve` gives it bytes. Returns its id. */
napi_value CreateFile(napi_env env, napi_callback_info info) {
  Call call(env, info);
  try {
    return call.number(add_source({Source::create(call.text(0)), env, nullptr}));
  } catch (const std::exception& e) {
    return call.error(e.what(), "ERR_OUTPUT_UNWRITABLE");
  }
}

/** reserve(id, bytes): takes disk space, so that writing cannot fail. */
napi_value Reserve(napi_env env, napi_callback_info info) {
  Call call(env, info);
  double bytes = 0;
  napi_get_value_double(env, call.args[1], &bytes);
  try {
    const OnlyCaller only;
    source(call.integer(0)).reserve((int64_t)bytes);
  } catch (const std::exception& e) {
    return call.error(e.what(), "ERR_OUTPUT_UNWRITABLE");
  }
  return nullptr;
}

/** openMemory(typedArray): the array's bytes as a source; the array is kept alive until release. */
napi_value OpenMemory(napi_env env, napi_callback_info info) {
  Call call(env, info);
  napi_value buffer;
  size_t length = 0, offset = 0, bytes = 0;
  void* data = nullptr;
  napi_typedarray_type type;
  if (napi_get_typedarray_info(env, call.args[0], &type, &length, &data, &buffer, &offset) != napi_ok)
    return call.error("expected a typed array");
  const size_t size = type == napi_float32_array || type == napi_int32_array || type == napi_uint32_array ? 4
                      : type == napi_uint16_array || type == napi_int16_array                             ? 2
                      : type == napi_float64_array || type == napi_bigint64_array                         ? 8
                                                                                                          : 1;
  bytes = length * size;
  napi_ref keep;
  napi_create_reference(env, call.args[0], 1, &keep);
  return call.number(add_source({std::make_unique<Source>(data, (int64_t)bytes), env, keep}));
}

/** release(id): forgets a source. Tensors made from it are copies and stay. */
napi_value Release(napi_env env, napi_callback_info info) {
  const int32_t id = Call(env, info).integer(0);
  remove_sources([id](int32_t other, const Entry&) { return other == id; });
  return nullptr;
}

/** cpuFeatures(): { avx2: boolean, ... }. */
napi_value CpuFeatures(napi_env env, napi_callback_info) {
  const std::string have = std::string(" ") + cpu_features() + " ";
  napi_value result;
  napi_create_object(env, &result);
  for (const char* name : {"avx2", "avx512", "avx512vnni", "avx512bf16", "avx512amx", "neon", "dotprod", "i8mm", "bf16"}) {
    napi_value present;
    napi_get_boolean(env, have.find(std::string(" ") + name + " ") != std::string::npos, &present);
    napi_set_named_property(env, result, name, present);
  }
  return result;
}

/** isa(level?): the instruction-set level in use; with a level ('' = the best), changes it first. */
napi_value Isa(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const OnlyCaller only;
  if (call.count > 0) {
    const std::string level = call.text(0);
    if (const char* why = select_kernels(level.c_str()))
      return call.error("SPARSEVILA_ISA '" + level + "': " + why + " (this processor has: " + cpu_features() + ")", "ERR_BAD_ISA");
  }
  return call.string(kernels().name);
}

/** threads(n?): threads in use; with n, changes them first. */
napi_value Threads(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const OnlyCaller only;
  if (call.count > 0) set_thread_count(call.integer(0));
  return call.number(thread_count());
}

napi_value ScratchBytes(napi_env env, napi_callback_info info) {
  const OnlyCaller only;
  return Call(env, info).number((double)scratch_bytes());
}

/** measure('read' | 'f32' | 'bf16' | 'int8'): bytes or operations per second. */
napi_value Measure(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const std::string what = call.text(0);
  const OnlyCaller only;
  if (what == "read") return call.number(measure_read_bandwidth());
  if (what == "f32") return call.number(measure_f32_peak());
  if (what == "bf16") return call.number(measure_bf16_peak());
  if (what == "int8") return call.number(measure_int8_peak());
  return call.error("expected 'read', 'f32', 'bf16' or 'int8', received '" + what + "'");
}

}  // namespace
}  // namespace sv

// Called once per Node environment: the main thread and every worker. Registration may be repeated.
NAPI_MODULE_INIT() {
  sv::register_all_ops();
  const napi_property_descriptor functions[] = {
      {"loadDevice", nullptr, sv::LoadDevice, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"deviceReport", nullptr, sv::DeviceReport, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"deviceCounters", nullptr, sv::DeviceCounters, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"openFile", nullptr, sv::OpenFile, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"createFile", nullptr, sv::CreateFile, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"reserve", nullptr, sv::Reserve, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"openMemory", nullptr, sv::OpenMemory, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"release", nullptr, sv::Release, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"cpuFeatures", nullptr, sv::CpuFeatures, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"isa", nullptr, sv::Isa, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"threads", nullptr, sv::Threads, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"scratchBytes", nullptr, sv::ScratchBytes, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"measure", nullptr, sv::Measure, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
  };
  napi_define_properties(env, exports, sizeof functions / sizeof *functions, functions);
  napi_set_instance_data(env, nullptr, sv::remove_environment, nullptr);
  return exports;
}
