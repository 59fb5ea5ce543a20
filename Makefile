# make demo      from a bare machine to 5,000 synthetic tumour slices and a report
# make test      lint, types and the fast tests, against the installed wheel
# make test-all  the same, then the slow lane: sanitizers, crashes, hostile input, peers
# make fuzz      the image reader under atheris, for SECONDS=600
# make check     what pre-commit runs: ruff, mypy, clang-format
# make format    what ruff and clang-format can mend by themselves
# make results-RECIPE  trains it on real slices, measures it and prints its rows of RESULTS.md
# make reproduction  REPRODUCTION.md anew, from docs/reproduction, the recipes and RESULTS.md
#
# PYTHON=python3.12        another interpreter (3.11 or later)
# TORCH_INDEX=URL          the package index torch comes from (PyTorch's CPU index, say)
# FASTMRIGAN_CUDA=OFF      AUTO (default), ON or OFF: compile the CUDA kernels

PYTHON ?= python3
TORCH := torch==2.13.0
EXTRAS := train,export,int8,dicom,ort,dev
# For the slow lane alone: what no demo should bring along, rtx being 96 MB under a licence of
# NVIDIA's own and Ray 70 MB.
SLOW_EXTRAS := rtx,cluster
FASTMRIGAN_CUDA ?= AUTO

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Everything the environment is made from; when it changes, the environment is made anew.
ENVIRONMENT := $(shell cat Makefile pyproject.toml constraints.txt requirements-peers*.txt | sha256sum | cut -c1-16)
SOURCES := CMakeLists.txt pyproject.toml README.md LICENSE $(shell find csrc fastmrigan export -type f -not -path '*/__pycache__/*')
# A file's tests in one process, files side by side; each process computes with one thread.
PROCESSES := $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))
PYTEST = OMP_NUM_THREADS=1 FASTMRIGAN_EXPECT_WHEEL=1 $(BIN)/pytest -n $(PROCESSES) \
  --dist loadfile --no-loadscope-reorder --durations=10
CXX_SOURCES := $(shell find benchmarks csrc examples tests -name '*.c' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h')
# What must import for the environment to count as whole; NNCF is asked for by its version, since
# importing it sets up its usage statistics.
PROBE := import pip, torch, numpy, scipy, openvino, onnx, onnxruntime, pydantic, typer, rich, PIL, yaml, \
  pydicom, nibabel, pylibjpeg, pynetdicom, dicomanonymizer, matplotlib, tensorboard, skimage, hypothesis, \
  pytest, xdist, mypy, ruff, scikit_build_core, nanobind, pytorch_fid, pytorch_msssim, highdicom, sklearn, \
  safetensors; from importlib.metadata import version; version('nncf')

.PHONY: demo test test-fast test-slow test-all tools builder fuzz check format reproduction environment install sanitizers clean

demo: install
	$(BIN)/fastmrigan demo --out demo

test: check test-fast

test-all: test test-slow

test-fast: install
	$(PYTEST) -m "not slow and not gpu"

test-slow: install sanitizers tools builder
	$(PYTEST) -m "slow and not gpu"

# Debian's programs that slow tests compare with, where root and apt are at hand.
tools:
	@tests/debian_tools.sh

# TensorRT-RTX, which builds engines without a GPU: where there are wheels of it, or its tests skip.
builder: environment
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	  $(PIP) install -q --no-compile -c constraints.txt $(TORCH) \
	    $$($(BIN)/python tests/dependencies.py $(SLOW_EXTRAS)); \
	else echo "not installed (no wheels for $$(uname -sm)), its tests will skip: $(SLOW_EXTRAS)"; fi

# The reader under a fuzzer, SECONDS long; what it finds worth keeping goes to build/fuzz.
fuzz: install
	$(BIN)/python tests/fuzz/fuzz_reader.py --corpus build/fuzz -max_total_time=$(or $(SECONDS),600)

check: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)

format: environment
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

reproduction: install
	$(BIN)/python docs/reproduction/generate.py

# A recipe on real slices, hours on a CPU; REAL_DATA=FOLDER says where they lie.
results-%: install
	mkdir -p build/results
	$(BIN)/python benchmarks/results_of.py $* --work build/results \
	  $(if $(REAL_DATA),--data $(REAL_DATA)) --json build/results/$*.json

# A virtual environment that is whole, or a new one: half-made and broken ones are thrown away.
environment:
	@if [ "$$(cat $(VENV)/.ready 2>/dev/null)" = "$(ENVIRONMENT)" ] && \
	  $(BIN)/python -W ignore -c "$(PROBE)" >/dev/null 2>&1; then exit 0; fi; \
	set -e; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is not Python 3.11 or later: name one with PYTHON=" >&2; exit 2; }; \
	echo "making $(VENV): a minute or two"; \
	rm -rf $(VENV) dist; \
	$(PYTHON) -m venv $(VENV) || \
	  { echo "make: $(PYTHON) -m venv failed (Debian: apt-get install python3-venv)" >&2; exit 2; }; \
	$(PIP) install -q --no-compile -c constraints.txt pip cmake ninja scikit-build-core nanobind; \
	$(PIP) install -q --no-compile -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH); \
	$(PIP) install -q --no-compile -c constraints.txt $(TORCH) \
	  $$($(BIN)/python tests/dependencies.py $(EXTRAS)); \
	$(PIP) install -q --no-compile --no-deps -r requirements-peers.txt; \
	$(PIP) install -q --no-compile --no-deps --target $(VENV)/apart -r requirements-peers-apart.txt; \
	$(BIN)/python -W ignore -c "$(PROBE)"; \
	echo "$(ENVIRONMENT)" > $(VENV)/.ready

install: environment
	@$(MAKE) --no-print-directory dist/.installed-$(FASTMRIGAN_CUDA)

dist/.installed-$(FASTMRIGAN_CUDA): $(SOURCES)
	rm -rf dist && mkdir -p dist
	$(PIP) wheel -q --no-deps --no-build-isolation -w dist -C cmake.define.FASTMRIGAN_CUDA=$(FASTMRIGAN_CUDA) .
	$(PIP) install -q --no-deps --force-reinstall dist/*.whl
	touch $@

# The C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitizers: environment
	$(BIN)/cmake -S . -B build/sanitizers -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DFASTMRIGAN_TESTS=ON -DFASTMRIGAN_CUDA=OFF \
	  -DCMAKE_CXX_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
	$(BIN)/cmake --build build/sanitizers
	$(BIN)/ctest --test-dir build/sanitizers --output-on-failure --no-tests=error

clean:
	rm -rf $(VENV) build dist demo
