#!/usr/bin/env bash
# The whole GPU gate: builds the wheel for the GPU at hand, runs the tests marked gpu and the CUDA
# benchmarks, and writes one JSON, in under 8 minutes and without a network.
#
#   benchmarks/gpu_gate.sh [FILE.json]     default: benchmarks/results/<device>-<date>.json
#
#   PYTHON=python3   the interpreter: 3.11 or later, with torch for CUDA, nanobind, scikit-build-core
#   WHEELS=DIR       wheels of what that interpreter lacks (nanobind-backend, pytest, …): installed
#                    into a temporary folder, with no look at a package index
#                    (those of onnx with onnxscript, onnxruntime-gpu, tensorrt and tensorrt-rtx add
#                    sides to the step inference)
#   CUDA_ARCH=90     the architecture to compile for; default: the GPU's own
#   COMMIT=HASH      recorded where the folder is no git checkout
#
# Exits 0 where every step passed, 6 where one failed (the JSON says which), 2 where something that
# must be there is missing.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

readonly LIMIT=470 # seconds for all steps together; a step's own limit is cut to what is left
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkdir "$work/site" "$work/dist"
export PYTHONPATH="$work/site" PYTHONDONTWRITEBYTECODE=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
export PATH="$PATH:/usr/local/cuda/bin"

gate() { "$PYTHON" benchmarks/gpu_gate.py "$@"; }

# step NAME SECONDS COMMAND…: runs it under the limit, whatever became of the steps before, and notes
# its exit status and time. A command that leaves $work/NAME.json has it taken into the gate's JSON.
step() {
  local name=$1 limit=$2 began=$SECONDS status=124 left=$((LIMIT - SECONDS))
  shift 2
  echo "== $name: $*"
  if ((left < limit)); then limit=$left; fi
  if ((limit > 0)); then
    timeout --kill-after=10 "$limit" "$@" 2>&1 | tee "$work/$name.log"
    status=${PIPESTATUS[0]}
  else
    echo "not started: no time left" | tee "$work/$name.log"
  fi
  printf '%s\t%s\t%s\t%s\t%s\n' "$name" "$status" $((SECONDS - began)) "$limit" "$*" \
    >>"$work/steps.tsv"
  echo "== $name: exit status $status after $((SECONDS - began)) s"
}

if [[ -n ${WHEELS:-} ]]; then
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --disable-pip-version-check \
    --target "$work/site" "$WHEELS"/*.whl || exit 2
fi
gate missing || exit 2
gate facts "$work/facts.json" || exit 2
arch=${CUDA_ARCH:-$(gate arch)}

build() {
  "$PYTHON" -m pip wheel -q --no-deps --no-build-isolation --disable-pip-version-check \
    -w "$work/dist" -C build-dir="$work/build" -C cmake.define.FASTMRIGAN_CUDA=ON \
    -C cmake.define.CMAKE_CUDA_ARCHITECTURES="$arch" . &&
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --disable-pip-version-check \
      --upgrade --target "$work/site" "$work"/dist/*.whl
}
export -f build
export PYTHON work arch

# The steps: name, seconds, command. What is built and right comes first, then the short ones. Their
# seconds together are LIMIT (a test adds them up), so that none is cut for want of time by those
# before it; the last takes what they leave.
step build 110 bash -c build
step tests 110 "$PYTHON" benchmarks/gpu_gate.py tests "$work/tests.json"
step ssim 30 "$PYTHON" benchmarks/ssim.py --device cuda --quick --json "$work/ssim.json"
step frechet 40 "$PYTHON" benchmarks/frechet.py --device cuda --rounds 5 --json "$work/frechet.json"
step inference 65 "$PYTHON" benchmarks/inference_cuda.py --seconds 40 --json "$work/inference.json"
step train_step 60 "$PYTHON" benchmarks/train_step.py --device cuda --seconds 35 --json "$work/train_step.json"
last=$((LIMIT - SECONDS > 55 ? LIMIT - SECONDS : 55))
step instance_norm "$last" "$PYTHON" benchmarks/instance_norm.py --device cuda --seconds $((last - 20)) --json "$work/instance_norm.json"

gate report "$work" "${1:-}"
