"""The graph in which TensorRT's plugin makes instance norm: its structure, that it means what the
plain graph means (ONNX's reference evaluator, our operator in float64), and every refusal."""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import small_graphs
import tiny_model as tiny
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from fastmrigan.errors import MissingDependency, ModelRefused, UsageError
from fastmrigan.export import tensorrt
from fastmrigan.export.plugin import DOMAIN, OPERATOR, VERSION, graph_for, swap_in
from fastmrigan.export.precision import typed_graph
from fastmrigan.export.tensorrt import EngineOptions, build_engine, sidecar_path
from fastmrigan.runtime import tensorrt_plugin
from fastmrigan.runtime.model_file import read_model_file
from fastmrigan.runtime.tensorrt_plugin import LIBRARY, VARIABLE, plugin_library

CHANNELS = 3


class FastmriganInstanceNorm(OpRun):
    """What the plugin computes: statistics and activation in more than float32, rounded once."""

    op_domain = DOMAIN

    def _run(self, x, scale, bias, epsilon, activation, slope, plugin_version, plugin_namespace):
        assert (plugin_version, plugin_namespace) == (VERSION, DOMAIN)
        assert scale.dtype == bias.dtype == np.float32
        axes = tuple(range(2, x.ndim))
        t = x.astype(np.float64) - x.astype(np.float64).mean(axes, keepdims=True)
        z = t / np.sqrt(np.square(t).mean(axes, keepdims=True) + epsilon)
        z = np.moveaxis(np.moveaxis(z, 1, -1) * scale + bias, -1, 1)
        below = {"none": 1.0, "relu": 0.0, "leaky_relu": slope}[activation]
        return (np.where(z < 0, z * below, z).astype(x.dtype),)


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    evaluator = ReferenceEvaluator(model, new_ops=[FastmriganInstanceNorm])
    return [np.asarray(y, np.float32) for y in evaluator.run(None, {evaluator.input_names[0]: x})]


def inputs(model: onnx.ModelProto, batch: int = 2) -> np.ndarray:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    shape = [batch, *(d.dim_value for d in dims[1:])]
    return np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)


