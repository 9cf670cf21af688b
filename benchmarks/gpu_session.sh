#!/usr/bin/env bash
# All that is worth doing on a machine with a GPU, in order of worth, within 9 minutes:
#
#   OUT=folder benchmarks/gpu_session.sh
#
# The contract suite on the device, compute-sanitizer over a short training, the speed of a step. Logs and results go to
# OUT; the table of what passed comes last. Needs NumPy, SciPy, CuPy, pytest and, for its part, compute-sanitizer.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-build-gpu}
mkdir -p "$OUT"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
names=() results=() seconds=()

part() {  # part NAME LIMIT COMMAND...
  local name=$1 limit=$2 start=$SECONDS result=ok
  shift 2
  printf '\n=== %s: %s\n' "$name" "$*"
  timeout "$limit" "$@" 2>&1 | tee "$OUT/$name.log" | tail -n 25 || result="FAILED ($?)"
  names+=("$name") results+=("$result") seconds+=($((SECONDS - start)))
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv || true
part contract 200 python -m pytest -m gpu tests/engines -q -x -p no:cacheprovider -o addopts=--import-mode=importlib
for tool in memcheck racecheck initcheck; do
  part "$tool" 40 compute-sanitizer --tool "$tool" --error-exitcode 1 \
    python benchmarks/gpu_step.py --quick --precisions tf32 fp32
done
part speed 200 python benchmarks/gpu_step.py --output "$OUT/gpu_step.json"

printf '\n%-12s %8s  %s\n' part seconds result
for i in "${!names[@]}"; do printf '%-12s %8s  %s\n' "${names[i]}" "${seconds[i]}" "${results[i]}"; done
