"""What `synth` and `translate` share: the options of an engine and an output, and their lines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastmrigan.jobs.gate import GateOptions
    from fastmrigan.jobs.run import JobResult
    from fastmrigan.jobs.spec import JobSpec
    from fastmrigan.runtime.generator import Generator

Model = Annotated[
    Path, typer.Argument(help="A model file, or an engine (.engine), of `fastmrigan export`.")
]
Out = Annotated[Path, typer.Option(help="Folder for the slices; resumed if it has some.")]
Format = Annotated[
    str,
    typer.Option(
        help="shard (WebDataset tar), npz, png, dicom (the same tar, of .dcm), dicom-files (a "
        "folder a shard) or nifti (a volume a source series; translate only)."
    ),
]
ShardSize = Annotated[int, typer.Option(help="Slices a shard; without meaning for nifti.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="uint8 or uint16; default uint8, and uint16 for dicom, dicom-files and nifti, which "
        "have nothing else."
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        help="auto, openvino, onnxruntime, onnxruntime-cuda, or tensorrt, which runs an .engine."
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="fp32, bf16, or auto: bf16 where the processor has it and the model file records at "
        "least 45 dB for it. A file exported in another precision runs in that alone."
    ),
]
Batch = Annotated[int, typer.Option(help="Slices an engine call.")]
Threads = Annotated[int | None, typer.Option(help="Default: all this process may use.")]
Mode = Annotated[
    str,
    typer.Option(
        help="throughput (several engine calls at once, each on its share of the threads) or "
        "latency (one at a time). Last bits may differ between the two: a job goes on in its own."
    ),
]

Gate = Annotated[
    str | None,
    typer.Option(
        help="Quality gate: drop or flag slices that are blank or saturated, and with "
        "--gate-reference outliers and copies of training slices. Indices stay as they are; "
        "receipts/ names every slice with the reason."
    ),
]
GateReference = Annotated[
    Path | None,
    typer.Option(
        help="Prepared dataset that the model was trained on, for the two tests of --gate that "
        "need it."
    ),
]


def gate_options(action: str | None, reference: Path | None) -> GateOptions | None:
    """Raises UsageError for a reference without a gate."""
    from fastmrigan.errors import UsageError
    from fastmrigan.jobs.gate import GateOptions

    if action is None and reference is not None:
        raise UsageError(
            "--gate-reference: says nothing without --gate; add --gate drop or --gate flag"
        )
    return None if action is None else GateOptions(action, reference)


def run_job(spec: JobSpec) -> None:
    """Runs a job to its end, and says what made it and what came of it."""
    from fastmrigan.jobs.gate import summary
    from fastmrigan.jobs.job import Job
    from fastmrigan.jobs.run import run
    from fastmrigan.runtime.engine_file import read_model

    spec.output.check()  # all that is quick before what may take its time
    model = read_model(spec.engine.model)
    work = spec.work(model)
    for line in work.warnings:
        print(f"warning: {line}", file=sys.stderr)
    generator = spec.engine.open(model)
    print(engine_line(generator))
    job = Job(work, spec.output, generator, gate=spec.open_gate(model))
    line = result_line(spec.output.out, run(job))
    print(line if job.gate is None else f"{line}; {summary(spec.output.out, job.gate.action)}")


def engine_line(generator: Generator) -> str:
    engine = generator.backend
    why = f" ({engine.why_precision})" if engine.why_precision else ""
    nodes = "".join(f"; {count} nodes on {name}" for name, count in engine.nodes().items())
    return (
        f"{engine.name} {engine.version} in {engine.precision}{why} on {engine.device}, for "
        f"{engine.mode}: threads {engine.threads}, streams {engine.streams}, "
        f"{'pinned' if engine.pinning else 'not pinned'}{nodes} ({generator.reason})"
    )


def result_line(out: Path, result: JobResult) -> str:
    rate = f", {result.made / result.seconds:,.0f} slices/s" if result.made else ""
    return f"{out}: {result.slices:,} slices, {result.made:,} made now{rate}"
