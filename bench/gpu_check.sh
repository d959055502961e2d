#!/usr/bin/env bash
# One command that proves the CUDA kernels on a machine with an NVIDIA GPU, in at most 8 minutes: builds for its
# architecture (no isolation, no network), runs the tests marked `cuda`, compute-sanitizer and the GPU benchmarks.
#
#   bench/gpu_check.sh [--dry-run] [OUT]
#
# OUT is the folder of the results (default bench/results/gpu): summary.json, results.json of the benchmarks, each step's
# output and its tests as JUnit XML. --dry-run prints the steps. PYTHON names the interpreter (default python).
# Exit code: 0 all steps passed; 1 one failed, was stopped, or was not reached; 2 cannot run here: all that is missing is
# listed, with how to get it; 3 all that ran passed, but something was left out.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python}
if ! command -v "$python" >/dev/null; then
  echo "gpu_check: no $python here: install Python >= 3.10, or set PYTHON to one" >&2
  exit 2
fi
exec "$python" bench/gpu_check.py "$@"
