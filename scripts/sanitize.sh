#!/usr/bin/env bash
# Kernels and ops under AddressSanitizer and UndefinedBehaviorSanitizer: compiles sparsevila.node with them into a cache of its
# own, and runs the specs of ops in it (other specs: name them). `npm run sanitize` calls it. Needs gcc's libasan and libubsan.
# TensorFlow and Node are not instrumented, so leak detection is off: specs count tensors themselves.
# HALT=0 continues after the first finding of UBSan.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

specs=("$@")
[ ${#specs[@]} -gt 0 ] || specs=(dist/spec/ops/{cases,errors,files,kv_cache,nan,weights}.spec.js dist/spec/native/int4_formats.spec.js)

# The results of set-up: the cache, TensorFlow, the engine, and uninstrumented modules.
read -r cache library include native < <(node -e '
  const { findInstallation } = require("./dist/src/runtime/setup");
  const { cacheFolder } = require("./dist/src/runtime/paths");
  const found = findInstallation();
  if (found === undefined) throw new Error("Run `npm run build` first.");
  console.log(cacheFolder(), found.libtensorflow.lib, found.libtensorflow.include, found.native.folder);')
compiler=${CXX:-g++}
sanitizers="-fsanitize=address,undefined,float-cast-overflow"
# gcc warns of its own headers when it instruments them.
flags="-O1 -g -fno-omit-frame-pointer -DNDEBUG -Wno-maybe-uninitialized $sanitizers"

export SPARSEVILA_CACHE="$cache/sanitize" SPARSEVILA_LIBTENSORFLOW="${library%/lib}" SPARSEVILA_DEVICE=cpu
mkdir -p "$SPARSEVILA_CACHE"
for engine in "$cache"/engine-*; do ln -sfn "$engine" "$SPARSEVILA_CACHE/$(basename "$engine")"; done
build="$SPARSEVILA_CACHE/build" # of the checkout that ran last
grep -qsxF "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD/native" "$build/CMakeCache.txt" || rm -rf "$build"
cmake -S native -B "$build" -DCMAKE_BUILD_TYPE=Sanitize -DCMAKE_CXX_COMPILER="$compiler" \
  -DCMAKE_CXX_FLAGS_SANITIZE="$flags" -DCMAKE_MODULE_LINKER_FLAGS="$sanitizers" \
  -DCMAKE_PROJECT_INCLUDE="$PWD/scripts/sanitize.cmake" \
  -DTENSORFLOW_LIB="$library" -DTENSORFLOW_INCLUDE="$include" \
  -DNODE_API_INCLUDE="$PWD/node_modules/node-api-headers/include" > /dev/null
cmake --build "$build" --target sparsevila --parallel "$(nproc)"

modules="$SPARSEVILA_CACHE/native-$(node -p '
  const { findLibtensorflow } = require("./dist/src/runtime/libtensorflow");
  require("./dist/src/runtime/native").nativeKey(findLibtensorflow())')-00000000" # in the place of a compiler's hash
rm -rf "$SPARSEVILA_CACHE"/native-*
mkdir -p "$modules"
cp "$native"/{preload,tfjs_binding}.node "$build/sparsevila.node" "$modules"

export ASAN_OPTIONS=detect_leaks=0:detect_odr_violation=0:allocator_may_return_null=1
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=${HALT:-1}"
export TF_CPP_MIN_LOG_LEVEL=3
preload="$("$compiler" -print-file-name=libasan.so):$("$compiler" -print-file-name=libubsan.so)"
LD_PRELOAD="$preload" exec node node_modules/jest/bin/jest.js --config jest.config.js "${specs[@]}"
