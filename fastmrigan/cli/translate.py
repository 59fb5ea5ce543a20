"""`fastmrigan translate`: slices of one contrast to another, in bulk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastmrigan.cli import bulk


def translate(
    model: bulk.Model,
    inputs: Annotated[
        Path,
        typer.Option(
            help="Prepared dataset of source slices; of a paired one, its SRC side. Or a folder of "
            "DICOM, NIfTI or pictures: every slice of it is prepared first, in OUT/inputs."
        ),
    ],
    out: bulk.Out,
    split: Annotated[str, typer.Option(help="all, train, test or guard.")] = "all",
    label: Annotated[
        str | None,
        typer.Option(help="Only slices of this label; default: all, those of the target too."),
    ] = None,
    format: bulk.Format = "shard",
    shard_size: bulk.ShardSize = 256,
    dtype: bulk.Dtype = None,
    backend: bulk.Backend = "auto",
    precision: bulk.Precision = "auto",
    batch: bulk.Batch = 8,
    threads: bulk.Threads = None,
    mode: bulk.Mode = "throughput",
    gate: bulk.Gate = None,
    gate_reference: bulk.GateReference = None,
    allow_burned_in: Annotated[
        str,
        typer.Option(
            help="Of a folder of DICOM: no quarantines files whose BurnedInAnnotation is YES or "
            "absent; unknown allows absent ones; yes allows all."
        ),
    ] = "no",
    dry_run: bulk.DryRun = False,
    budget_check: bulk.BudgetCheck = True,
    workers: bulk.Workers = None,
    shard_range: bulk.ShardRange = None,
    runner: bulk.Runner = "local",
    ray_address: bulk.RayAddress = None,
    ray_actors: bulk.RayActors = None,
) -> None:
    """Translate slices in bulk: slice i of the output is input i, resumable at any moment.

    Each slice's record names the input it was made of: its index and hash in the dataset.
    """
    from fastmrigan.jobs.output import Output
    from fastmrigan.jobs.spec import Engine, JobSpec, Translated

    cluster = bulk.ray_options(runner, ray_address, ray_actors, workers)
    engine = Engine(model, backend, precision, threads, batch, mode)
    output = Output(out, format, shard_size, dtype)
    gated = bulk.gate_options(gate, gate_reference)
    sources = Translated(inputs, split, label, allow_burned_in)
    spec = JobSpec(engine, sources, output, gated, shard_range)
    bulk.run_job(spec, dry_run=dry_run, budget_check=budget_check, workers=workers, cluster=cluster)
