"""From a run folder to a model file, and every way in which none must be written."""

from __future__ import annotations

import hashlib
import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from fastmrigan.cli.export import export as export_command
from fastmrigan.cli.info import info as info_command
from fastmrigan.errors import CheckFailed, Interrupted, ModelRefused, UsageError
from fastmrigan.export import onnx as exporter
from fastmrigan.export.onnx import Exported, GeneratorFacts, check_graph, export_generator
from fastmrigan.files import beside
from fastmrigan.runtime import load
from fastmrigan.runtime.model_file import read_model_file
from fastmrigan.runtime.onnx_wire import graph_sha256
from fastmrigan.training import checkpoint
from fastmrigan.training.data import TrainingData
from fastmrigan.training.distributed import Ranks
from fastmrigan.training.recipe_file import load_recipe
from fastmrigan.training.systems import system_of
from fastmrigan.training.watch import Watch

# Clip: a progressive GAN's output is linear, so every generator's is held to [-1, 1].
OPERATORS = {"ConvTranspose", "Conv", "DepthToSpace", "Slice", "Relu", "Tanh", "Unsqueeze", "Clip"}
FACTS = GeneratorFacts("sample", "phantom-quick", (16, 16), latent_size=8)
DATASET = {
    "fingerprint": "f" * 64,
    "count": 40,
    "labels": {"tumour": 30, "normal": 10},
    "grading": {"method": "percentile", "low": 0.5, "high": 99.5},
    "contrast": "t2",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a tiny generator whose batch norms are not the identity."""
    folder = tmp_path_factory.mktemp("run")
    small = ["size=16", "generator.latent=8", "generator.width=4", "discriminator.width=4"]
    recipe = load_recipe("phantom-quick", small)
    data = TrainingData(torch.zeros(40, 1, 16, 16), DATASET)
    system = system_of(recipe)(recipe, data, torch.device("cpu"), Ranks())
    with torch.no_grad():
        for parameter in system.ema["generator"].parameters():
            parameter.mul_(5)  # initial weights alone would make slices of nearly zero
    system.ready_to_judge(7)
    checkpoint.save(
        folder,
        system,
        Ranks(),
        recipe=recipe,
        dataset=DATASET,
        step=7,
        elapsed=1.0,
        watch=Watch(system).state(),
    )
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exporter.export_run(run, tmp_path_factory.mktemp("out") / "tiny.onnx")


@pytest.fixture
def graph(exported: Exported) -> onnx.ModelProto:
    return onnx.load(exported.path)


@pytest.fixture(scope="module")
def module(run: Path) -> torch.nn.Module:
    return checkpoint.load_generator(run).module


def test_metadata_says_where_the_model_comes_from(
    exported: Exported, module: torch.nn.Module
) -> None:
    meta = read_model_file(exported.path).metadata
    assert meta == exported.metadata
    assert (meta.task, meta.recipe, meta.precision) == ("sample", "phantom-quick", "fp32")
    assert (meta.latent_size, meta.slice_size, meta.target_contrast) == (8, (16, 16), "t2")
    assert meta.grading == DATASET["grading"]
    assert meta.training_data == {k: DATASET[k] for k in ("fingerprint", "count", "labels")}
    assert meta.training == {"step": 7, "ema": True, "seed": load_recipe("phantom-quick").seed}
    assert meta.notice == "for research; not for diagnosis"
    assert meta.parity["slices"] == 76
    assert meta.parity["max_abs_error"] < 1e-5
    assert {"onnxruntime", "openvino"} <= meta.parity.keys()
    assert meta.versions["torch"] == torch.__version__
    digest = hashlib.sha256()  # the rule of weights_sha256, written out once more
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    assert meta.weights_sha256 == digest.hexdigest()


def test_file_facts(exported: Exported, module: torch.nn.Module) -> None:
    data = exported.path.read_bytes()
    assert exported.size == len(data)
    assert exported.sha256 == hashlib.sha256(data).hexdigest()
    assert exported.parameters == sum(p.numel() for p in module.parameters())
    assert [p.name for p in exported.path.parent.iterdir()] == ["tiny.onnx"]


def test_graph_is_standard_and_tells_nothing_of_the_machine(
    graph: onnx.ModelProto, exported: Exported
) -> None:
    assert [(o.domain, o.version) for o in graph.opset_import] == [("", 18)]
    assert {n.op_type for n in graph.graph.node} <= OPERATORS
    assert not any(n.metadata_props or n.doc_string for n in graph.graph.node)
    assert b"forward" not in exported.path.read_bytes()  # of a stack trace
    assert str(Path.cwd()).encode() not in exported.path.read_bytes()


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_every_batch_size_agrees_with_pytorch(
    graph: onnx.ModelProto, module: torch.nn.Module, batch: int
) -> None:
    x = np.random.default_rng(batch).standard_normal((batch, 8), dtype=np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    assert np.abs(expected).max() > 0.1  # a generator of nothing would agree with anything
    (got,) = ReferenceEvaluator(graph).run(None, {"latent": x})
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_runtime_makes_the_same_slices_at_every_batch(exported: Exported, backend: str) -> None:
    by_batch = [
        load(exported.path, backend, precision="fp32", threads=1, batch=batch).sample(7, seed=3)
        for batch in (1, 3, 16)
    ]
    assert by_batch[0].shape == (7, 16, 16)
    for other in by_batch[1:]:
        np.testing.assert_allclose(other, by_batch[0], rtol=0, atol=1e-5)


def test_plain_weights_differ_from_the_averaged_ones(run: Path, exported: Exported) -> None:
    plain = checkpoint.load_generator(run, step=7, ema=False)
    assert exporter.facts_of(plain).training == {"step": 7, "ema": False, "seed": 0}
    assert exporter.weights_sha256(plain.module) != exported.metadata.weights_sha256


def perturbed(graph: onnx.ModelProto, by: float) -> onnx.ModelProto:
    """`graph` with one number of its first convolution moved."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    copy.ClearField("metadata_props")
    weights = next(t for t in copy.graph.initializer if len(t.dims) == 4)
    values = onnx.numpy_helper.to_array(weights).copy()
    values.flat[0] += by
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    return copy


@pytest.mark.parametrize(
    ("by", "text"), [(5.0, r"away from PyTorch .* fp32"), (np.nan, "is nan away")]
)
def test_a_graph_that_disagrees_is_not_written(
    graph: onnx.ModelProto,
    module: torch.nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by: float,
    text: str,
) -> None:
    monkeypatch.setattr(exporter, "exported_graph", lambda *_: perturbed(graph, by))
    out = tmp_path / "new" / "model.onnx"
    with pytest.raises(CheckFailed, match=rf"model\.onnx: not written, .*{text}"):
        export_generator(module, out, FACTS)
    assert list(out.parent.iterdir()) == []
    out.write_bytes(b"an earlier model")
    with pytest.raises(CheckFailed):
        export_generator(module, out, FACTS)
    assert out.read_bytes() == b"an earlier model"
    assert len(list(out.parent.iterdir())) == 1


def test_the_tolerance_is_the_callers(
    graph: onnx.ModelProto,
    module: torch.nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporter, "exported_graph", lambda *_: perturbed(graph, 0.01))
    made = export_generator(module, tmp_path / "loose.onnx", FACTS, tolerance=0.1)
    assert made.metadata.parity["tolerance"] == 0.1
    assert 1e-3 < made.metadata.parity["max_abs_error"] <= 0.1


@pytest.mark.parametrize("tolerance", [np.inf, np.nan, -np.inf, -1e-4, 0.11])
def test_a_tolerance_that_is_no_gate_is_refused(
    run: Path, module: torch.nn.Module, tmp_path: Path, tolerance: float
) -> None:
    out = tmp_path / "m.onnx"
    for use in (
        lambda: exporter.export_run(run, out, tolerance=tolerance),
        lambda: export_generator(module, out, FACTS, tolerance=tolerance),
    ):
        with pytest.raises(UsageError, match=r"--tolerance .*: expected 0 to 0\.1"):
            use()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2])  # the second one ends the work at once
