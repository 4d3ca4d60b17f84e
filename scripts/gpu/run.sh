#!/usr/bin/env bash
# Everything on a real GPU, with TensorFlow and Node: runs all steps in order, even after failures: scripts/gpu/run.sh [options], from a
# clone. Writes gpu-run.log and gpu-run.json. Exit code 1 if a step failed. If Node or the registries are missing, carry the
# folder that scripts/gpu/pack.sh makes, and pass it first, in one or more batches: scripts/gpu/run.sh --take FOLDER.
# scripts/gpu/first.sh needs neither and measures the kernels: run it before.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# shellcheck source=scripts/gpu/steps.sh
source scripts/gpu/steps.sh

readonly cache=${SPARSEVILA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sparsevila}
readonly root=/tmp/sparsevila-gpu # pack.sh built for this path: it is in the names of the builds
readonly all='smi kernels doctor device ops demo decode memcheck'
limit=280  # seconds for a step
budget=560 # seconds for all of them
out=.
only=$all
device=gpu

usage() {
  cat >&2 <<TEXT
Usage: scripts/gpu/run.sh [--only 'STEP ...'] [--out FOLDER] [--limit SECONDS] [--budget SECONDS] [--standin]
       scripts/gpu/run.sh --take FOLDER     keeps the parts of a pack that FOLDER has; unpacks it when all are there
Steps: $all
--limit: for each step; --budget: for all, a step that could not begin before its end is left out
--standin: on the GPU's stand-in, to try this script on a machine without a GPU; all but smi, decode and memcheck, or what --only says
after it
TEXT
  exit 2
}

# Copies a batch of parts, and unpacks complete archives. kernels.tar.xz can be used alone.
take() {
  local from=$1 missing=()
  mkdir -p "$root/parts"
  cp "$from"/* "$root/parts/" || return 1
  cd "$root/parts" || return 1
  if [ -f kernels.tar.xz ] && [ ! -d "$root/kernels" ]; then unpack "$root" kernels.tar.xz || return 1; fi
  while read -r _ name; do [ -f "$name" ] || missing+=("$name"); done <SHA256SUMS
  if [ "${#missing[@]}" -gt 0 ]; then
    echo "have $(find . -type f | wc -l) files, still missing: ${missing[*]}"
    return 0
  fi
  sha256sum --quiet -c SHA256SUMS && unpack "$root" rest.tar.xz.* && echo "complete: $root"
}

unpack() {
  local to=$1
  shift
  if command -v xz >/dev/null; then
    cat "$@" | xz -dc -T0 | tar -x -C "$to"
  else
    cat "$@" | python3 -c 'import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz").extractall(sys.argv[1])' "$to"
  fi
}

while [ $# -gt 0 ]; do
  case $1 in
    --take) [ $# -eq 2 ] || usage; take "$2"; exit $? ;;
    --only) [ $# -gt 1 ] || usage; only=$2; shift ;;
    --out) [ $# -gt 1 ] || usage; out=$2; shift ;;
    --limit) [ $# -gt 1 ] || usage; limit=$2; shift ;;
    --budget) [ $# -gt 1 ] || usage; budget=$2; shift ;;
    --standin) device=standin budget=3600 only='kernels doctor device ops demo' ;;
    *) usage ;;
  esac
  shift
done

mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
readonly log=$out/gpu-run.log json=$out/gpu-run.json
: >"$log"
if ! commit=$(git rev-parse --short HEAD 2>/dev/null); then commit=unknown; fi
readonly commit

# The library NAME that was built last, of the pack or of the set-up here.
newest() {
  local found
  found=$(find "$root/kernels" "$cache" -name "$1" -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1)
  echo "${found#* }"
}

# --- where things come from: the pack, or set up here --------------------------------------------------------
if [ -x "$root/node/bin/node" ]; then
  # What is built is known by its sources: those of this clone.
  tar -c --exclude=./node_modules --exclude=./dist --exclude=./.git . | tar -x -C "$root/app" || exit 1
  export PATH="$root/node/bin:$PATH" SPARSEVILA_CACHE="$root/cache"
  app=$root/app
elif command -v node >/dev/null; then
  if [ "$device" = gpu ]; then job=(cli setup --gpu); else job=(test --listTests); fi # the stand-in comes with the tests
  node scripts/bootstrap.mjs "${job[@]}" >/dev/null || exit 1
  app=$PWD
elif [ -d "$root/kernels" ]; then
  app='' # the kernels by themselves
else
  echo 'run.sh: expected Node in PATH, or a pack (see --take), but found neither.' >&2
  exit 1
fi

# --- what needs neither Node nor TensorFlow -----------------------------------------------------------------
export PYTHONUNBUFFERED=1
readonly python=${PYTHON:-python3}
if [ "$device" = gpu ]; then
  kernels=$(newest sparsevila_kernels.so)
  step smi 20 bash -c describe_gpu
  step kernels "$limit" "$python" scripts/gpu/test_kernels.py "$kernels"
else
  # The library that set-up makes does not show the stand-in's own functions, with which the test takes memory.
  step kernels "$limit" bash -c '"${CXX:-g++}" -std=c++17 -O2 -ffp-contract=off -pthread -DSV_STANDIN -Itesting/cuda -fPIC -shared \
    -x c++ native/cuda/*.cu testing/cuda/*.cc -o "$1" && "$2" scripts/gpu/test_kernels.py "$1" --standin' - "$(mktemp -d)/standin.so" "$python"
fi

# --- on TensorFlow ------------------------------------------------------------------------------------------
if [ -z "$app" ]; then
  echo "log: $log, results: $json; no Node here, so only the kernels were tried"
  exit "$failed"
fi
cd "$app" || exit 1
export SPARSEVILA_DEVICE=$device

step doctor "$limit" node dist/src/cli/main.js doctor
step device "$limit" node dist/scripts/gpu/device_checks.js
# The one spec of ops that runs on the device of SPARSEVILA_DEVICE: every case, and what ops refuse.
step ops "$limit" node node_modules/jest/bin/jest.js --config jest.config.js --runInBand dist/spec/ops/device
step demo "$limit" node dist/scripts/demo.js
step decode "$limit" node dist/scripts/bench.js model --shape qwen2-7b --weights awq --head awq --precision fast --context 2048 --visual 1792
if [ "$device" = gpu ] && command -v compute-sanitizer >/dev/null; then
  # Every tensor an allocation of its own; the kernels' own memory checks are in first.sh.
  step memcheck "$limit" env SPARSEVILA_GPU_GUARD=1 compute-sanitizer --kernel-regex kns=N2sv3gpu --error-exitcode 9 \
    --target-processes all node dist/spec/ops/device_cases.js
fi

echo "log: $log, results: $json"
exit "$failed"
