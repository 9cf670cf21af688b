#!/usr/bin/env bash
# All that is worth doing on a machine with a GPU, in order of worth, within 9 minutes:
#
#   OUT=folder benchmarks/gpu_session.sh [contract memcheck racecheck initcheck speed crosspre mnist ncu]
#
# Names of parts choose among them. SPEED, CROSSPRE, MNIST and NCU hold further options of their scripts, MINUTES is
# the limit of the whole; with few parts each gets what is left. Logs and results go to OUT (six files); the table of
# what passed comes last.
#
# Nothing is installed and nothing compiled but the kernels: gesda runs from the checkout, without its C++ core. Needs
# numpy, scipy, scikit-learn, safetensors, tqdm and cupy; pytest and hypothesis for the contract (pytest-xdist speeds
# it up); torch and jax for the peers; compute-sanitizer and ncu for their parts. Where packages are missing, put their
# wheels into .cache/wheels. MNIST is looked for in .cache/mnist beside GESDA_DATA's places. Git ignores .cache: carry it.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-build-gpu}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
export PYTHONPATH=$PWD:$PWD/benchmarks PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
if [[ -d .cache/mnist && -z ${GESDA_DATA:-} ]]; then export GESDA_DATA=$PWD/.cache; fi
if compgen -G '.cache/wheels/*.whl' >/dev/null; then
  wheels=$(mktemp -d)
  python3 -m pip install -q --no-index --no-deps --no-compile --target "$wheels" .cache/wheels/*.whl &&
    export PYTHONPATH=$PYTHONPATH:$wheels
fi
end=$((SECONDS + ${MINUTES:-9} * 60))
chosen=" $* " names=() results=() seconds=()

part() {  # part NAME LIMIT COMMAND...: {} in the command stands for the minutes that it has
  local name=$1 limit=$2 start=$SECONDS result=ok left=$((end - SECONDS))
  shift 2
  if [[ $chosen != '  ' ]]; then
    [[ $chosen == *" $name "* ]] || return 0
    limit=$left
  fi
  ((limit = limit < left ? limit : left))
  if ((limit < 10)); then
    result='left out: no time left'
  else
    local minutes
    minutes=$(awk "BEGIN { print ($limit - 8) / 60 }")
    printf '\n=== %s (%s s): %s\n' "$name" "$limit" "$*" | tee -a "$OUT/session.log"
    timeout -k 5 "$limit" "${@//\{\}/$minutes}" 2>&1 | tee -a "$OUT/session.log" | tail -n 40 || result="FAILED ($?)"
  fi
  names+=("$name") results+=("$result") seconds+=($((SECONDS - start)))
}

{ nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv || true
  git log -1 --format='commit %h, %ad' 2>/dev/null || true
} 2>&1 | tee "$OUT/session.log"

# Other libraries' warnings are no failures of ours.
many=()
if python3 -c 'import xdist' 2>/dev/null; then many=(-n 8); fi
part contract 130 python3 -m pytest -m gpu tests/engines -q --maxfail 10 ${many[@]+"${many[@]}"} \
  -p no:cacheprovider -o addopts=--import-mode=importlib -o filterwarnings=default
for tool in memcheck racecheck initcheck; do
  part "$tool" 35 compute-sanitizer --tool "$tool" --error-exitcode 99 \
    python3 benchmarks/gpu_step.py --quick --precisions tf32 --variants auto tiles persistent
done
# shellcheck disable=SC2086  # options, several of them
{
  part speed 165 python3 benchmarks/gpu_speed.py --minutes {} --output "$OUT/gpu_speed.json" ${SPEED:---prepare 20}
  part crosspre 50 python3 benchmarks/gpu_crosspre.py --minutes {} --output "$OUT/gpu_crosspre.json" ${CROSSPRE:-}
  part mnist 40 python3 benchmarks/gpu_mnist.py --output "$OUT/gpu_mnist.json" ${MNIST:-}
  part ncu 60 python3 benchmarks/gpu_ncu.py --limit 30 --output "$OUT/gpu_ncu.json" ${NCU:-}
}

{ printf '\n%-12s %8s  %s\n' part seconds result
  for i in "${!names[@]}"; do printf '%-12s %8s  %s\n' "${names[i]}" "${seconds[i]}" "${results[i]}"; done
} | tee -a "$OUT/session.log"
