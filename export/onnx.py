"""A trained generator to the one .onnx model file of FastMRIGAN."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastmrigan.errors import Interrupted, MissingDependency, UsageError
from fastmrigan.export.choice import chosen
from fastmrigan.export.facts import GeneratorFacts, facts_of
from fastmrigan.export.gates import TOLERANCE, check_tolerance, judge, limits
from fastmrigan.export.graph import (
    OPSET,
    build_graph,
    check_graph,
    exported_graph,
    norms_folded,
    rewrite,
)
from fastmrigan.export.metadata import metadata_of, weights_sha256, with_metadata
from fastmrigan.export.parity import ParityReport
from fastmrigan.files import beside, write_whole
from fastmrigan.interrupt import StopSignal
from fastmrigan.runtime.backends.openvino import BF16_MIN_DB, bf16_db
from fastmrigan.runtime.model_file import PRECISIONS, ModelMetadata
from fastmrigan.runtime.onnx_wire import graph_sha256

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx
    import torch

    from fastmrigan.export.probes import Probe
    from fastmrigan.imaging.dataset import PreparedDataset

__all__ = [
    "OPSET",
    "Exported",
    "GeneratorFacts",
    "build_graph",
    "check_graph",
    "export_generator",
    "export_run",
    "facts_of",
    "weights_sha256",
]


@dataclass(frozen=True)
class Exported:
    """A model file as it stands on disk."""

    path: Path
    size: int  # bytes
    sha256: str  # of the whole file
    parameters: int
    metadata: ModelMetadata
    parity: ParityReport  # of the graph that was written
    real: ParityReport | None = None  # the same on a dataset's slices, where one was given
    left_out: str = ""  # rewrites that pay in bf16 alone, and why the file is not for that


def export_run(
    run: Path,
    out: Path,
    *,
    step: int | None = None,
    ema: bool = True,
    back: bool = False,
    tolerance: float = TOLERANCE,
    precision: str = "fp32",
    calibration: Path | None = None,
    parity_data: Path | None = None,
) -> Exported:
    """Writes the generator of a run folder's checkpoint (the newest, or `step`) to `out`.

    ema: the averaged weights, where the run has them. back: CycleGAN's generator from target to
    source. precision: fp32, bf16, fp16 or int8, which the graph is then typed in. calibration: a
    prepared dataset, for int8 of a generator that translates. parity_data: another, on whose
    held-out slices the file is checked too.

    Raises UsageError for a folder that is no run, has no such checkpoint, an `out` that cannot be
    written, a `tolerance` above 0.1, datasets that do not fit, or where no engine here computes in
    `precision`; ModelRefused for a damaged checkpoint; InputRejected for a damaged dataset;
    MissingDependency without a package; CheckFailed where the file would be further from PyTorch
    than fastmrigan.export.gates allows; Interrupted after Ctrl-C or SIGTERM. In all these cases
    `out` is left as it was.
    """
    _need_packages(precision)
    from fastmrigan.imaging.dataset import PreparedDataset
    from fastmrigan.training.checkpoint import load_generator

    check_tolerance(tolerance)
    _check_precision(precision, calibrated=calibration is not None)
    out = _writable(out)
    sets = [path and PreparedDataset.open(path) for path in (calibration, parity_data)]
    loaded = load_generator(run, step=step, ema=ema, back=back)
    return export_generator(
        loaded.module,
        out,
        facts_of(loaded, back),
        tolerance=tolerance,
        precision=precision,
        calibration=sets[0],
        parity_data=sets[1],
    )


def export_generator(
    module: torch.nn.Module,
    out: Path,
    facts: GeneratorFacts,
    *,
    tolerance: float = TOLERANCE,
    precision: str = "fp32",
    calibration: PreparedDataset | None = None,
    parity_data: PreparedDataset | None = None,
) -> Exported:
    """Writes `module` to `out` once ONNX Runtime and OpenVINO both agree with it.

    module: float32 [N, latent_size] (sample) or [N, 1, H, W] (translate) to [N, 1, H, W] in
    [-1, 1]. It is used in eval mode on the CPU; batch norm statistics are the stored ones.
    The fp32 graph is held to `tolerance` first, whatever `precision` is; a typed one then to its
    floor. int8 is judged on held-out slices of `calibration`, or on latents.
    Raises as `export_run` does, and writes nothing then.
    """
    _need_packages(precision)
    check_tolerance(tolerance)
    _check_precision(precision, calibrated=calibration is not None)
    out = _writable(out)
    module = module.cpu().float().eval()
    with _stoppable(out):
        from fastmrigan.export import probes

        ranges = probes.calibration_inputs(facts, calibration) if precision == "int8" else []
        held_out = calibration and probes.real_probe(module, facts, calibration, "--calibration")
        real = parity_data and probes.real_probe(module, facts, parity_data, "--parity-data")
        probe = probes.random_probe(module, facts)
        graph, rewrites, report, left_out = _rewritten(module, facts, precision, probe)
        judge(out, report, tolerance)
        if precision != "fp32":
            graph = _typed(graph, precision, ranges)
            check_graph(graph, facts)
            report = (held_out or probe).check(graph.SerializeToString(), precision)
            judge(out, report, tolerance)
        on_real = real and real.check(graph.SerializeToString(), precision)
        if on_real is not None:
            judge(out, on_real, tolerance)
    digest = graph_sha256(graph.SerializeToString(deterministic=True))
    parity = report.as_metadata(limits(report, tolerance))
    if on_real is not None:
        parity["real_slices"] = on_real.as_metadata(limits(on_real, tolerance))
    opset = graph.opset_import[0].version
    metadata = metadata_of(
        module, facts, parity, digest, precision=precision, opset=opset, rewrites=rewrites
    )
    data = with_metadata(graph, metadata.model_dump(mode="json"))
    assert graph_sha256(data) == digest, "the metadata must not change the graph"
    write_whole(out, data)
    return Exported(
        out,
        len(data),
        hashlib.sha256(data).hexdigest(),
        sum(p.numel() for p in module.parameters()),
        metadata,
        report,
        on_real,
        left_out,
    )


def _rewritten(
    module: torch.nn.Module, facts: GeneratorFacts, precision: str, probe: Probe
) -> tuple[onnx.ModelProto, dict[str, int], ParityReport, str]:
    """The fp32 graph with the rewrites that pay in a file of `precision`, how many places each
    changed, the graph's parity, and what was left out and why.

    Of an fp32 file OpenVINO computes in bf16 what is close enough to PyTorch so, by the file's own
    figure. A graph that is not is made anew for fp32, and checked anew: figures are of what is
    written.
    """
    plain = exported_graph(module, facts)

    def made(computed_in: str) -> tuple[onnx.ModelProto, dict[str, int]]:
        graph = type(plain)()
        graph.CopyFrom(plain)
        changed = rewrite(graph, chosen(facts.task, computed_in))
        changed["batch norms"] = norms_folded(module, graph)  # the exporter's share too
        check_graph(graph, facts)
        return graph, {name: count for name, count in changed.items() if count}

    graph, changed = made("bf16" if precision == "fp32" else precision)
    report, left_out = probe.check(graph.SerializeToString(), "fp32"), ""
    measured = bf16_db(report.as_metadata({}))
    if precision == "fp32" and (measured is None or measured < BF16_MIN_DB):
        for_bf16, (graph, changed) = (graph, changed), made("fp32")
        if graph != for_bf16[0]:
            report = probe.check(graph.SerializeToString(), "fp32")
            figure = "no figure" if measured is None else f"{measured:.1f} dB"
            names = ", ".join(name for name in for_bf16[1] if name not in changed)
            left_out = f"{names}: {figure} in bf16, {BF16_MIN_DB:g} dB wanted"
            if measured is None:  # the split pays nowhere else, and is not chosen unseen
                left_out += "; export on a processor that has bf16 for one that runs in it"
    return graph, changed, report, left_out


def _typed(
    graph: onnx.ModelProto, precision: str, calibration: list[npt.NDArray[np.float32]]
) -> onnx.ModelProto:
    from fastmrigan.export.int8 import int8_graph
    from fastmrigan.export.precision import typed_graph

    if precision == "int8":
        return int8_graph(graph, calibration)
    return typed_graph(graph, precision)


def _check_precision(precision: str, *, calibrated: bool) -> None:
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if calibrated and precision != "int8":
        raise UsageError(
            f"--calibration: int8 alone is calibrated, not {precision}; to check a file on real "
            "slices use --parity-data"
        )


@contextlib.contextmanager
def _stoppable(out: Path) -> Iterator[None]:
    """Raises Interrupted after Ctrl-C or SIGTERM, once the work in the `with` statement is done:
    torch.export makes an error of its own of an exception that a signal raises inside it."""
    with StopSignal() as signal:
        try:
            yield
        except Exception:
            if not signal.stopped:
                raise
    if signal.stopped:
        raise Interrupted(f"{out}: not written, stopped by a signal; run the same command again")


def _need_packages(precision: str) -> None:
    import importlib.util

    from fastmrigan.export.int8 import need_nncf

    for package in ("torch", "onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(package, "export", "exporting a model file")
    if precision == "int8":
        need_nncf()


def _writable(out: Path) -> Path:
    """`out`, known to be writable before minutes are spent on it."""
    if out.is_dir():
        raise UsageError(f"{out}: is a folder; name the model file to write, e.g. {out}/model.onnx")
    if out.suffix != ".onnx":
        raise UsageError(f"{out}: a model file's name ends in .onnx; use --out {out.name}.onnx")
    probe = beside(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)  # what is there already is not ours to delete
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"{out}: cannot be written ({error.strerror}); name a place you can write to"
        ) from error
    return out
