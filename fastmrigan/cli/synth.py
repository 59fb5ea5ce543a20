from __future__ import annotations

from typing import Annotated

import typer

from fastmrigan.cli import bulk


def synth(
    model: bulk.Model,
    out: bulk.Out,
    count: Annotated[int, typer.Option(help="How many slices.")],
    seed: Annotated[int, typer.Option(help="Slice i depends on the model, the seed and i.")] = 0,
    format: bulk.Format = "shard",
    shard_size: bulk.ShardSize = 256,
    dtype: bulk.Dtype = None,
    backend: bulk.Backend = "auto",
    precision: bulk.Precision = "auto",
    batch: bulk.Batch = 64,
    threads: bulk.Threads = None,
    mode: bulk.Mode = "throughput",
) -> None:
    """Generate slices in bulk: every one of them, once each, resumable at any moment."""
    from fastmrigan.runtime.generator import load
    from fastmrigan.runtime.job import JobOptions, synthesise

    options = JobOptions(out, count, seed, format, shard_size, dtype)
    options.check()
    generator = load(model, backend, precision=precision, threads=threads, batch=batch, mode=mode)
    print(bulk.engine_line(generator))
    print(bulk.result_line(out, synthesise(generator, options)))
