"""`fastmrigan translate`: prepared slices of one contrast to another, in bulk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastmrigan.cli import bulk


def translate(
    model: bulk.Model,
    inputs: Annotated[
        Path,
        typer.Option(help="Prepared dataset of source slices; of a paired one, its SRC side."),
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
    workers: bulk.Workers = None,
) -> None:
    """Translate prepared slices in bulk: slice i of the output is input i, resumable at any moment.

    Each slice's record names the input it was made of: its index and hash in the dataset.
    """
    from fastmrigan.jobs.output import Output
    from fastmrigan.jobs.spec import Engine, JobSpec, Translated

    engine = Engine(model, backend, precision, threads, batch, mode)
    output = Output(out, format, shard_size, dtype)
    bulk.run_job(JobSpec(engine, Translated(inputs, split, label), output), workers)
