# shellcheck shell=bash disable=SC2034,SC2154
# What first.sh and run.sh share: steps with limits of time, a log, and results as JSON. Sourced; the caller sets
#   log, json, commit, device   where everything printed goes, where results go, and what they are of
#   budget                      seconds for all steps; one that could not begin before its end is left out
#   only                        the names of the steps to run, separated by spaces
steps=()
failed=0

# step NAME LIMIT COMMAND...: runs the step if it was requested, for LIMIT seconds at most, and records how it ended; a last line of
# JSON is its result.
step() {
  local name=$1 limit=$2 began=$SECONDS code last
  shift 2
  case " $only " in *" $name "*) ;; *) return ;; esac
  [ $((budget - SECONDS)) -ge "$limit" ] || limit=$((budget - SECONDS))
  if [ "$limit" -lt 5 ]; then
    printf '\n=== %s: left out, no time remains\n' "$name" | tee -a "$log"
    steps+=("{\"step\":\"$name\",\"code\":null,\"seconds\":0,\"result\":null}")
    failed=1
    write_json
    return
  fi
  printf '\n=== %s (at most %s s): %s\n' "$name" "$limit" "$*" | tee -a "$log"
  timeout -k 5 "$limit" "$@" 2>&1 | tee -a "$log"
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
  printf '{"device":"%s","commit":"%s","date":"%s","steps":[%s]}\n' "$device" "$commit" "$(date -u +%F)" "${steps[*]}" >"$json"
}

# nvidia-smi's row about the first GPU, as JSON.
describe_gpu() {
  nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,temperature.gpu,power.draw --format=csv,noheader,nounits |
    head -n 1 | sed -E 's/"//g; s/^(.*), (.*), (.*), (.*), (.*), (.*), (.*)$/{"name":"\1","driver":"\2","smMHz":"\3","maxSmMHz":"\4","memoryMHz":"\5","celsius":"\6","watts":"\7"}/'
}
export -f describe_gpu
