#!/usr/bin/env bash
# The first run on a real GPU: runs all steps in order, even after failures: scripts/gpu/run.sh [options], from a clone.
# Writes gpu-run.log and gpu-run.json. Exit code 1 if a step failed. If Node or the registries are missing, carry the
# folder that scripts/gpu/pack.sh makes, and pass it first, in one or more batches: scripts/gpu/run.sh --take FOLDER.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

readonly cache=${SPARSEVILA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sparsevila}
readonly root=/tmp/sparsevila-gpu # pack.sh built for this path: it is in the names of the builds
readonly all='smi kernels sanitizer doctor ops device demo decode'
limit=280 # seconds for a step
out=.
only=$all
device=gpu

usage() {
  cat >&2 <<TEXT
Usage: scripts/gpu/run.sh [--only 'STEP ...'] [--out FOLDER] [--limit SECONDS] [--standin]
       scripts/gpu/run.sh --take FOLDER     keeps the parts of a pack that FOLDER has; unpacks it when all are there
Steps: $all
--standin: on the GPU's stand-in, to try this script on a machine without a GPU; all but smi and decode, or what --only says after it
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
    cat "$@" | xz -dc | tar -x -C "$to"
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
    --standin) device=standin only='kernels doctor device ops demo' ;;
    *) usage ;;
  esac
  shift
done

mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
readonly log=$out/gpu-run.log json=$out/gpu-run.json
: >"$log"
steps=()
failed=0

# step NAME COMMAND...: runs the step if it was requested, and records how it ended; a last line of JSON is its result.
step() {
  local name=$1 began=$SECONDS code last
  shift
  case " $only " in *" $name "*) ;; *) return ;; esac
  printf '\n=== %s: %s\n' "$name" "$*" | tee -a "$log"
  timeout "$limit" "$@" 2>&1 | tee -a "$log"
  code=${PIPESTATUS[0]}
  last=$(tail -n 1 "$log")
  case $last in '{'*'}') ;; *) last=null ;; esac
  printf '=== %s ended with %s after %s s\n' "$name" "$code" "$((SECONDS - began))" | tee -a "$log"
  steps+=("{\"step\":\"$name\",\"code\":$code,\"seconds\":$((SECONDS - began)),\"result\":$last}")
  [ "$code" -eq 0 ] || failed=1
  write_json # after every step: what follows may take the machine with it
}

write_json() {
  local IFS=,
  printf '{"device":"%s","commit":"%s","steps":[%s]}\n' "$device" "$commit" "${steps[*]}" >"$json"
}

# The library NAME that was built last, of the pack or of the set-up here.
newest() {
  local found
  found=$(find "$root/kernels" "$cache" -name "$1" -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1)
  echo "${found#* }"
}

if ! commit=$(git rev-parse --short HEAD 2>/dev/null); then commit=unknown; fi
readonly commit

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
if [ "$device" = gpu ]; then
  step smi nvidia-smi
  step kernels python3 scripts/gpu/test_kernels.py "$(newest sparsevila_kernels.so)" --bench
  if command -v compute-sanitizer >/dev/null; then
    step sanitizer compute-sanitizer --error-exitcode 1 python3 scripts/gpu/test_kernels.py "$(newest sparsevila_kernels.so)"
  fi
else
  # The library that set-up makes does not show the stand-in's own functions, with which the test takes memory.
  step kernels bash -c '"${CXX:-g++}" -std=c++17 -O2 -ffp-contract=off -pthread -DSV_STANDIN -Itesting/cuda -fPIC -shared \
    -x c++ native/cuda/*.cu testing/cuda/*.cc -o "$1" && python3 scripts/gpu/test_kernels.py "$1" --standin' - "$(mktemp -d)/standin.so"
fi

# --- on TensorFlow ------------------------------------------------------------------------------------------
if [ -z "$app" ]; then
  echo "log: $log, results: $json; no Node here, so only the kernels were tried"
  exit "$failed"
fi
cd "$app" || exit 1
export SPARSEVILA_DEVICE=$device

step doctor node dist/src/cli/main.js doctor
step device node dist/scripts/gpu/device_checks.js
step ops node node_modules/jest/bin/jest.js --config jest.config.js --runInBand dist/spec/ops
step demo node dist/scripts/demo.js
step decode node dist/scripts/bench.js model --shape qwen2-7b --weights awq --head awq --precision fast --context 8448 --visual 8192

echo "log: $log, results: $json"
exit "$failed"
