// A separate Node module that loads libtensorflow_framework before anything else does, silently if
// TF_CPP_MIN_LOG_LEVEL asks for silence: TensorFlow 2.21 logs while its static objects are made, and reads that
// variable only afterwards. Does not know tfjs.

#include <dlfcn.h>
#include <fcntl.h>
#include <node_api.h>
#include <unistd.h>

#include <cstdlib>
#include <mutex>
#include <string>

#include "library_names.h"

namespace {

// Found by this module's own rpath: dlopen takes that of the module it returns to, so its value is looked at, which keeps it
// out of tail position. When it fails, the module that needs the library fails too, and says why.
// The handle is never closed, so that TensorFlow stays loaded when the worker that loaded it ends.
bool Load() { return dlopen(SV_LIBTENSORFLOW_FRAMEWORK, RTLD_LAZY | RTLD_LOCAL) != nullptr; }

bool LoadSilently() {
  const int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
  const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  const bool muted = saved >= 0 && null >= 0 && dup2(null, STDERR_FILENO) >= 0;
  const bool loaded = Load();
  if (muted) dup2(saved, STDERR_FILENO);
  if (null >= 0) close(null);
  if (saved >= 0) close(saved);
  return loaded;
}

std::string Text(napi_env env, napi_value value) {
  size_t length = 0;
  napi_get_value_string_utf8(env, value, nullptr, 0, &length);
  std::string text(length, 0);
  napi_get_value_string_utf8(env, value, text.data(), length + 1, &length);
  return text;
}

// Only where the value differs, as it does in a worker: another thread may be reading the environment.
void Set(const std::string& name, const std::string& value) {
  const char* now = std::getenv(name.c_str());
  if (now == nullptr || value != now) setenv(name.c_str(), value.c_str(), 1);
}

// load([name, value, name, value, ...]): sets variables of the process and loads TensorFlow, which reads them; the first call
// of a process does, later ones do nothing. `process.env` of a worker thread is a copy that native code does not see.
// Returns whether the library is loaded.
napi_value LoadOnce(napi_env env, napi_callback_info info) {
  napi_value list;
  size_t count = 1;
  napi_get_cb_info(env, info, &count, &list, nullptr, nullptr);
  static std::once_flag once;
  static bool loaded = false;
  std::call_once(once, [env, list] {
    uint32_t length = 0;
    napi_get_array_length(env, list, &length);
    for (uint32_t i = 0; i + 1 < length; i += 2) {
      napi_value name, value;
      napi_get_element(env, list, i, &name);
      napi_get_element(env, list, i + 1, &value);
      Set(Text(env, name), Text(env, value));
    }
    const char* level = std::getenv("TF_CPP_MIN_LOG_LEVEL");
    loaded = level != nullptr && std::atoi(level) > 0 ? LoadSilently() : Load();
  });
  napi_value result;
  napi_get_boolean(env, loaded, &result);
  return result;
}

}  // namespace

NAPI_MODULE_INIT() {
  napi_value load;
  napi_create_function(env, "load", NAPI_AUTO_LENGTH, LoadOnce, nullptr, &load);
  napi_set_named_property(env, exports, "load", load);
  return exports;
}
