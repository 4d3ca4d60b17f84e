#!/usr/bin/env bash
# The kernels' first minutes on a machine with a GPU that has nvcc, Python and torch, and neither Node nor TensorFlow: builds them for
# that GPU alone, tests them, and measures: scripts/gpu/first.sh [options], from a clone. Steps are ordered by what they tell, all of
# them end within --budget seconds, and results are written after each: gpu-first.log and gpu-first.json, from which
# `node dist/scripts/gpu/report.js gpu-first.json` makes the table of docs/gpu.md. Exit code 1 if a step failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# shellcheck source=scripts/gpu/steps.sh
source scripts/gpu/steps.sh

readonly all='smi build kernels bench step wgmma counters memcheck racecheck'
out=${OUT:-.}
only=$all
device=gpu
budget=430 # seconds
library=''

usage() {
  cat >&2 <<TEXT
Usage: scripts/gpu/first.sh [--only 'STEP ...'] [--out FOLDER] [--budget SECONDS] [--library PATH] [--standin]
Steps: $all
--library: the kernels, built elsewhere, such as set-up's sparsevila_kernels.so; otherwise they are built here
--standin: on the GPU's stand-in, to try this script on a machine without a GPU: build, kernels, step
TEXT
  exit 2
}

while [ $# -gt 0 ]; do
  case $1 in
    --only) [ $# -gt 1 ] || usage; only=$2; shift ;;
    --out) [ $# -gt 1 ] || usage; out=$2; shift ;;
    --budget) [ $# -gt 1 ] || usage; budget=$2; shift ;;
    --library) [ $# -gt 1 ] || usage; library=$(readlink -f "$2"); shift ;;
    --standin) device=standin only='build kernels step' ;;
    *) usage ;;
  esac
  shift
done

mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
readonly log=$out/gpu-first.log json=$out/gpu-first.json
: >"$log"
if ! commit=$(git rev-parse --short HEAD 2>/dev/null); then commit=unknown; fi
readonly commit
export PYTHONUNBUFFERED=1
readonly python=${PYTHON:-python3}

find_nvcc() { command -v nvcc || find "${CUDA_HOME:-/usr/local/cuda}/bin" -name nvcc | grep . || echo 'expected nvcc in PATH or CUDA_HOME' >&2; }
# link OUTPUT OBJECT... [OPTION]: with CUDA's runtime.
link() { g++ -o "$@" "$(find "$(dirname "$(readlink -f "$(find_nvcc)")")/.." -name libcudart_static.a | head -n 1)" -ldl -lrt -lpthread; }
# build LIBRARY: for this machine's GPU only, each file by itself.
build() {
  local to=$1 folder architecture nvcc
  folder=$(dirname "$to")
  nvcc=$(find_nvcc) && [ -n "$nvcc" ] || return 1
  architecture=${ARCHITECTURE:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)}
  if [ "$architecture" = 90 ]; then architecture=90a; fi
  "$nvcc" --version | tail -n 2
  printf '%s\n' native/cuda/*.cu | xargs -P "$(nproc)" -I{} sh -c \
    "'$nvcc' -O3 -DNDEBUG -std=c++17 -Xcompiler=-fPIC -Inative -gencode=arch=compute_$architecture,code=sm_$architecture -c {} -o $folder/\$(basename {}).o" &&
    link "$to" -shared "$folder"/*.cu.o
}
# The stand-in with its own functions visible, with which the test takes memory.
build_standin() {
  "${CXX:-g++}" -std=c++17 -O2 -ffp-contract=off -pthread -DSV_STANDIN -Itesting/cuda -fPIC -shared -x c++ native/cuda/*.cu testing/cuda/*.cc -o "$1"
}
# Whether Hopper's two kinds of products give the same bits.
compare_wgmma() {
  local folder
  folder=$(mktemp -d)
  "$(find_nvcc)" -std=c++17 -gencode=arch=compute_90a,code=sm_90a -Inative -c scripts/gpu/wgmma_bits.cu -o "$folder/wgmma_bits.o" &&
    link "$folder/wgmma_bits" "$folder/wgmma_bits.o" && "$folder/wgmma_bits"
}
export -f find_nvcc link build build_standin compare_wgmma

if [ -z "$library" ]; then
  library=$(mktemp -d)/kernels.so
  readonly builds=1
fi

if [ "$device" = standin ]; then
  [ -z "${builds:-}" ] || step build 300 bash -c 'build_standin "$1"' - "$library"
  step kernels 300 "$python" scripts/gpu/test_kernels.py "$library" --standin
  step step 60 "$python" scripts/gpu/step.py "$library" --standin
else
  step smi 20 bash -c describe_gpu
  [ -z "${builds:-}" ] || step build 120 bash -c 'build "$1"' - "$library"
  if [ ! -e "$library" ]; then
    echo "first.sh: $library is not there, see $log" >&2
    exit 1
  fi
  step kernels 110 "$python" scripts/gpu/test_kernels.py "$library"
  step bench 90 "$python" scripts/gpu/bench.py "$library"
  step step 90 "$python" scripts/gpu/step.py "$library"
  step wgmma 40 bash -c compare_wgmma
  if command -v ncu >/dev/null; then step counters 60 "$python" scripts/gpu/counters.py "$library"; fi
  if command -v compute-sanitizer >/dev/null; then
    # Only our kernels, and an allocation for each tensor: within torch's pool a stray access hits a neighbor and is not seen.
    export PYTORCH_NO_CUDA_MEMORY_CACHING=1
    step memcheck 90 compute-sanitizer --kernel-regex kns=N2sv3gpu --error-exitcode 9 \
      "$python" scripts/gpu/test_kernels.py "$library" --bare --only 'attend sample kv_write gather delta_rule linear'
    step racecheck 90 compute-sanitizer --tool racecheck --kernel-regex kns=N2sv3gpu --error-exitcode 9 \
      "$python" scripts/gpu/test_kernels.py "$library" --only 'attend sample delta_rule rms_norm'
  fi
fi
echo "log: $log, results: $json"
exit "$failed"
