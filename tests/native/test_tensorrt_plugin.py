"""The TensorRT plugin as a library: built where CUDA and TensorRT's headers are, its own tests on
the host, then loaded by TensorRT's registry. None of it runs on a GPU."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastmrigan.export.plugin import DOMAIN, OPERATOR, VERSION, swap_in
from fastmrigan.runtime.tensorrt_plugin import LIBRARY

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
REGISTRY = ROOT / "tests" / "support" / "plugin_registry.py"
PACKAGES = ("tensorrt_lean", "tensorrt_rtx")
MAX_BYTES = 2_000_000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a build for one architecture."""
    headers = os.environ.get("TENSORRT_INCLUDE_DIR")
    if headers is None:
        pytest.skip(
            "no TensorRT headers: name the folder of NvInferRuntime.h with "
            "TENSORRT_INCLUDE_DIR (the include folder of github.com/NVIDIA/TensorRT)"
        )
    if shutil.which(os.environ.get("CUDACXX", "nvcc")) is None:
        pytest.skip("no nvcc: put it on the PATH or name it with CUDACXX")
    folder = tmp_path_factory.mktemp("plugin")
    cmake(
        *("-S", ROOT, "-B", folder, "-DFASTMRIGAN_TESTS=ON", "-DFASTMRIGAN_CUDA=ON"),
        *("-DFASTMRIGAN_TENSORRT_PLUGIN=ON", f"-DTENSORRT_INCLUDE_DIR={headers}"),
        "-DCMAKE_CUDA_ARCHITECTURES=90",
    )
    cmake("--build", folder, "--target", "fastmrigan_tensorrt_plugin", "tensorrt_plugin_tests")
    return folder


def cmake(*arguments: object) -> None:
    program = shutil.which("cmake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("no cmake")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def library(built: Path) -> Path:
    return built / "csrc" / "tensorrt_plugin" / LIBRARY


def test_the_plugin_on_the_host(built: Path) -> None:
    program = built / "tests" / "cpp" / "tensorrt_plugin_tests"
    done = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_what_the_library_is_made_of(library: Path) -> None:
    """Two functions, no library of TensorRT's or of CUDA's, no symbol that one would have to
    bring."""
    assert library.stat().st_size < MAX_BYTES
    told = read("readelf", "--wide", "--dynamic", library)
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", told))
    libc = {"libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0"}
    assert needed <= libc | {"libstdc++.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"}
    symbols = read("nm", "--dynamic", "--defined-only", "--extern-only", library)
    assert {line.split()[-1] for line in symbols.splitlines()} == {"getCreators", "setLoggerFinder"}
    undefined = read("nm", "--dynamic", "--undefined-only", "--demangle", library)
    assert "nvinfer" not in undefined
    assert not re.search(r"\bcuda?[A-Z]", undefined)


def read(program: str, *arguments: object) -> str:
    if shutil.which(program) is None:
        pytest.skip(f"no {program}: Debian's binutils has it")
    return subprocess.check_output([program, *map(str, arguments)], text=True)


EPSILON = ["epsilon", "float32", 1e-3]
GOOD = [[], [EPSILON, ["activation", "text", "leaky_relu"], ["slope", "float32", 0.2]]]
WRONG = {
    "field epsilon: expected at least 0, got -1": ["epsilon", "float32", -1.0],
    "field epsilon: expected one float32, got a field of type 2": ["epsilon", "float64", 1e-3],
    "field activation: expected none, relu or leaky_relu, got 'gelu'": [
        *("activation", "text", "gelu")
    ],
    "unknown field 'eps': expected epsilon, activation and slope": ["eps", "float32", 1e-3],
}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_registry_makes_it(package: str, library: Path) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} absent: pip install {package.replace('_', '-')}")
    lists = json.dumps([*GOOD, *([fields] for fields in WRONG.values())])
    done = subprocess.run(
        [sys.executable, REGISTRY, package, library, lists], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["loaded"]
    assert told["found"]
    assert told["fields"] == ["epsilon", "activation", "slope"]
    name = f"{DOMAIN}::{OPERATOR} {VERSION}"
    assert told["made"] == [name] * len(GOOD) + [None] * len(WRONG)
    for text in WRONG:
        assert f"{OPERATOR} 'norm1': {text}" in done.stdout + done.stderr


def swapped() -> onnx.ModelProto:
    """x [N, 2, 4, 4] through our operator, with a leaky ReLU."""
    value = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    nodes = [
        helper.make_node("InstanceNormalization", ["x", "scale", "shift"], ["n"]),
        helper.make_node("LeakyRelu", ["n"], ["y"], alpha=0.2),
    ]
    weights = [numpy_helper.from_array(np.ones(2, np.float32), n) for n in ("scale", "shift")]
    shape = ["N", 2, 4, 4]
    graph = helper.make_graph(
        nodes, "norm", [value("x", shape=shape)], [value("y", shape=shape)], weights
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert swap_in(model) == 1
    return model


PARSE = """
import sys
import tensorrt_rtx as trt
log = trt.Logger(trt.Logger.INFO)
builder = trt.Builder(log)
builder.get_plugin_registry().load_library(sys.argv[1])
network = builder.create_network()  # kept: the parser does not
parser = trt.OnnxParser(network, log)
parser.parse(open(sys.argv[2], "rb").read())
"""


def test_the_parser_makes_it_of_the_swapped_graph(library: Path, tmp_path: Path) -> None:
    """tensorrt-rtx's parser is the one at hand. It makes the plugin, fields and all; then it ends
    the process, since its networks have no plugin layer (hence no check of the exit status)."""
    if find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx absent: pip install tensorrt-rtx")
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(swapped().SerializeToString())
    done = subprocess.run(
        [sys.executable, "-c", PARSE, library, graph], capture_output=True, text=True
    )
    said = done.stdout + done.stderr
    assert f"plugin: {OPERATOR}, plugin_version: {VERSION}, plugin_namespace: {DOMAIN}" in said
    assert f"Successfully created plugin: {OPERATOR}" in said
    assert "not found in plugin node" not in said  # an attribute that the plugin asks for
