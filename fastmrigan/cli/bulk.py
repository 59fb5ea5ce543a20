"""What `synth` and `translate` share: the options of an engine and an output, and their lines."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastmrigan.jobs.cluster import RayOptions
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
ShardRange = Annotated[
    str | None,
    typer.Option(
        metavar="A:B",
        help="Only shards A up to B, B left out, of the same plan: for job arrays, whose tasks "
        "fill one folder at the same time (examples/slurm). They must agree in all that the bytes "
        "depend on, the processor and its instruction set among it; one that differs is refused.",
    ),
]
Runner = Annotated[
    str,
    typer.Option(
        help="local (this process) or ray: processes of a Ray cluster; what a node had in hand "
        "that dies is made by another. All nodes need FastMRIGAN, and see the model, the inputs "
        "and --out by the same paths."
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="Of the cluster; default: $RAY_ADDRESS, else one of this machine, started for the "
        "job, which sends no usage statistics to Ray's makers. For one that runs already, who "
        "started it decides on those."
    ),
]
RayActors = Annotated[
    int | None,
    typer.Option(
        help="Processes, each with an engine on --threads CPUs, or all of a node, and on a GPU "
        "where the backend needs one; default: one a node."
    ),
]


def ray_options(runner: str, address: str | None, actors: int | None) -> RayOptions | None:
    """None for a job of this process. Raises UsageError, MissingDependency."""
    from fastmrigan.errors import UsageError
    from fastmrigan.jobs.cluster import RayOptions

    if runner not in ("local", "ray"):
        raise UsageError(f"--runner {runner}: unknown; choose one of local, ray")
    if runner == "ray":
        options = RayOptions(address, actors)
        options.check()
        return options
    for name, given in (("--ray-address", address), ("--ray-actors", actors)):
        if given is not None:
            raise UsageError(f"{name} {given}: is for --runner ray, and the runner is local")
    return None


def run_job(spec: JobSpec, cluster: RayOptions | None = None) -> None:
    """Runs a job to its end, and says what made it and what came of it."""
    from fastmrigan.jobs.cluster import run_on_ray
    from fastmrigan.jobs.job import Job
    from fastmrigan.jobs.run import run
    from fastmrigan.runtime.engine_file import read_model

    spec.output.check()  # all that is quick before what may take its time
    model = read_model(spec.engine.model)
    work = spec.work(model)
    for line in work.warnings:
        print(f"warning: {line}", file=sys.stderr)
    part = spec.part(work)
    if cluster is not None:
        say = partial(print, flush=True)  # for who watches a job that takes the night
        print(result_line(spec.output.out, run_on_ray(spec, work, cluster, say)))
        return
    generator = spec.engine.open(model)
    print(engine_line(generator))
    print(result_line(spec.output.out, run(Job(work, spec.output, generator), part)))


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
    if result.share is None:
        return f"{out}: {result.slices:,} slices, {result.made:,} made now{rate}"
    part, there, planned = result.share.part, result.share.there, result.share.planned
    return (
        f"{out}: {result.slices:,} slices in shards {part.start}:{part.stop}, {result.made:,} made "
        f"now{rate}; of the whole, {there:,} of {planned:,} shards are there"
    )
