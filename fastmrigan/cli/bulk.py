"""What `synth` and `translate` share: the options of an engine and an output, and their lines."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastmrigan.cli.plan import show_plan
from fastmrigan.cli.refusals import SHOWN, print_refused
from fastmrigan.progress import counted

if TYPE_CHECKING:
    from fastmrigan.jobs.cluster import RayOptions
    from fastmrigan.jobs.gate import GateOptions
    from fastmrigan.jobs.output import Output
    from fastmrigan.jobs.ready import Looked, Ready
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
        "that dies is made by another. All nodes need FastMRIGAN, and see the model, the inputs, "
        "--gate-reference and --out by the same paths."
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


DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Write nothing: print the plan, what it needs on the disk and, of a few slices made "
        "for it, when it would end. A folder of images is prepared in a temporary folder.",
    ),
]
BudgetCheck = Annotated[
    bool,
    typer.Option(
        "--budget-check/--no-budget-check",
        help="Begin only where the disk has room for all slices; --no-budget-check for file "
        "systems that compress.",
    ),
]


def ray_options(
    runner: str, address: str | None, actors: int | None, workers: int | None
) -> RayOptions | None:
    """None for a job of this machine. Raises UsageError, MissingDependency."""
    from fastmrigan.errors import UsageError
    from fastmrigan.jobs.cluster import RayOptions

    if runner not in ("local", "ray"):
        raise UsageError(f"--runner {runner}: unknown; choose one of local, ray")
    if runner == "ray":
        if workers is not None:
            raise UsageError(f"--workers {workers}: is for --runner local; give --ray-actors")
        options = RayOptions(address, actors)
        options.check()
        return options
    for name, given in (("--ray-address", address), ("--ray-actors", actors)):
        if given is not None:
            raise UsageError(f"{name} {given}: is for --runner ray, and the runner is local")
    return None


def run_job(
    spec: JobSpec,
    *,
    dry_run: bool = False,
    budget_check: bool = True,
    workers: int | None = None,
    cluster: RayOptions | None = None,
) -> None:
    """Runs a job to its end, or prints its plan; says what made it and what came of it.

    Ends with exit code 3 where files of a folder of images were rejected.
    """
    from fastmrigan.jobs import budget
    from fastmrigan.jobs.ready import looked_at
    from fastmrigan.jobs.supervisor import of_each

    if workers is not None:
        spec = of_each(spec, workers)  # also for a dry run
    # What is quick before what may take time. For a cluster no engine is opened here, nor for the
    # plan of a dry run: its package may be the nodes' alone
    looked = looked_at(spec, engine_here=cluster is None)
    with contextlib.ExitStack() as scratch:
        job = made_ready(looked, scratch if dry_run else None)
        if dry_run:
            show_plan(job, workers=workers, here=cluster is None)
        if budget_check:
            budget.check([(spec.output.out, job.need)])
        code = rejects_code(job) if dry_run else start(job, workers, cluster)
    if code:
        raise typer.Exit(code)


def made_ready(looked: Looked, scratch: contextlib.ExitStack | None = None) -> Ready:
    """The job with its inputs: images are prepared, where `scratch` is given in a temporary folder
    that it clears up."""
    from fastmrigan.jobs.inputs import FOLDER
    from fastmrigan.jobs.ready import ready

    at = None
    if scratch is not None:
        at = Path(scratch.enter_context(TemporaryDirectory(prefix="fastmrigan-"))) / FOLDER
    job = ready(looked, at)
    for line in job.warnings[:SHOWN]:
        print(f"warning: {line}", file=sys.stderr)
    if job.warnings[SHOWN:]:
        print(f"warning: and {len(job.warnings) - SHOWN:,} more of the kind", file=sys.stderr)
    return job


def start(job: Ready, workers: int | None = None, cluster: RayOptions | None = None) -> int:
    """Makes what is missing of a job, on a Ray cluster, in worker processes or in this one.

    Returns its exit code.
    """
    from fastmrigan.errors import EXIT_OK, EXIT_SOME_REJECTED
    from fastmrigan.jobs.cluster import run_on_ray
    from fastmrigan.jobs.gate import summary
    from fastmrigan.jobs.job import Job
    from fastmrigan.jobs.run import run
    from fastmrigan.jobs.supervisor import supervise

    output = job.spec.output
    if cluster is not None:
        say = partial(print, flush=True)  # for who watches a job that takes the night
        result = run_on_ray(job.spec, job.work, cluster, say)
    elif workers is not None:
        result = supervise(
            job.spec,
            job.work,
            workers,
            lambda ready, count: print(
                workers_line(count, line_of(ready.pinned, ready.why_precision, ready.reason))
            ),
        )
    else:
        generator = job.spec.engine.open(job.model)
        print(engine_line(generator))
        job.spec.check_unchanged(job.work)  # of several jobs it may have been hours ago
        made = Job(job.work, output, generator, gate=job.spec.open_gate(job.model))
        result = run(made, job.spec.part(job.work))
    line, gate = result_line(output.out, result), job.spec.gate
    print(line if gate is None else f"{line}; {summary(output, job.plan, gate.action)}")
    if result.quarantined:
        print(quarantine_line(output, result.quarantined), file=sys.stderr)
    return tell_rejects(job) or (EXIT_SOME_REJECTED if result.quarantined else EXIT_OK)


def tell_rejects(job: Ready) -> int:
    """Says which files of a folder of images did not enter; the exit code."""
    from fastmrigan.imaging import quarantine

    images = job.images
    if images is not None and images.quarantined:
        print(
            f"quarantined {counted(len(images.quarantined), 'DICOM file')}, named in "
            f"{images.path / 'quarantine.jsonl'}: {quarantine.remedy(images.quarantined)}"
        )
    if images is not None:
        print_refused(images.refused, images.path / "rejects.jsonl")
    return rejects_code(job)


def rejects_code(job: Ready) -> int:
    """The exit code of a job that is done."""
    from fastmrigan.errors import EXIT_OK, EXIT_SOME_REJECTED

    images = job.images
    return EXIT_SOME_REJECTED if images and (images.refused or images.quarantined) else EXIT_OK


def engine_line(generator: Generator) -> str:
    engine = generator.backend
    return line_of(engine.describe(), engine.why_precision, generator.reason)


def workers_line(workers: int, line: str) -> str:
    return f"1 worker: {line}" if workers == 1 else f"{workers} workers, each {line}"


def line_of(engine: Mapping[str, Any], why_precision: str, reason: str) -> str:
    """engine: what a backend says when it is asked to describe itself."""
    why = f" ({why_precision})" if why_precision else ""
    nodes = "".join(f"; {counted(n, 'node')} on {name}" for name, n in engine["nodes"].items())
    return (
        f"{engine['backend']} {engine['version']} in {engine['precision']}{why} on "
        f"{engine['device']}, for {engine['mode']}: threads {engine['threads']}, streams "
        f"{engine['streams']}, {'pinned' if engine['pinning'] else 'not pinned'}{nodes} ({reason})"
    )


def quarantine_line(output: Output, count: int) -> str:
    """What became of inputs that ended processes, and what to do."""
    lost = (
        "their series have no volume, since one cannot have a hole; --format dicom or png keeps "
        "their other slices"
        if output.format == "nifti"
        else "their slices are left out"
    )
    listed = output.out / "quarantine.jsonl"
    return (
        f"{counted(count, 'input')} quarantined, which ended the processes that worked on them "
        f"(see {listed}): {lost}"
    )


def result_line(out: Path, result: JobResult) -> str:
    slices, made = counted(result.slices, "slice"), f"{result.made:,} made now"
    if result.made:
        made += f", {result.made / result.seconds:,.0f} slices/s"
    if result.share is None:
        return f"{out}: {slices}, {made}"
    part, there, planned = result.share.part, result.share.there, result.share.planned
    return (
        f"{out}: {slices} in shards {part.start}:{part.stop}, {made}; of the whole, {there:,} of "
        f"{counted(planned, 'shard')} {'is' if planned == 1 else 'are'} there"
    )
