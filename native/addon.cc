// The N-API door: what Node sees of the native code. Registers the ops once per process, and says what the
// processor can do. Knows nothing of tensors.

#include <node_api.h>

namespace {

struct Feature {
  const char* name;
  bool present;
};

napi_value CpuFeatures(napi_env env, napi_callback_info) {
#if defined(__x86_64__)
  const Feature features[] = {
      {"avx2", __builtin_cpu_supports("avx2") != 0},
      {"fma", __builtin_cpu_supports("fma") != 0},
      {"avx512f", __builtin_cpu_supports("avx512f") != 0},
      {"avx512bw", __builtin_cpu_supports("avx512bw") != 0},
      {"avx512dq", __builtin_cpu_supports("avx512dq") != 0},
      {"avx512vl", __builtin_cpu_supports("avx512vl") != 0},
      {"avx512vnni", __builtin_cpu_supports("avx512vnni") != 0},
      {"avx512bf16", __builtin_cpu_supports("avx512bf16") != 0},
  };
#elif defined(__aarch64__)
  const Feature features[] = {{"neon", true}};
#else
  const Feature features[] = {{"portable", true}};
#endif
  napi_value result = nullptr;
  if (napi_create_object(env, &result) != napi_ok) return nullptr;
  for (const Feature& feature : features) {
    napi_value present = nullptr;
    if (napi_get_boolean(env, feature.present, &present) != napi_ok) return nullptr;
    if (napi_set_named_property(env, result, feature.name, present) != napi_ok) return nullptr;
  }
  return result;
}

}  // namespace

// Called once per Node environment: the main thread and every worker. What is per process needs a guard.
NAPI_MODULE_INIT() {
  napi_value function = nullptr;
  if (napi_create_function(env, "cpuFeatures", NAPI_AUTO_LENGTH, CpuFeatures, nullptr, &function) == napi_ok) {
    napi_set_named_property(env, exports, "cpuFeatures", function);
  }
  return exports;
}
