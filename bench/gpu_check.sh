#!/usr/bin/env bash
# One command that proves the CUDA kernels on a machine with an NVIDIA GPU, in under 8 minutes: builds for its
# architecture (no isolation, no network), runs the tests marked `cuda`, compute-sanitizer and the GPU benchmarks.
#
#   bench/gpu_check.sh [--dry-run] [OUT]
#
# OUT is a new directory for the results (default bench/results/gpu): results.json, tests.xml and each step's output.
# --dry-run prints the steps. Exit code: 0 all passed, 1 a step failed, 2 no GPU or no CUDA torch.
set -uo pipefail
cd "$(dirname "$0")/.."

dry_run=false
if [[ ${1:-} == --dry-run ]]; then
  dry_run=true
  shift
fi
if (($# > 1)) || [[ ${1:-} == -* ]]; then
  echo "usage: bench/gpu_check.sh [--dry-run] [OUT]" >&2
  exit 2
fi
out=${1:-bench/results/gpu}
python=${PYTHON:-python}
failed=()

# step SECONDS NAME COMMAND...: runs the command with a time limit, its output in OUT/NAME.txt.
step() {
  local seconds=$1 name=$2
  shift 2
  printf '\n== %s (at most %s s)\n   %s\n' "$name" "$seconds" "${*@Q}"
  $dry_run && return
  if ! timeout "$seconds" "$@" 2>&1 | tee "$out/$name.txt"; then
    failed+=("$name")
  fi
}

if $dry_run; then
  architecture=GPU-ARCHITECTURE
else
  if ! architecture=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())' 2> /dev/null); then
    echo "gpu_check: torch sees no NVIDIA GPU here; this check needs one, and a torch built with CUDA." >&2
    nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2> /dev/null ||
      echo "gpu_check: nvidia-smi finds none either." >&2
    "$python" -c 'import torch; print("gpu_check: torch", torch.__version__, "built for CUDA", torch.version.cuda)' >&2
    exit 2
  fi
  mkdir -p "$out"
fi

step 120 build env LED_FAST_CUDA=1 "CMAKE_CUDA_ARCHITECTURES=$architecture" \
  "$python" -m pip install --no-index --no-deps --no-build-isolation --editable .
if ((${#failed[@]})); then
  echo "gpu_check: the build failed; see $out/build.txt" >&2
  exit 1
fi

step 100 tests "$python" -m pytest -m cuda --durations=5 "--junitxml=$out/tests.xml" python_tests

# Our kernels only: those of the references are not ours to check. C++ mangles namespace led to 3led.
if $dry_run || command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck; do
    step 60 "$tool" compute-sanitizer --tool "$tool" --kernel-name kns=3led --error-exitcode 1 \
      "$python" -m pytest -m cuda -k "test_values_and_gradients and torch.float32" python_tests/test_cuda_operators.py
  done
else
  echo "gpu_check: compute-sanitizer is not installed; memcheck and racecheck are left out" | tee "$out/memcheck.txt"
fi

step 130 benchmark "$python" bench/gpu_benchmark.py "$out/results.json"

$dry_run && exit 0
if ((${#failed[@]})); then
  echo "gpu_check: failed: ${failed[*]}; see $out" >&2
  exit 1
fi
echo "gpu_check: all steps passed; results in $out"
