"""From a module to a typed model file and through the runtime; and when none is written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import prepared_sets
import pytest
import small_graphs
import torch

from fastmrigan.errors import CheckFailed, UsageError
from fastmrigan.export import gates, parity
from fastmrigan.export import onnx as exporter
from fastmrigan.export.onnx import Exported, export_generator
from fastmrigan.export.parity import EngineParity, ParityReport
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.runtime import load
from fastmrigan.runtime.backends.openvino import the_core
from fastmrigan.runtime.latency import BenchOptions, usable_backends
from fastmrigan.runtime.model_file import read_model_file

NAME = "t2-tumour-cyclegan"  # at 32x32


def has(precision: str) -> bool:
    return precision.upper() in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    root = prepared_sets.make_sets(tmp_path_factory.mktemp("sets"))
    return PreparedDataset.open(root / "ct")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, dataset: PreparedDataset) -> Exported:
    out = tmp_path_factory.mktemp("out") / "half.onnx"
    module, facts = small_graphs.generator(NAME)
    return export_generator(module, out, facts, precision="fp16", parity_data=dataset)


def slices(count: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(-1, 1, (count, 32, 32)).astype(np.float32)


def test_metadata_states_precision_floor_and_figures(
    half: Exported, dataset: PreparedDataset
) -> None:
    meta = read_model_file(half.path).metadata
    assert meta == half.metadata
    assert meta.precision == "fp16"
    assert meta.parity["least_psnr_db"] == 45
    engines = ["onnxruntime-fp16", *(["openvino-fp16"] if has("fp16") else [])]
    random, real = meta.parity, meta.parity["real_slices"]
    assert real["dataset"] == dataset.info.fingerprint
    assert real["slices"] == len(dataset.select("test"))
    for figures in (random, real):
        assert [name for name in figures if name.startswith(("onnxr", "openv"))] == engines
        for engine in engines:
            assert 45 <= figures[engine]["psnr_db"] < 100
            assert 1e-5 < figures[engine]["max_abs_error"] < 0.05
    assert figures["onnxruntime-fp16"] != random["onnxruntime-fp16"]
    assert onnx.load(half.path).opset_import[0].version == int(meta.versions["opset"]) == 18


def test_the_file_is_half_as_large(half: Exported, tmp_path: Path) -> None:
    module, facts = small_graphs.generator(NAME)
    full = export_generator(module, tmp_path / "full.onnx", facts)
    weights = [
        sum(len(weight.raw_data) for weight in onnx.load(made.path).graph.initializer)
        for made in (full, half)
    ]
    assert weights[1] < 0.6 * weights[0]
    assert full.metadata.precision == "fp32"
    assert "real_slices" not in full.metadata.parity
    assert full.metadata.weights_sha256 == half.metadata.weights_sha256


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("asked", ["auto", "fp16"])
def test_the_runtime_runs_it_as_typed_and_says_so(half: Exported, backend: str, asked: str) -> None:
    if backend == "openvino" and not has("fp16"):
        pytest.skip("this processor has no fp16 for OpenVINO")
    generator = load(half.path, backend, precision=asked, threads=1, batch=3)
    assert generator.backend.describe()["precision"] == "fp16"
    assert "as the file is typed" in generator.backend.why_precision
    x = slices(4)
    module, _ = small_graphs.generator(NAME)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x[:, None])).numpy()[:, 0]
    _, psnr = parity.difference([expected], [generator.translate(x)])
    assert 45 < psnr < 100


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_another_precision_than_the_files_is_refused(
    half: Exported, backend: str, asked: str
) -> None:
    with pytest.raises(UsageError, match=rf"precision '{asked}': .*half\.onnx is typed in fp16"):
        load(half.path, backend, precision=asked)


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """OpenVINO on a processor that lacks types."""
    core = the_core()
    able = [kind for kind in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")]

    class Poorer:
        def __getattr__(self, name: str) -> object:
            return getattr(core, name)

        def get_property(self, device: str, name: str) -> object:
            if name == "OPTIMIZATION_CAPABILITIES":
                return [kind for kind in able if kind not in missing]
            return core.get_property(device, name)

    for module in ("fastmrigan.runtime.backends.openvino", "fastmrigan.export.parity"):
        monkeypatch.setattr(f"{module}.the_core", Poorer)


def test_a_processor_without_the_type_is_refused(
    half: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "FP16")
    with pytest.raises(UsageError, match=r"openvino: .* typed in fp16, and this processor has no"):
        load(half.path, "openvino")
    assert load(half.path, "onnxruntime", batch=2).backend.precision == "fp16"


def test_bf16_is_judged_by_openvino_and_refused_by_onnxruntime(tmp_path: Path) -> None:
    if not has("bf16"):
        pytest.skip("this processor has no bf16")
    module, facts = small_graphs.generator(NAME)
    made = export_generator(module, tmp_path / "b.onnx", facts, precision="bf16")
    assert [engine.key for engine in made.parity.engines] == ["openvino-bf16"]
    assert made.metadata.versions["opset"] == "22"
    assert load(made.path, "openvino", batch=2).backend.describe()["precision"] == "bf16"
    refusal = r"onnxruntime: cannot run .*b\.onnx, which is typed in bf16; take openvino"
    with pytest.raises(UsageError, match=refusal):
        load(made.path, "onnxruntime")
    names, left_out = usable_backends(read_model_file(made.path), BenchOptions())
    assert names == ["openvino"]
    assert re.search(refusal, left_out["onnxruntime"])


def test_bf16_that_no_engine_here_can_judge_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "BF16")
    module, facts = small_graphs.generator(NAME)
    with pytest.raises(UsageError, match="no engine here computes in bf16 on this processor"):
        export_generator(module, tmp_path / "b.onnx", facts, precision="bf16")
    assert list(tmp_path.iterdir()) == []


def test_a_typed_graph_below_its_floor_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = exporter._typed

    def worse(graph: onnx.ModelProto, *rest: object) -> onnx.ModelProto:
        made = honest(graph, *rest)
        weight = next(each for each in made.graph.initializer if len(each.dims) == 4)
        values = onnx.numpy_helper.to_array(weight) * np.float16(1.5)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        last = [n for n in made.graph.node if n.op_type == "Conv"][-1].input[1]
        weight = next(each for each in made.graph.initializer if each.name == last)
        values = onnx.numpy_helper.to_array(weight) * np.float16(1.05)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return made

    monkeypatch.setattr(exporter, "_typed", worse)
    module, facts = small_graphs.generator(NAME)
    with pytest.raises(
        CheckFailed, match=r"m\.onnx: not written, since .* in fp16 reaches .* of 45"
    ):
        export_generator(module, tmp_path / "m.onnx", facts, precision="fp16")
    assert list(tmp_path.iterdir()) == []


def report(
    precision: str, psnr: float, ssim: float | None = None, dataset: str | None = None
) -> ParityReport:
    engine = EngineParity("openvino", "1", precision, "CPU", 0.1, psnr, ssim)
    return ParityReport("PyTorch", (4,), (engine,), precision, dataset)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("bf16", 39.9), "39.9 dB of 40"),
        (("bf16", np.nan), "nan dB of 40"),
        (("fp16", 44.9), "44.9 dB of 45"),
        (("int8", 34.9, 0.99), "34.9 dB of 35"),
        (("int8", 36.0, 0.969), r"SSIM of 0\.9690 \(0\.97 wanted\)"),
        (("int8", 36.0, np.nan), "SSIM of -inf"),
        (("int8", 36.0), "SSIM of -inf"),
    ],
)
def test_what_is_judged_too_far_away(given: tuple, text: str) -> None:
    with pytest.raises(CheckFailed, match=text):
        gates.judge(Path("m.onnx"), report(*given), 1e-4)


@pytest.mark.parametrize(
    "given", [("bf16", 40.0), ("fp16", 45.0), ("int8", 35.0, 0.97), ("fp32", 60.0, None, "d")]
)
def test_what_is_judged_near_enough(given: tuple) -> None:
    gates.judge(Path("m.onnx"), report(*given), 1e-4)


def test_nan_of_one_typed_engine_is_the_worst() -> None:
    engines = [EngineParity("a", "1", "fp16", "CPU", e, p) for e, p in ((0.1, 60.0), (np.nan,) * 2)]
    assert ParityReport("PyTorch", (1,), tuple(engines), "fp16").worst is engines[1]


def test_real_slices_are_judged_too(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, facts = small_graphs.generator(NAME)
    honest = parity.check_parity

    def only_real(*given: object, **options: object) -> ParityReport:
        found = honest(*given, **options)
        return found if options["dataset"] is None else report("fp32", 59.9, dataset="d")

    monkeypatch.setattr("fastmrigan.export.probes.check_parity", only_real)
    with pytest.raises(
        CheckFailed, match=r"not written, since openvino 1 in fp32 reaches 59\.9 dB of 60"
    ):
        export_generator(module, tmp_path / "m.onnx", facts, parity_data=dataset)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("tumour-dcgan64", {}, "tumour-dcgan64 samples from latents, not slices; leave it out"),
        ("ct-mri-cyclegan-resnet", {}, "slices are 32x32, ct-mri-cyclegan-resnet translates 64x64"),
    ],
)
def test_a_dataset_that_does_not_fit(
    dataset: PreparedDataset, tmp_path: Path, name: str, changes: dict, text: str
) -> None:
    module, facts = small_graphs.generator(name)
    with pytest.raises(UsageError, match=text):
        export_generator(module, tmp_path / "m.onnx", facts, parity_data=dataset)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_without_held_out_slices(tmp_path: Path) -> None:
    root = prepared_sets.make_sets(tmp_path / "sets")
    module, facts = small_graphs.generator("ct-mri-cyclegan-resnet")
    large = PreparedDataset.open(root / "large")
    with pytest.raises(UsageError, match="no slices in split test; prepare more slices"):
        export_generator(module, tmp_path / "m.onnx", facts, parity_data=large)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"precision": "fp8"}, "--precision 'fp8': choose one of fp32, bf16, fp16, int8"),
        ({"precision": "fp16", "calibration": "set"}, "int8 alone is calibrated, not fp16"),
    ],
)
def test_options_are_checked_first(
    dataset: PreparedDataset, tmp_path: Path, options: dict, text: str
) -> None:
    module, facts = small_graphs.generator(NAME)
    if "calibration" in options:
        options = options | {"calibration": dataset}
    with pytest.raises(UsageError, match=text):
        export_generator(module, tmp_path / "m.onnx", facts, **options)
