"""What `synth` and `translate` share: the options of an engine and an output, and their lines."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fastmrigan.jobs.messages import Ready
    from fastmrigan.jobs.output import Output
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
Threads = Annotated[
    int | None,
    typer.Option(
        help="Of the engine; with --workers, of each one's. Default: all this process may use, "
        "shared out among the workers."
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        help="throughput (several engine calls at once, each on its share of the threads) or "
        "latency (one at a time). Last bits may differ between the two: a job goes on in its own."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Processes that share the job, each with an engine of its own (and of several CUDA "
        "devices, one each). One that dies is replaced, and an input that ends two is left out. "
        "The same --threads give the same bytes, however many there are. Default: none but this "
        "process."
    ),
]


def run_job(spec: JobSpec, workers: int | None = None) -> None:
    """Runs a job to its end, in `workers` processes or in this one, and says what made it and what
    came of it."""
    from fastmrigan.errors import EXIT_SOME_REJECTED
    from fastmrigan.jobs.job import Job
    from fastmrigan.jobs.run import run
    from fastmrigan.runtime.engine_file import read_model

    spec.output.check()  # all that is quick before what may take its time
    model = read_model(spec.engine.model)
    work = spec.work(model)
    for line in work.warnings:
        print(f"warning: {line}", file=sys.stderr)
    if workers is None:
        generator = spec.engine.open(model)
        print(engine_line(generator))
        result = run(Job(work, spec.output, generator))
    else:
        from fastmrigan.jobs.supervisor import supervise

        result = supervise(
            spec, work, workers, lambda ready, count: print(workers_line(ready, count))
        )
    print(result_line(spec.output.out, result))
    if result.quarantined:
        print(quarantine_line(spec.output, result.quarantined), file=sys.stderr)
        raise typer.Exit(EXIT_SOME_REJECTED)


def engine_line(generator: Generator) -> str:
    engine = generator.backend
    return line_of(engine.describe(), engine.why_precision, generator.reason)


def workers_line(ready: Ready, workers: int) -> str:
    line = line_of(ready.pinned, ready.why_precision, ready.reason)
    return f"1 worker: {line}" if workers == 1 else f"{workers} workers, each {line}"


def line_of(engine: Mapping[str, Any], why_precision: str, reason: str) -> str:
    """engine: what a backend says when it is asked to describe itself."""
    why = f" ({why_precision})" if why_precision else ""
    nodes = "".join(f"; {count} nodes on {name}" for name, count in engine["nodes"].items())
    return (
        f"{engine['backend']} {engine['version']} in {engine['precision']}{why} on "
        f"{engine['device']}, for {engine['mode']}: threads {engine['threads']}, streams "
        f"{engine['streams']}, {'pinned' if engine['pinning'] else 'not pinned'}{nodes} ({reason})"
    )


def quarantine_line(output: Output, count: int) -> str:
    """What became of inputs that ended processes, and what to do."""
    inputs = "1 input" if count == 1 else f"{count:,} inputs"
    lost = (
        "their series have no volume, since one cannot have a hole; --format dicom or png keeps "
        "their other slices"
        if output.format == "nifti"
        else "their slices are left out"
    )
    listed = output.out / "quarantine.jsonl"
    return (
        f"{inputs} quarantined, which ended the processes that worked on them (see {listed}): "
        f"{lost}"
    )


def result_line(out: Path, result: JobResult) -> str:
    rate = f", {result.made / result.seconds:,.0f} slices/s" if result.made else ""
    return f"{out}: {result.slices:,} slices, {result.made:,} made now{rate}"
