"""int8 by NNCF: what is written, on what it is judged, and that the judgement can fail."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import prepared_sets
import pytest
import small_graphs
import torch
from skimage.metrics import structural_similarity
from torch import nn

from fastmrigan.errors import CheckFailed, MissingDependency, UsageError
from fastmrigan.export import int8, parity
from fastmrigan.export.facts import GeneratorFacts
from fastmrigan.export.gates import LEAST_SSIM
from fastmrigan.export.onnx import export_generator
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.phantom.slices import PhantomSettings
from fastmrigan.imaging.phantom.writer import write_phantom
from fastmrigan.imaging.prepare import prepare
from fastmrigan.models.unet import UnetGenerator
from fastmrigan.runtime import load
from fastmrigan.training.checkpoint import frozen

SIZE, SECONDS = 64, 60
FACTS = GeneratorFacts("translate", "small", (SIZE, SIZE))
NAME = "t2-tumour-cyclegan"

needs_nncf = pytest.mark.skipif(
    find_spec("nncf") is None, reason="nncf is not installed: pip install 'fastmrigan[int8]'"
)


@pytest.fixture(scope="module", params=["phantom", "real"])
def dataset(request, tmp_path_factory, real_data) -> PreparedDataset:
    """Phantom slices in T1 with their twins in T2; real ones of CT with theirs in MR."""
    root = tmp_path_factory.mktemp("pairs")
    if request.param == "phantom":
        settings = PhantomSettings(size=SIZE, contrasts=("t1", "t2"), seed=1)
        write_phantom(root / "phantom", 240, settings)
        sources, twins = root / "phantom" / "t1", root / "phantom" / "t2"
        options = PrepareOptions(
            size=SIZE, pairs=twins, contrast="t1", target_contrast="t2", group_pattern="(head\\d+)_"
        )
    else:
        real = real_data("ctmri-paired-aanlib")
        sources, case = real / "CT", r"^(\d+)\d{3}\."
        options = PrepareOptions(
            size=SIZE, pairs=real / "MRI", contrast="ct", target_contrast="t2", group_pattern=case
        )
    prepare(sources, root / "set", options)
    return PreparedDataset.open(root / "set")


@pytest.fixture(scope="module")
def trained(dataset: PreparedDataset) -> nn.Module:
    """A small U-Net that has learned the pairs by the mean absolute error, SECONDS at most."""
    torch.manual_seed(0)
    network = UnetGenerator(size=SIZE, width=16)
    sources, targets = (
        torch.from_numpy(part)[:, None] for part in (dataset.slices(), dataset.targets())
    )
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    end = time.monotonic() + SECONDS
    for step in range(400):
        if time.monotonic() > end:
            break
        batch = torch.arange(step * 16, step * 16 + 16) % len(sources)
        loss = (network(sources[batch]) - targets[batch]).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.15, "not trained: what int8 does to it would say nothing"
    return frozen(network)


@needs_nncf
@pytest.mark.slow
def test_trained_weights_pass_the_gate(
    trained: nn.Module, dataset: PreparedDataset, tmp_path: Path
) -> None:
    made = export_generator(
        trained, tmp_path / "m.onnx", FACTS, precision="int8", calibration=dataset
    )
    assert [engine.key for engine in made.parity.engines] == ["onnxruntime-int8", "openvino-int8"]
    figures = made.metadata.parity
    assert figures["dataset"] == dataset.info.fingerprint
    assert (figures["least_psnr_db"], figures["least_ssim"]) == (35, 0.97)
    assert figures["slices"] == len(dataset.select("test"))
    types = {weight.data_type for weight in onnx.load(made.path).graph.initializer}
    assert onnx.TensorProto.INT8 in types

    held_out = dataset.slices("test")
    with torch.inference_mode():
        expected = trained(torch.from_numpy(held_out[:, None])).numpy()[:, 0]
    for backend in ("onnxruntime", "openvino"):
        generator = load(made.path, backend, batch=8)
        assert generator.backend.describe()["precision"] == "int8"
        got = generator.translate(held_out)
        _, psnr = parity.difference([expected], [got])
        ssim = np.mean(
            [
                structural_similarity(
                    a,
                    b,
                    data_range=2,
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                )
                for a, b in zip(expected, got, strict=True)
            ]
        )
        assert psnr >= 35
        assert ssim >= LEAST_SSIM
        assert figures[f"{backend}-int8"]["ssim"] == pytest.approx(ssim, abs=1e-3)
        assert figures[f"{backend}-int8"]["psnr_db"] == pytest.approx(psnr, abs=0.2)


@needs_nncf
@pytest.mark.slow
def test_untrained_weights_do_not(tmp_path: Path) -> None:
    """Ranges of a network of noise are no ranges: its SSIM is 0.87 in int8."""
    dataset = PreparedDataset.open(prepared_sets.make_sets(tmp_path / "sets") / "ct")
    module, facts = small_graphs.generator(NAME)
    out = tmp_path / "out" / "m.onnx"
    with pytest.raises(CheckFailed, match=r"m\.onnx: not written, since .* in int8 .* real slices"):
        export_generator(module, out, facts, precision="int8", calibration=dataset)
    assert list(out.parent.iterdir()) == []


@needs_nncf
def test_the_same_graph_twice_of_standard_operators() -> None:
    _, facts = small_graphs.generator(NAME)
    graph = small_graphs.graph(NAME)
    inputs = parity.random_inputs(facts.task, facts.input_shape, (8, 8), seed=1)
    made = [int8.int8_graph(graph, inputs) for _ in range(2)]
    assert len({each.SerializeToString(deterministic=True) for each in made}) == 1
    assert {node.domain for node in made[0].graph.node} == {""}
    assert graph.SerializeToString() == small_graphs.graph(NAME).SerializeToString()
    operators = [node.op_type for node in made[0].graph.node]
    assert operators.count("Conv") == 8
    assert "QuantizeLinear" in operators
    dequantised = {n.output[0] for n in made[0].graph.node if n.op_type == "DequantizeLinear"}
    convolutions = [node for node in made[0].graph.node if node.op_type == "Conv"]
    assert all(node.input[1] in dequantised for node in convolutions)


@needs_nncf
@pytest.mark.slow
def test_a_generator_that_samples_is_calibrated_on_latents(tmp_path: Path) -> None:
    module, facts = small_graphs.generator("tumour-dcgan64")
    made = export_generator(module, tmp_path / "m.onnx", facts, precision="int8")
    assert made.metadata.precision == "int8"
    assert "dataset" not in made.metadata.parity
    assert made.metadata.parity["openvino-int8"]["psnr_db"] >= 35


@needs_nncf
@pytest.mark.slow
def test_nncf_reports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, since NNCF looks at its variable when it is first imported."""
    import subprocess
    import sys

    monkeypatch.delenv(int8.SILENT, raising=False)
    program = (
        "from fastmrigan.export.int8 import _quiet\n"
        "with _quiet():\n"
        "    from nncf.telemetry import wrapper\n"
        "print(type(wrapper.telemetry).__name__)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "MagicMock\n"


def test_a_generator_that_translates_needs_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastmrigan.export.onnx._need_packages", lambda _: None)
    module, facts = small_graphs.generator(NAME)
    with pytest.raises(UsageError, match="--precision int8: needs --calibration DATASET"):
        export_generator(module, tmp_path / "m.onnx", facts, precision="int8")


def test_without_nncf_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "nncf" else find_spec(name)
    )
    module, facts = small_graphs.generator(NAME)
    with pytest.raises(MissingDependency, match=r"pip install 'fastmrigan\[int8\]'"):
        export_generator(module, tmp_path / "m.onnx", facts, precision="int8")