def test_a_signal_leaves_nothing_written(
    graph: onnx.ModelProto,
    module: torch.nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    times: int,
) -> None:
    def stopped(*_: object) -> onnx.ModelProto:
        try:
            for _time in range(times):
                signal.raise_signal(number)
        except KeyboardInterrupt as error:  # as torch.export does
            raise RuntimeError("TorchExportError") from error
        return perturbed(graph, 0.0)

    monkeypatch.setattr(exporter, "exported_graph", stopped)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"m\.onnx: not written, stopped by a signal"):
        export_generator(module, tmp_path / "m.onnx", FACTS)
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) == before


def test_the_metadata_knows_the_graphs_bytes(exported: Exported, graph: onnx.ModelProto) -> None:
    graph.ClearField("metadata_props")
    bare = graph.SerializeToString(deterministic=True)
    assert exported.metadata.graph_sha256 == hashlib.sha256(bare).hexdigest()
    assert exported.metadata.graph_sha256 == graph_sha256(exported.path.read_bytes())


def test_a_flipped_weight_is_refused(
    exported: Exported, graph: onnx.ModelProto, tmp_path: Path
) -> None:
    data = bytearray(exported.path.read_bytes())
    data[data.index(graph.graph.initializer[0].raw_data) + 3] ^= 0x40
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ModelRefused, match=r"m\.onnx: "):
        read_model_file(tmp_path / "m.onnx")


