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
    gate: bulk.Gate = None,
    gate_reference: bulk.GateReference = None,
    dry_run: bulk.DryRun = False,
    budget_check: bulk.BudgetCheck = True,
    workers: bulk.Workers = None,
    shard_range: bulk.ShardRange = None,
    runner: bulk.Runner = "local",
    ray_address: bulk.RayAddress = None,
    ray_actors: bulk.RayActors = None,
) -> None:
    """Generate slices in bulk: every one of them, once each, resumable at any moment."""
    from fastmrigan.jobs.output import Output
    from fastmrigan.jobs.spec import Engine, JobSpec, Sampled

    cluster = bulk.ray_options(runner, ray_address, ray_actors, workers)
    engine = Engine(model, backend, precision, threads, batch, mode)
    output = Output(out, format, shard_size, dtype)
    gated = bulk.gate_options(gate, gate_reference)
    spec = JobSpec(engine, Sampled(count, seed), output, gated, shard_range)
    bulk.run_job(spec, dry_run=dry_run, budget_check=budget_check, workers=workers, cluster=cluster)
