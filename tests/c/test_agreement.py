"""Python's runtime and the C library agree: the same bits, ranges and refusals."""

from __future__ import annotations

import ctypes
import itertools
import re
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_model
from c_library import (
    LIBRARIES,
    Call,
    Failed,
    Info,
    Library,
    built_with,
    need_backend,
    slices,
)
from c_library_models import SIDE, translating, with_metadata, write_models
from onnx import TensorProto, helper, numpy_helper

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.export.precision import typed_graph
from fastmrigan.imaging import grading
from fastmrigan.runtime import load
from fastmrigan.runtime.backends.base import Backend
from fastmrigan.runtime.backends.openvino import the_core
from fastmrigan.runtime.latents import normal_latents
from fastmrigan.runtime.model_file import read_model_file

pytestmark = pytest.mark.slow

ERROR_OPTIONS, ERROR_MODEL, ERROR_BACKEND_MISSING = 2, 4, 5
ERROR_INPUT, ERROR_DEADLINE, ERROR_CANCELLED = 8, 10, 11


def convolving(side: int, channels: int = 16, layers: int = 3) -> onnx.ModelProto:
    """Translates by a chain of convolutions and instance norms, tanh at the end."""
    random = np.random.default_rng(0)
    nodes, constants, last = [], [], "source"
    widths = [1, *[channels] * (layers - 1), 1]
    for i, (into, out) in enumerate(itertools.pairwise(widths)):
        weights = random.normal(0, (into * 9) ** -0.5, (out, into, 3, 3)).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"w{i}"))
        nodes.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        last = f"c{i}"
        if out > 1:
            scale = np.ones(out, np.float32)
            constants.append(numpy_helper.from_array(scale, f"s{i}"))
            constants.append(numpy_helper.from_array(0 * scale, f"b{i}"))
            names = [last, f"s{i}", f"b{i}"]
            nodes.append(helper.make_node("InstanceNormalization", names, [f"n{i}"]))
            last = f"n{i}"
    nodes.append(helper.make_node("Tanh", [last], ["slice"]))
    shape = ["batch", 1, side, side]
    graph = helper.make_graph(
        nodes,
        "convolving",
        [helper.make_tensor_value_info("source", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("slice", TensorProto.FLOAT, shape)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def bf16_figures(psnr_db: float) -> dict[str, object]:
    figures = {"version": "0", "device": "none", "max_abs_error": 0.0, "psnr_db": psnr_db}
    return {"openvino-bf16": figures}


def write(path: Path, task: str, side: int = 32, **changes: object) -> Path:
    if task == "sample":
        path.write_bytes(with_metadata(tiny_model.tiny_graph(), tiny_model.metadata() | changes))
    else:
        document = translating(slice_size=[side, side], **changes)
        path.write_bytes(with_metadata(convolving(side), document))
    return path


@pytest.fixture(params=LIBRARIES)
def backend(request, library: Library) -> str:
    need_backend(library.folder, request.param)
    return request.param


def has(precision: str) -> bool:
    return precision.upper() in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def need_precision(precision: str, backend: str = "openvino") -> None:
    if backend == "openvino" and precision != "fp32" and not has(precision):
        pytest.skip(f"the processor has no {precision}")


def translated(library: Library, path: Path, x: np.ndarray, **options: object) -> np.ndarray:
    """What the C library makes of x [N, H, W], by either way in: they agree to the bit."""
    with library.open(path, **options) as engine:
        plain = engine.run(x)
        watched = np.zeros_like(x)
        call = Call(ctypes.sizeof(Call), 60_000_000, None)
        engine.run_slices(slices(x), len(x), slices(watched), call)  # which watches the clock
    np.testing.assert_array_equal(watched, plain)
    return plain


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("threads", "batch", "n"), [(1, 1, 1), (2, 1, 3), (2, 4, 6), (1, 4, 1)])
def test_same_bits_when_translating(
    library: Library, backend, tmp_path, precision, threads, batch, n
):
    if backend == "onnxruntime" and precision == "bf16":
        pytest.skip("onnxruntime offers no bf16")
    need_precision(precision, backend)
    path = write(tmp_path / "m.onnx", "translate")
    x = np.random.default_rng(n).uniform(-1, 1, (n, 32, 32)).astype(np.float32)
    options = {"precision": precision, "threads": threads, "batch": batch}
    expected = load(path, backend, **options).translate(x)
    found = translated(library, path, x, backend=backend, **options)
    np.testing.assert_array_equal(found, expected)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize(("threads", "batch", "n"), [(1, 1, 2), (2, 4, 7)])
def test_same_bits_when_sampling(library: Library, backend, tmp_path, threads, batch, n):
    path = write(tmp_path / "m.onnx", "sample")
    options = {"precision": "fp32", "threads": threads, "batch": batch}
    expected = load(path, backend, **options).sample(n, seed=5)
    with library.open(path, backend, **options) as engine:
        latents = normal_latents(5, 0, n, tiny_model.LATENT)
        np.testing.assert_array_equal(engine.run(latents), expected)


def same_facts(info: Info, python: Backend) -> None:
    assert info.backend.decode() == python.name
    assert info.precision.decode() == python.precision
    assert info.why_precision.decode() == python.why_precision
    assert info.backend_version.decode() == python.version
    assert info.device.decode() == python.device
    assert info.threads == python.threads


@pytest.mark.parametrize(
    "parity",
    [
        {},
        bf16_figures(50.0),
        bf16_figures(44.9),
        bf16_figures(200.0),
        bf16_figures(50.0) | {"real_slices": bf16_figures(46.0)},
        bf16_figures(50.0) | {"real_slices": bf16_figures(44.0)},
    ],
)
def test_same_precision_and_facts_on_auto(library: Library, backend, tmp_path, parity):
    path = write(tmp_path / "m.onnx", "translate", parity=parity, source_contrast="T1w")
    with library.open(path, backend) as engine:
        info = engine.info()
        same_facts(info, load(path, backend, batch=1).backend)
        assert info.graph_sha256.decode() == read_model_file(path).metadata.graph_sha256
        assert (info.source_contrast, info.target_contrast) == (b"T1w", b"")


@pytest.mark.parametrize("place", ["random", "real_slices"])
@pytest.mark.parametrize("psnr_db", [None, "50", True, float("nan"), float("inf")])
def test_odd_figures_are_refused_by_both(library: Library, tmp_path, place, psnr_db):
    figures = {"openvino-bf16": bf16_figures(50.0)["openvino-bf16"] | {"psnr_db": psnr_db}}
    parity = figures if place == "random" else bf16_figures(50.0) | {"real_slices": figures}
    refused_by_both(library, write(tmp_path / "m.onnx", "translate", parity=parity))


@pytest.mark.parametrize("real", [None, 5, True, "openvino-bf16", ["openvino-bf16"]])
def test_real_slices_that_are_no_object(library: Library, tmp_path, real):
    parity = bf16_figures(50.0) | {"real_slices": real}
    refused_by_both(library, write(tmp_path / "m.onnx", "translate", parity=parity))


def refused_by_both(library: Library, path: Path) -> None:
    with pytest.raises(ModelRefused, match="its fastmrigan metadata is wrong at parity"):
        read_model_file(path)
    with pytest.raises(Failed, match="its fastmrigan metadata is wrong at parity: ") as failed:
        library.open(path)
    assert "\n" not in str(failed.value)


def quantised() -> onnx.ModelProto:
    """The chain of convolutions with the first one's input and weights in int8."""
    model = convolving(32)
    graph = model.graph
    weights = numpy_helper.to_array(graph.initializer[0])
    step = np.float32(np.abs(weights).max() / 127)
    graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.rint(weights / step).astype(np.int8), "w0")
    )
    constants = {
        "x step": np.float32(1 / 127),
        "w step": step,
        "zero": np.int8(0),
    }
    graph.initializer.extend(numpy_helper.from_array(np.array(v), k) for k, v in constants.items())
    nodes = [
        helper.make_node("QuantizeLinear", ["source", "x step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "x step", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["w0", "w step", "zero"], ["w"]),
        *graph.node,
    ]
    nodes[3].input[:] = ["x", "w"]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_typed_file_runs_as_python_runs_it_or_is_refused(
    library: Library, backend, tmp_path, precision
):
    """To the bit where Python runs it; refused by both where the backend cannot."""
    path = tmp_path / "typed.onnx"
    model = quantised() if precision == "int8" else typed_graph(convolving(32), precision)
    path.write_bytes(with_metadata(model, translating(slice_size=[32, 32], precision=precision)))
    x = np.random.default_rng(1).uniform(-1, 1, (3, 32, 32)).astype(np.float32)
    with pytest.raises(UsageError, match=f"is typed in {precision} and runs in nothing else"):
        load(path, backend, precision="fp32")
    with pytest.raises(Failed, match=f"is typed in {precision} and runs in nothing else") as failed:
        library.open(path, backend, precision="fp32")
    assert failed.value.code == ERROR_OPTIONS
    try:
        python = load(path, backend, batch=2, threads=1)
    except UsageError as refused:
        said = re.search(r"typed in \w+(, and this processor has no \w+)?", str(refused))
        assert said is not None
        with pytest.raises(Failed, match=said[0]) as failed:
            library.open(path, backend)
        assert failed.value.code == ERROR_OPTIONS
        return
    found = translated(library, path, x, backend=backend, batch=2, threads=1)
    np.testing.assert_array_equal(found, python.translate(x))
    with library.open(path, backend, batch=2, threads=1) as engine:
        same_facts(engine.info(), python.backend)


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_a_backend_that_was_not_built_in_says_so(library: Library, tmp_path, backend):
    if built_with(library.folder, backend):
        pytest.skip(f"{backend} is built in here")
    path = write(tmp_path / "m.onnx", "translate")
    with pytest.raises(Failed, match=f"{backend}: this libfastmrigan was built without") as failed:
        library.open(path, backend, library=None)
    assert failed.value.code == ERROR_BACKEND_MISSING


@pytest.mark.parametrize(
    ("precision", "typed"), [("bf16", "fp32"), ("bf16", "bf16"), ("fp16", "fp16"), ("int8", "int8")]
)
def test_a_precision_that_nothing_would_run_in_is_refused(
    library: Library, tmp_path, precision, typed
):
    need_precision(precision)
    path = tmp_path / "m.onnx"
    graph = helper.make_graph(
        [helper.make_node("Identity", ["source"], ["slice"])],
        "identity",
        [helper.make_tensor_value_info("source", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("slice", TensorProto.FLOAT, ["batch", 1, 8, 8])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(with_metadata(model, translating(precision=typed)))
    with pytest.raises(UsageError, match=r"runs every operator of .* in another one"):
        load(path, "openvino", precision=precision)
    with pytest.raises(Failed, match=r"runs every operator of .* in another one") as failed:
        library.open(path, precision=precision)
    assert failed.value.code == ERROR_OPTIONS


def test_python_refuses_what_the_library_refuses(library: Library, backend, tmp_path):
    write_models(tmp_path)
    (tmp_path / "unknown.onnx").unlink()  # refused by the engine, not by us
    x = np.zeros((1, 9, 8), np.float32)
    refused = []
    for path in sorted(tmp_path.glob("*.onnx")):
        if path.stem in ("good", "norule"):
            library.open(path, backend).close()
            load(path, backend, batch=1)
            continue
        with pytest.raises(Failed) as failed:
            library.open(path, backend)
        with pytest.raises((ModelRefused, UsageError)):  # wrong sizes only once it runs
            load(path, backend, batch=1).translate(x)
        refused.append(failed.value.code)
    assert refused == [ERROR_MODEL] * 14


# Layouts: how a caller's memory holds [N, H, W].
def padded(x: np.ndarray) -> np.ndarray:
    room = np.zeros((x.shape[0] + 1, x.shape[1] + 3, x.shape[2] + 5), x.dtype)
    room[: x.shape[0], 1:-2, 2:-3] = x
    return room[: x.shape[0], 1:-2, 2:-3]


LAYOUTS = {
    "dense": lambda x: np.ascontiguousarray(x),
    "padded": padded,
    "columns first": lambda x: np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1),
    "slices last": lambda x: np.ascontiguousarray(x.transpose(1, 2, 0)).transpose(2, 0, 1),
    "flipped": lambda x: np.ascontiguousarray(x[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
    "every third": lambda x: np.repeat(x, 3, axis=2)[:, :, ::3],
}
NEGATIVE = tiny_model.SIZE


@pytest.fixture
def negative(library: Library, tmp_path):
    """An engine that gives the negative, so that grading alone decides the result."""
    path = tmp_path / "negative.onnx"
    document = translating(slice_size=[NEGATIVE, NEGATIVE])
    path.write_bytes(with_metadata(tiny_model.tiny_graph("translate"), document))
    with library.open(path, batch=2, threads=1) as engine:
        yield engine


@pytest.mark.parametrize("dtype", ["f4", "i2", "u2"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_grading_of_any_layout(negative, layout, dtype):
    low, high = (0.0, 900.0) if dtype == "u2" else (-150.5, 812.25)
    random = np.random.default_rng(3)
    x = LAYOUTS[layout](random.normal(300, 400, (3, NEGATIVE, NEGATIVE)).clip(0).astype(dtype))
    before = x.copy()
    outs = {t: LAYOUTS[layout](np.zeros(x.shape, t)) for t in ("f4", "i2", "u2")}
    found = grading.Grading("window", low, high)
    expected = grading.ungrade(-grading.grade(x.astype(np.float32), found), found)
    for kind, y in outs.items():
        negative.run_slices(slices(x, (low, high)), len(x), slices(y, (low, high)))
        if kind == "f4":
            np.testing.assert_array_equal(y, expected)
        else:
            limits = np.iinfo(kind)
            np.testing.assert_array_equal(y, np.rint(expected).clip(limits.min, limits.max))
    np.testing.assert_array_equal(x, before)
    y = LAYOUTS[layout](np.zeros(x.shape, "f4"))
    negative.run_slices(slices(x, (low, high)), len(x), slices(y))  # out on the model's scale
    np.testing.assert_array_equal(y, -grading.grade(x.astype(np.float32), found))


def test_nothing_is_written_beside_the_slices(negative):
    x = np.zeros((2, NEGATIVE, NEGATIVE), np.int16)
    room = np.full((4, NEGATIVE + 2, NEGATIVE + 2), 77, np.int16)
    y = room[1:3, 1:-1, 1:-1]
    negative.run_slices(slices(x, (-10, 10)), 2, slices(y, (-10, 10)))
    assert (y == 0).all()
    y[...] = 77
    assert (room == 77).all()


def test_integers_are_clamped(negative):
    x = np.tile(np.array([-32768, 32767], np.int16), (1, NEGATIVE, NEGATIVE // 2))
    for dtype, ends in (("i2", (32767, -32768)), ("u2", (65535, 0))):
        y = np.zeros(x.shape, dtype)
        negative.run_slices(slices(x, (-32768, 32767)), 1, slices(y, (-1e6, 1e6)))
        assert tuple(y[0, 0, :2]) == ends


@pytest.mark.parametrize("dtype", ["f4", "i2", "u2"])
@pytest.mark.parametrize(
    "rule",
    ["minmax", "window:-10:400.5", "percentile", "percentile:0:100", "percentile:2.5:97"],
)
@pytest.mark.parametrize("n", [1, 3])
def test_measure_finds_pythons_range(library: Library, tmp_path, rule, dtype, n):
    parsed = grading.parse_rule(rule)
    path = write(tmp_path / "m.onnx", "translate", side=SIDE, grading=parsed.as_dict())
    with library.open(path, precision="fp32") as engine:
        for seed in range(20):
            random = np.random.default_rng(seed)
            x = random.gamma(0.5, 200.0, (n, SIDE, SIDE)).astype(dtype)
            expected = grading.measure(x.astype(np.float32), parsed)
            assert engine.measure(x) == (expected.low, expected.high)


@pytest.mark.parametrize("rule", ["percentile", "minmax", "window:5:9"])
def test_measure_refuses_an_empty_range(library: Library, tmp_path, rule):
    parsed = grading.parse_rule(rule)
    path = write(tmp_path / "m.onnx", "translate", side=SIDE, grading=parsed.as_dict())
    x = np.full((1, SIDE, SIDE), 3, np.float32)
    with pytest.raises(ValueError, match=r"one value|outside the window"):
        grading.measure(x, parsed)
    with (
        library.open(path, precision="fp32") as engine,
        pytest.raises(Failed, match=r"one value|outside the model's window") as failed,
    ):
        engine.measure(x)
    assert failed.value.code == ERROR_INPUT


def test_deadline_and_cancellation_of_a_real_run(library: Library, backend, tmp_path):
    """Both end a run that is under way, and the next call gives the right bits."""
    side = 512
    path = tmp_path / "slow.onnx"
    document = translating(slice_size=[side, side])
    path.write_bytes(with_metadata(convolving(side, channels=64, layers=12), document))
    x = np.random.default_rng(0).uniform(-1, 1, (1, side, side)).astype(np.float32)
    y = np.empty_like(x)
    cancel = ctypes.c_int(0)
    with library.open(path, backend, precision="fp32", threads=1) as engine:
        expected = engine.run(x)
        call = Call(ctypes.sizeof(Call), 10_000, None)
        with pytest.raises(Failed, match="deadline") as failed:
            engine.run_slices(slices(x), 1, slices(y), call)
        assert failed.value.code == ERROR_DEADLINE
        call = Call(ctypes.sizeof(Call), 0, ctypes.pointer(cancel))
        timer = threading.Timer(0.03, lambda: setattr(cancel, "value", 1))
        timer.start()
        with pytest.raises(Failed, match="cancelled") as failed:
            engine.run_slices(slices(x), 1, slices(y), call)
        timer.join()
        assert failed.value.code == ERROR_CANCELLED
        np.testing.assert_array_equal(engine.run(x), expected)