def chain(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("y",)) -> onnx.ModelProto:
    """A float32 graph from "x" [N, 3, 6, 5], of mean 3 by its bias, to `outputs`."""
    draw = np.random.default_rng(1).normal
    weights = {
        "w": draw(0, 1, (CHANNELS, CHANNELS, 1, 1)),
        "b": draw(3, 1, CHANNELS),
        "scale": draw(1, 0.5, CHANNELS),
        "shift": draw(0, 0.5, CHANNELS),
    }
    shape = ["N", CHANNELS, 6, 5]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[1, 1]), *nodes],
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
        [numpy_helper.from_array(value.astype(np.float32), n) for n, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def norm(given: str = "c", made: str = "n", **attributes: float) -> onnx.NodeProto:
    return helper.make_node(
        "InstanceNormalization", [given, "scale", "shift"], [made], name="norm", **attributes
    )


def node(kind: str, given: str, made: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, [given], [made], **attributes)


def operators(model: onnx.ModelProto) -> list[str]:
    return [each.op_type for each in model.graph.node]


def attributes(model: onnx.ModelProto) -> dict[str, object]:
    ours = next(each for each in model.graph.node if each.op_type == OPERATOR)
    assert (ours.domain, ours.name) == (DOMAIN, "norm")
    return {each.name: helper.get_attribute_value(each) for each in ours.attribute}


# Graph, then the operators left and (epsilon, activation, slope).
GRAPHS = {
    "alone": (chain(norm(made="y")), ["Conv", OPERATOR], (1e-5, b"none", 0.0)),
    "relu": (
        chain(norm(epsilon=0.25), node("Relu", "n")),
        ["Conv", OPERATOR],
        (0.25, b"relu", 0.0),
    ),
    "leaky relu": (
        chain(norm(), node("LeakyRelu", "n", alpha=0.25)),
        ["Conv", OPERATOR],
        (1e-5, b"leaky_relu", 0.25),
    ),
    "leaky relu of ONNX's own slope": (
        chain(norm(), node("LeakyRelu", "n")),
        ["Conv", OPERATOR],
        (1e-5, b"leaky_relu", 0.01),
    ),
    "another activation": (
        chain(norm(), node("Tanh", "n")),
        ["Conv", OPERATOR, "Tanh"],
        (1e-5, b"none", 0.0),
    ),
    "a norm that is read twice": (
        chain(norm(), node("Relu", "n", "r"), helper.make_node("Add", ["n", "r"], ["y"])),
        ["Conv", OPERATOR, "Relu", "Add"],
        (1e-5, b"none", 0.0),
    ),
    "a norm that is a result": (
        chain(norm(), node("Relu", "n"), outputs=("y", "n")),
        ["Conv", OPERATOR, "Relu"],
        (1e-5, b"none", 0.0),
    ),
    "an input that is read twice": (
        chain(norm(), node("Relu", "n", "r"), helper.make_node("Add", ["c", "r"], ["y"])),
        ["Conv", OPERATOR, "Add"],
        (1e-5, b"relu", 0.0),
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_swapped(name: str) -> None:
    plain, left, (epsilon, activation, slope) = GRAPHS[name]
    model = copy(plain)
    assert swap_in(model) == 1
    assert operators(model) == left
    assert attributes(model) == {
        "epsilon": pytest.approx(epsilon),
        "activation": activation,
        "slope": pytest.approx(slope),
        "plugin_version": VERSION.encode(),
        "plugin_namespace": DOMAIN.encode(),
    }
    assert {o.domain: o.version for o in model.opset_import} == {"": 18, DOMAIN: 1}
    for got, expected in zip(run(model, inputs(model)), run(plain, inputs(model)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


# Of a typed graph, the casts left (two of them at its input and output) and what our operator
# reads: a norm whose float32 output is a result keeps its input in float32 too.
TYPED = {
    "alone": (2, "c.as1"),
    "relu": (2, "c"),
    "leaky relu": (2, "c"),
    "another activation": (2, "c"),
    "a norm that is read twice": (2, "c"),
    "a norm that is a result": (4, "c.as1"),
    "an input that is read twice": (2, "c"),
}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", TYPED)
def test_casts_around_a_norm_go_with_it(name: str, precision: str) -> None:
    plain = typed_graph(GRAPHS[name][0], precision)
    model = copy(plain)
    assert swap_in(model) == 1
    ours = next(each for each in model.graph.node if each.op_type == OPERATOR)
    kinds = {each.name: each.data_type for each in model.graph.initializer}
    assert [kinds[each] for each in ours.input[1:]] == [TensorProto.FLOAT] * 2
    assert (operators(model).count("Cast"), ours.input[0]) == TYPED[name]
    # Rounded once where the plain graph rounds twice: two units in the last place of values to 8.
    step = {"fp16": 2**-10, "bf16": 2**-7}[precision]
    for got, expected in zip(run(model, inputs(model)), run(plain, inputs(model)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2 * step, atol=8 * step)


def test_a_cast_that_others_read_stays() -> None:
    plain = typed_graph(chain(norm(), node("GlobalAveragePool", "c", "p"), two("n", "p")), "fp16")
    model = copy(plain)
    assert swap_in(model) == 1
    casts = [each for each in model.graph.node if each.op_type == "Cast"]
    assert "c" in {each.input[0] for each in casts}  # the pool is float32 too
    ours = next(each for each in model.graph.node if each.op_type == OPERATOR)
    assert ours.input[0] == "c"
    (got,), (expected,) = run(model, inputs(model)), run(plain, inputs(model))
    np.testing.assert_allclose(got, expected, rtol=2**-9, atol=2**-7)


def test_casts_to_another_type_stay() -> None:
    """From float16 to bfloat16: our operator's input and output have one type."""
    to = {"c.low": TensorProto.FLOAT16, "c.float": TensorProto.FLOAT, "n.low": TensorProto.BFLOAT16}
    model = chain(
        node("Cast", "c", "c.low", to=to["c.low"]),
        node("Cast", "c.low", "c.float", to=to["c.float"]),
        norm("c.float"),
        node("Cast", "n", "n.low", to=to["n.low"]),
        node("Cast", "n.low", "y", to=TensorProto.FLOAT),
    )
    assert swap_in(model) == 1
    assert operators(model) == ["Conv", "Cast", "Cast", OPERATOR, "Cast", "Cast"]


def two(left: str, right: str) -> onnx.NodeProto:
    return helper.make_node("Add", [left, right], ["y"])


def test_a_norm_in_fp16_is_left_as_it_is() -> None:
    """No graph of ours has one: its scale would be float16, which the plugin does not take."""
    model = chain(norm(made="y"))
    low = TensorProto.FLOAT16
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = low
    for weight in model.graph.initializer:
        value = numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    before = model.SerializeToString(deterministic=True)
    assert swap_in(model) == 0
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "t1-t2-cyclegan-unet-v1" else pytest.mark.slow)
        for name in small_graphs.NAMES
    ],
)
def test_every_recipe_means_the_same(name: str, precision: str) -> None:
    plain = small_graphs.graph(name)
    if precision != "fp32":
        plain = typed_graph(plain, precision)
    model = copy(plain)
    norms = operators(plain).count("InstanceNormalization")
    assert swap_in(model) == norms
    assert operators(model).count(OPERATOR) == norms
    assert "InstanceNormalization" not in operators(model)
    if norms == 0:
        assert model.SerializeToString(deterministic=True) == plain.SerializeToString(
            deterministic=True
        )
        return
    assert len(model.graph.node) < len(plain.graph.node)
    (got,), (expected,) = run(model, inputs(plain, 1)), run(plain, inputs(plain, 1))
    error = np.sqrt(np.square(got.astype(np.float64) - expected).mean())
    assert error <= {"fp32": 1e-4, "fp16": 2e-2}[precision]


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / LIBRARY
    path.write_bytes(b"a library")
    return path


def test_without_a_plugin_the_model_file_itself_is_built(tmp_path: Path) -> None:
    with graph_for(tmp_path / "any.onnx", None) as (path, told):
        assert (path, told) == (tmp_path / "any.onnx", None)


def test_the_swapped_graph_is_gone_afterwards(tmp_path: Path, library: Path) -> None:
    model = tmp_path / "normed.onnx"
    model.write_bytes(GRAPHS["relu"][0].SerializeToString())
    before = model.read_bytes()
    with graph_for(model, library) as (path, told):
        assert operators(onnx.load(path)) == ["Conv", OPERATOR]
        assert told == {
            "library": LIBRARY,
            "sha256": hashlib.sha256(b"a library").hexdigest(),
            "instance_norms": 1,
        }
    assert not path.exists()
    assert model.read_bytes() == before


def test_a_graph_without_instance_norm(write_model, library: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"tiny\.onnx: has no instance norm .*leave --plugin out"),
        graph_for(write_model(), library),
    ):
        pass


def test_onnx_is_asked_for(write_model, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_model()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with (
        pytest.raises(MissingDependency, match=r"export --plugin needs the package onnx"),
        graph_for(model, library),
    ):
        pass


def test_where_the_library_is(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_plugin._core, "__file__", str(tmp_path / "_core.abi3.so"))
    monkeypatch.delenv(VARIABLE, raising=False)
    assert plugin_library("x") == library  # beside the native core
    other = tmp_path / "other.so"
    other.write_bytes(b"")
    monkeypatch.setenv(VARIABLE, str(other))
    assert plugin_library("x") == other
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.so"))
    with pytest.raises(UsageError, match=rf"^x: {VARIABLE} names .*none\.so, which is no file$"):
        plugin_library("x")
    monkeypatch.delenv(VARIABLE)
    library.unlink()
    with pytest.raises(UsageError, match=rf"^x needs {LIBRARY}, which is not installed: install "):
        plugin_library("x")


@pytest.mark.parametrize(
    ("engine", "named", "text"),
    [
        ("tensorrt", "none.so", f"export --plugin: {VARIABLE} names none.so, which is no file"),
        ("tensorrt-rtx", __file__, "--plugin: networks of tensorrt-rtx take none; take --engine "),
        (None, __file__, "--plugin is for engines"),
    ],
)
def test_plugin_on_the_command_line(
    write_model, fastmrigan, tmp_path, monkeypatch, engine, named, text
) -> None:
    monkeypatch.setenv(VARIABLE, named)
    arguments = () if engine is None else ("--engine", engine)
    out = tmp_path / "x.engine"
    done = fastmrigan("export", write_model(), "--out", out, "--plugin", *arguments)
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not out.exists()


def test_the_engine_is_built_of_the_swapped_graph_and_says_so(
    write_model, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the builder, which needs a GPU."""
    handed = []

    def in_child(model, graph, engine, options):
        handed.append(operators(onnx.load(graph)))
        engine.write_bytes(b"an engine")
        return {"version": "11.0", "compute": "9.0"}

    monkeypatch.setattr(tensorrt, "in_child", in_child)
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: True)
    model = write_model(tiny.metadata(task="translate"), graph=copy(GRAPHS["relu"][0]))
    for plugin in (library, None):
        out = tmp_path / "x.engine"
        built = build_engine(model, out, EngineOptions(plugin=plugin))
        assert json.loads(sidecar_path(out).read_text())["kind"] == "fastmrigan-engine"
        assert built.get("plugin") == (
            plugin
            and {
                "library": LIBRARY,
                "sha256": hashlib.sha256(b"a library").hexdigest(),
                "instance_norms": 1,
            }
        )
    assert handed == [["Conv", OPERATOR], ["Conv", "InstanceNormalization", "Relu"]]


@pytest.mark.slow  # the lane that has the package
@pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx absent: pip install tensorrt-rtx"
)
def test_a_library_that_cannot_be_loaded(write_model, library: Path, tmp_path: Path) -> None:
    """By tensorrt-rtx, whose registry is tensorrt's; it fails before a network is made."""
    model = read_model_file(write_model())
    options = EngineOptions("tensorrt-rtx", (1,), "8.9", plugin=library)
    with pytest.raises(ModelRefused, match=rf"the plugin .*{LIBRARY} cannot be loaded: .*short"):
        tensorrt.in_child(model, model.path, tmp_path / "x.engine", options)
