// macOS: keeps the module that contains this file mapped for the life of the process, which the linker's `nodelete` does elsewhere.
#include <dlfcn.h>

namespace {

__attribute__((constructor)) void stay_loaded() {
  Dl_info info;
  if (dladdr((const void*)&stay_loaded, &info) != 0) dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

}  // namespace
