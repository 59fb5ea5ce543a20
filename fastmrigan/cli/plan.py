"""What `--dry-run` prints of a job."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fastmrigan.progress import counted, duration

if TYPE_CHECKING:
    from fastmrigan.jobs.inputs import PreparedInputs
    from fastmrigan.jobs.ready import Ready


def show_plan(
    job: Ready, after: float = 0.0, *, workers: int | None = None, here: bool = True
) -> float:
    """Prints the plan of a job and when it would end, if it began in `after` seconds; the seconds
    that it would take.

    workers: processes that share it, each with an engine as the job has it; None is this one.
    here: false where other machines make it, whose engines are neither known nor measured.
    """
    from fastmrigan.jobs import budget
    from fastmrigan.jobs.spec import Sampled

    output, plan, todo = job.spec.output, job.plan, job.todo
    meta, inputs = job.model.metadata, job.spec.inputs
    height, width = meta.slice_size
    print(f"plan of {output.out}:")
    line("model", f"{job.model.path} ({meta.task}, {meta.recipe})")
    line("slices", f"{job.count:,} of {height}x{width}, {output.depth}; {job.done:,} done")
    if isinstance(inputs, Sampled):
        line("seed", f"{inputs.seed}")
    elif job.images is None:
        of = f", label {inputs.label}" if inputs.label is not None else ""
        line("inputs", f"{inputs.inputs}, split {inputs.split}{of}")
    else:
        line("inputs", images_line(job.images))
    of_size = "" if output.format == "nifti" else f" of {output.shard_size:,}"
    line("shards", f"{len(plan):,}{of_size} as {output.format}; {len(todo):,} to make")
    most = "at most " if output.format in budget.COMPRESSED else ""
    room = budget.room_of(output.out)
    takes = f"{counted(job.need.files, 'file')}, {most}{budget.amount(job.need.disk)}"
    line("disk", f"{takes}; {budget.amount(room.disk)} free")
    seconds = job.images.seconds if job.images is not None else 0.0
    if todo and not here:
        line("engine", "opened on the nodes of the cluster alone, which a dry run does not ask")
        line("end", "not told: it depends on these nodes")
        return seconds
    if todo:
        seconds += (job.count - job.done) / measured(job, workers)
    end = datetime.now().astimezone() + timedelta(seconds=after + seconds)
    line("end", f"after {duration(seconds)}, at {end:%Y-%m-%d %H:%M:%S %z}, if it began now")
    return seconds


def measured(job: Ready, workers: int | None) -> float:
    """Prints the engine of a job, and what it makes in a moment; slices/s of all `workers`."""
    from fastmrigan.cli.bulk import engine_line, workers_line
    from fastmrigan.jobs import quarantine
    from fastmrigan.jobs.forecast import at_once, forecast
    from fastmrigan.jobs.job import Job
    from fastmrigan.jobs.run import agrees

    output, todo, engine = job.spec.output, job.todo, job.spec.engine
    generator = engine.open(job.model)
    skipped = quarantine.read(output.out)
    begun = Job(job.work, output, generator, skipped, job.spec.open_gate(job.model))
    agrees(output.out, job.work.task, begun.pinned)
    told = forecast(begun, todo, many=at_once(engine, workers, len(todo)))
    of = f"of {told.measured:.1f} s and one shard"
    if workers is None:
        line("engine", engine_line(generator))
        by = f"{told.engine:,.1f} slices/s by the engine, {told.writing:,.1f} by the writer, {of}"
    else:
        size = min(workers, len(todo))  # no more are started
        line("engine", workers_line(size, engine_line(generator)))
        by = (
            f"{told.engine:,.1f} slices/s by an engine, {told.writing:,.1f} slices/s by a writer, "
            f"{of}; {told.rate:,.1f} slices/s by all workers, if none waits for another's disk"
        )
    line("rate", by)
    return told.rate


def images_line(images: PreparedInputs) -> str:
    rejects = [*images.refused, *images.quarantined]
    when = f"prepared in {duration(images.seconds)}" if images.seconds else "prepared before"
    refused = counted(len(images.refused), "file")
    counts = f"{refused} refused, {len(images.quarantined):,} quarantined"
    told = f"; {counts}, such as {rejects[0]}" if rejects else ""
    return f"{images.source}, every slice, {when}{told}"


def line(name: str, text: str) -> None:
    print(f"  {name:7} {text}")
