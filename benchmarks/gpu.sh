#!/usr/bin/env bash
# Everything to run when a GPU is at hand: `benchmarks/gpu.sh STAGE [OUT]`. Each stage ends within 8 minutes, leaves its
# files in OUT (default benchmarks/results) and prints a short table last.
#   1  correct on silicon: the `gpu` tests, and compute-sanitizer where the tool exists
#   2  the rasterizer against gsplat: milliseconds, ratios, ceilings
#   3  a training step at 128, 256 and 512 px
set -euo pipefail
cd "$(dirname "$0")/.."
stage=${1:?which stage: 1, 2 or 3}
out=${2:-benchmarks/results}
mkdir -p "$out"

case "$stage" in
1)
  python -m pytest -q -m gpu tests | tee "$out/gpu_tests.txt"
  if command -v compute-sanitizer >/dev/null; then
    # Without torch's cache every tensor is an allocation of its own, so that an overrun is seen.
    export PYTORCH_NO_CUDA_MEMORY_CACHING=1
    for tool in memcheck racecheck; do
      timeout 120 compute-sanitizer --tool "$tool" --error-exitcode 1 \
        python -m pytest -q -m gpu tests/rasterizer/test_cuda_gradients.py -k "normal" | tail -5 | tee "$out/sanitizer_$tool.txt"
    done
  else
    echo "compute-sanitizer is not on this machine: not run"
  fi
  ;;
2)
  # gsplat compiles at its first use; as many jobs as there are cores.
  export MAX_JOBS=${MAX_JOBS:-$(nproc)}
  python benchmarks/rasterizer_cuda.py --out "$out/rasterizer_cuda.json"
  ;;
3)
  python benchmarks/training_step.py --out "$out/training_step.json"
  ;;
*)
  echo "unknown stage $stage: expected 1, 2 or 3" >&2
  exit 2
  ;;
esac
