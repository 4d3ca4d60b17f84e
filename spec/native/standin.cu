// Checks of testing/cuda and cuda/mma.h against the definitions in CUDA's and PTX's manuals. Compiled by standin.spec.ts with
// g++ -x c++ -DSV_STANDIN; what does not ask for the stand-in itself also compiles with nvcc and holds on a GPU. Without an
// argument it runs every check and prints `ok <name>` for each; with one it does something that must end the process.

#include "standin_testing.h"

using namespace standin;

namespace {

void run(const Check& check, const char* how) {
  const int before = failures;
  check.run();
  CHECK(cudaGetLastError() == cudaSuccess);
  printf("%s %s%s\n", failures == before ? "ok" : "FAILED", check.name, how);
}

}  // namespace

int main(int argc, char** argv) {
#if defined(SV_STANDIN)
  if (argc > 1) return misbehave(argv[1]);
  for (int threads : {1, 3})
    for (int blocks : {0, 1, 2})
      for (int fibers : {0, 1}) {
        sparsevila_standin_schedule(threads, blocks, fibers);
        const std::string how = " " + std::to_string(threads) + std::to_string(blocks) + std::to_string(fibers);
        for (const Check& check : kernel_checks) run(check, how.c_str());
      }
#else
  for (const Check& check : kernel_checks) run(check, "");
#endif
  for (const Check& check : runtime_checks) run(check, "");
#if defined(SV_STANDIN)
  for (const Check& check : promise_checks) run(check, "");
#endif
  return failures == 0 ? 0 : 1;
}
