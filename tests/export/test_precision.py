"""Typed graphs: which values are low, that statistics are not, and what the engines make of it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import small_graphs
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fastmrigan.errors import CheckFailed
from fastmrigan.export import precision as precision_module
from fastmrigan.export.gates import FLOORS
from fastmrigan.export.graph import check_graph
from fastmrigan.export.parity import check_parity, random_inputs
from fastmrigan.export.precision import typed_graph
from fastmrigan.runtime.backends.openvino import the_core

LOW = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
MULTIPLY = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def has(precision: str) -> bool:
    """Whether OpenVINO computes in it on this processor."""
    return precision.upper() in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Every value's element type, by ONNX's own inference."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {weight.name: weight.data_type for weight in graph.initializer}


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("name", small_graphs.EACH)
def test_statistics_are_fp32_and_products_are_low(name: str, precision: str) -> None:
    plain = small_graphs.graph(name)
    model = typed_graph(plain, precision)
    check_graph(model, small_graphs.generator(name)[1])
    types = types_of(model)
    inputs = [
        (node.op_type, types[each]) for node in model.graph.node for each in node.input if each
    ]
    low_norms = [kind for op, kind in inputs if op == "InstanceNormalization" and kind != 1]
    assert low_norms == []
    assert {kind for op, kind in inputs if op in ("ReduceMean", "Pow", "Erf")} <= {1, 7}
    assert {kind for op, kind in inputs if op in MULTIPLY} == {LOW[precision]}
    counted = [
        sum(node.op_type == "InstanceNormalization" for node in each.graph.node)
        for each in (plain, model)
    ]
    assert counted[0] == counted[1]
    assert [types[each.name] for each in (*model.graph.input, *model.graph.output)] == [1, 1]
    floats = sum(w.data_type == TensorProto.FLOAT for w in model.graph.initializer)
    scales = {
        n
        for node in model.graph.node
        if node.op_type in ("Resize", "Pow", "Sqrt")
        for n in node.input
    }
    norms = [node for node in model.graph.node if node.op_type == "InstanceNormalization"]
    assert floats <= len(scales) + 2 * len(norms)  # every other weight is stored in two bytes


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("name", small_graphs.EACH)
def test_engines_stay_above_the_floor(name: str, precision: str) -> None:
    if precision == "bf16" and not has("bf16"):
        pytest.skip("this processor has no bf16, and ONNX Runtime has no kernels for it")
    module, facts = small_graphs.generator(name)
    inputs = random_inputs(facts.task, facts.input_shape, (1, 3), seed=1)
    with torch.inference_mode():
        expected = [module(torch.from_numpy(x)).numpy() for x in inputs]
    model = typed_graph(small_graphs.graph(name), precision).SerializeToString()
    report = check_parity(model, inputs, expected, "PyTorch", precision=precision)
    engines = ["onnxruntime"] * (precision == "fp16") + ["openvino"] * has(precision)
    assert [(engine.backend, engine.precision) for engine in report.engines] == [
        (engine, precision) for engine in engines
    ]
    assert report.worst.psnr_db == min(engine.psnr_db for engine in report.engines)
    # Untrained, ct-mri-cyclegan-resnet's 41 instance norms amplify the rounding.
    floor = {"fp16": 40.0, "bf16": 25.0} if name == "ct-mri-cyclegan-resnet" else FLOORS
    assert report.worst.psnr_db >= floor[precision]


@pytest.mark.parametrize("precision", LOW)
def test_a_pixel_norm_of_zeros(precision: str) -> None:
    """Its epsilon, 1e-8, is 0 in fp16."""
    model = typed_graph(small_graphs.graph("tumour-progan"), precision)
    (got,) = ReferenceEvaluator(model).run(None, {"latent": np.zeros((2, 8), np.float32)})
    assert np.isfinite(got).all()
    types = types_of(model)
    roots = [node.input[0] for node in model.graph.node if node.op_type == "Sqrt"]
    made = {name: node for node in model.graph.node for name in node.output}
    assert {made[name].op_type for name in roots} == {"Add"}
    assert {types[each] for name in roots for each in made[name].input} == {TensorProto.FLOAT}


def normed_plane() -> onnx.ModelProto:
    """x through a convolution that keeps it, then instance norm."""
    weights = {
        "keep": np.eye(2, dtype=np.float32)[:, :, None, None],
        "scale": np.ones(2, np.float32),
        "shift": np.zeros(2, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "keep"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("InstanceNormalization", ["c", "scale", "shift"], ["y"], epsilon=1e-5),
    ]
    return graph_of(nodes, weights)


def graph_of(nodes, weights) -> onnx.ModelProto:
    shape = ["N", 2, "H", "W"]
    graph = helper.make_graph(
        nodes,
        "plane",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def plane() -> tuple[np.ndarray, np.ndarray]:
    """Mean 1000, standard deviation 1, and the norm of what fp16 keeps of it, in float64."""
    x = np.random.default_rng(0).normal(1000, 1, (1, 2, 64, 64)).astype(np.float32)
    kept = x.astype(np.float16).astype(np.float64)  # steps of 0.5
    centred = kept - kept.mean((2, 3), keepdims=True)
    return x, centred / np.sqrt(kept.var((2, 3), keepdims=True) + 1e-5)


def test_a_plane_of_mean_1000_and_deviation_1_survives_fp16() -> None:
    x, expected = plane()
    model = typed_graph(normed_plane(), "fp16")
    (exact,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(exact, expected, atol=1e-5)
    # An engine may keep more of x than fp16 does, half a step of 0.5, but not lose the plane.
    session = onnxruntime.InferenceSession(model.SerializeToString())
    engines = [session.run(None, {"x": x})[0]]
    if has("fp16"):
        hint = {"INFERENCE_PRECISION_HINT": "f16"}
        core = the_core()
        compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", hint)
        engines.append(np.array(compiled(x)[0]))
    for got in engines:
        np.testing.assert_allclose(got, expected, atol=0.3)
        assert got.std() == pytest.approx(1, abs=0.01)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_it_does_not_survive_statistics_in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would pass on any graph."""
    x, _ = plane()
    monkeypatch.setattr(precision_module, "IN_FP32", frozenset())
    (lost,) = ReferenceEvaluator(typed_graph(normed_plane(), "fp16")).run(None, {"x": x})
    assert not np.abs(lost).max() > 0.1