def test_a_file_in_the_way_is_not_deleted(
    module: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m.onnx"
    mine = beside(out)
    mine.write_text("mine")
    monkeypatch.setattr(exporter, "beside", lambda _: mine)
    with pytest.raises(UsageError, match=r"m\.onnx: cannot be written \(File exists\)"):
        export_generator(module, out, FACTS)
    assert mine.read_text() == "mine"


def external(graph: onnx.ModelProto) -> None:
    tensor = graph.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def foreign(graph: onnx.ModelProto) -> None:
    graph.graph.node[-1].domain = "com.example"
    graph.opset_import.append(onnx.helper.make_opsetid("com.example", 1))


def fixed_batch(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def dangling(graph: onnx.ModelProto) -> None:
    graph.graph.node[0].input[0] = "nowhere"


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (external, "keeps weights outside the file"),
        (foreign, r"outside the ONNX standard \(com\.example\)"),
        (fixed_batch, r"expected the graph's input and output .*'batch'"),
        (dangling, "not valid ONNX"),
    ],
)
def test_a_graph_not_fit_for_a_model_file_is_refused(
    graph: onnx.ModelProto, spoil: Callable[[onnx.ModelProto], None], text: str
) -> None:
    check_graph(graph, FACTS)
    spoil(graph)
    with pytest.raises(CheckFailed, match=text):
        check_graph(graph, FACTS)


def test_the_runtime_refuses_weights_outside_the_file(
    graph: onnx.ModelProto, tmp_path: Path
) -> None:
    onnx.save_model(
        graph, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    with pytest.raises(ModelRefused, match="external data"):
        read_model_file(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("out", "text"),
    [
        ("", "is a folder; name the model file"),
        ("model.pt", r"ends in \.onnx; use --out model\.pt\.onnx"),
        ("file/model.onnx", "cannot be written"),
    ],
)
def test_out_is_checked_before_the_work(run: Path, tmp_path: Path, out: str, text: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=text):
        exporter.export_run(run, tmp_path / out)


def test_runs_that_cannot_be_exported(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint here"):
        exporter.export_run(tmp_path / "nowhere", tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="no checkpoint of step 9; kept are 7"):
        exporter.export_run(run, tmp_path / "m.onnx", step=9)
    damaged = tmp_path / "run" / "checkpoints" / "step_0000007.pt"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes((run / "checkpoints" / "step_0000007.pt").read_bytes()[:1000])
    with pytest.raises(ModelRefused, match=r"step_0000007\.pt: not a readable checkpoint"):
        exporter.export_run(tmp_path / "run", tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_export_command_says_what_it_made_and_makes_the_same_bytes_again(
    run: Path, exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_command(run, tmp_path / "m.onnx")
    printed = capsys.readouterr().out
    assert "phantom-quick, step 7, averaged (EMA) weights" in printed
    assert "openvino" in printed
    assert "max abs error" in printed
    assert re.search(r"^rewrites: batch norms \(\d\)", printed, re.MULTILINE)
    assert (tmp_path / "m.onnx").read_bytes() == exported.path.read_bytes()
    assert exported.sha256 in printed
    assert "for research; not for diagnosis" in printed


@pytest.mark.slow
def test_export_command_says_what_was_left_out(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exporter, "bf16_db", lambda _: 44.9)
    export_command(run, tmp_path / "m.onnx")
    assert re.search(
        r"^rewrites: batch norms \(2\); left out transposed convolutions: 44\.9 dB in bf16, "
        r"45 dB wanted$",
        capsys.readouterr().out,
        re.MULTILINE,
    )


def test_export_command_says_in_what_a_file_is_typed_and_who_judged_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_command(run, tmp_path / "m.onnx", precision="fp16")
    printed = capsys.readouterr().out
    assert re.search(r"phantom-quick, step 7, .* parameters, fp16\n", printed)
    assert re.search(r"  onnxruntime +\S+ +fp16  max abs error \S+  PSNR \S+ dB\n", printed)
    info_command(tmp_path / "m.onnx")
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["precision"] == "fp16"
    assert "dB (CPU, version" in lines["onnxruntime-fp16"]
    assert "least psnr db 45.0" in lines["parity"]


def test_info_command(exported: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    info_command(exported.path)
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["file"] == str(exported.path)
    assert lines["size"] == f"{exported.size:,} bytes"
    assert lines["sha256"] == exported.sha256
    assert lines["task"] == "samples 16x16 slices (t2) from latents of 8"
    assert lines["rewrites"].startswith("batch norms (2)")
    assert lines["grading"] == "method percentile, low 0.5, high 99.5"
    assert lines["notice"] == "for research; not for diagnosis"
    assert "dB (CPU, version" in lines["openvino"]
