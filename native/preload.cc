// A Node module of its own that loads libtensorflow_framework before anything else does, silently when
// TF_CPP_MIN_LOG_LEVEL asks for silence: TensorFlow 2.21 logs while its static objects are made, and reads that
// variable only afterwards. Exports nothing; knows nothing of tfjs.

#include <dlfcn.h>
#include <fcntl.h>
#include <node_api.h>
#include <unistd.h>

#include <cstdlib>

namespace {

// Found by this module's own rpath. When it fails, the module that needs the library fails too, and says why.
void Load() { dlopen("libtensorflow_framework.so.2", RTLD_LAZY | RTLD_LOCAL); }

void LoadSilently() {
  const int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
  const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  const bool muted = saved >= 0 && null >= 0 && dup2(null, STDERR_FILENO) >= 0;
  Load();
  if (muted) dup2(saved, STDERR_FILENO);
  if (null >= 0) close(null);
  if (saved >= 0) close(saved);
}

}  // namespace

NAPI_MODULE_INIT() {
  (void)env;
  const char* level = std::getenv("TF_CPP_MIN_LOG_LEVEL");
  if (level != nullptr && std::atoi(level) > 0) {
    LoadSilently();
  } else {
    Load();
  }
  return exports;
}