def test_the_plain_graph_is_not_touched() -> None:
    plain = normed_plane()
    before = plain.SerializeToString(deterministic=True)
    typed_graph(plain, "fp16")
    assert plain.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("value", [70000.0, -1e6, np.inf, np.nan])
def test_a_weight_beyond_fp16_is_refused(value: float) -> None:
    model = normed_plane()
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(np.full((2, 2, 1, 1), value, np.float32), "keep"))
    with pytest.raises(CheckFailed, match=r"weight keep holds values beyond fp16's range.*bf16"):
        typed_graph(model, "fp16")


def test_a_weight_beyond_fp16_fits_bf16() -> None:
    model = normed_plane()
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(np.full((2, 2, 1, 1), 70000, np.float32), "keep"))
    check = typed_graph(model, "bf16")
    assert {w.name: w.data_type for w in check.graph.initializer}["keep.as16"] == 16


@pytest.mark.parametrize("precision", LOW)
def test_operators_whose_inputs_differ_in_type(precision: str) -> None:
    """Where takes booleans beside numbers, Less makes them, Shape and Gather make integers, and a
    weight may be read by both sides."""
    weights = {"half": np.float32([0.5]), "axis": np.array([1]), "flat": np.array([0, 2, -1, 1])}
    nodes = [
        helper.make_node("Mul", ["x", "half"], ["small"]),
        helper.make_node("Less", ["small", "half"], ["below"]),
        helper.make_node("Where", ["below", "small", "half"], ["cut"]),
        helper.make_node("Sqrt", ["half"], ["root"]),
        helper.make_node("Add", ["cut", "root"], ["sum"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Reshape", ["sum", "flat"], ["column"]),
        helper.make_node("Reshape", ["column", "shape"], ["y"]),
    ]
    model = typed_graph(graph_of(nodes, weights), precision)
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(0).normal(0, 2, (1, 2, 4, 4)).astype(np.float32)
    (got,) = ReferenceEvaluator(model).run(None, {"x": x})
    step = {"fp16": 2**-10, "bf16": 2**-7}[precision]
    np.testing.assert_allclose(got, np.minimum(x / 2, 0.5) + np.sqrt(0.5), atol=4 * step)
