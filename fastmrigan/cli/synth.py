from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def synth(
    model: Annotated[Path, typer.Argument(help="A model file written by `fastmrigan export`.")],
    out: Annotated[Path, typer.Option(help="Folder for the slices; resumed if it has some.")],
    count: Annotated[int, typer.Option(help="How many slices.")],
    seed: Annotated[int, typer.Option(help="Slice i depends on the model, the seed and i.")] = 0,
    format: Annotated[str, typer.Option(help="shard (WebDataset tar), png or npz.")] = "shard",
    shard_size: Annotated[int, typer.Option(help="Slices a shard.")] = 256,
    dtype: Annotated[str, typer.Option(help="uint8 or uint16.")] = "uint8",
    backend: Annotated[str, typer.Option(help="auto, openvino, onnxruntime, …")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    batch: Annotated[int, typer.Option(help="Slices an engine call.")] = 64,
    threads: Annotated[int | None, typer.Option(help="Default: all this process may use.")] = None,
) -> None:
    """Generate slices in bulk: every one of them, once each, resumable at any moment."""
    from fastmrigan.runtime.generator import load
    from fastmrigan.runtime.job import JobOptions, synthesise

    options = JobOptions(out, count, seed, format, shard_size, dtype)
    options.check()
    generator = load(model, backend, precision=precision, threads=threads, batch=batch)
    engine = generator.backend
    print(
        f"{engine.name} {engine.version} in {engine.precision} on {engine.device}, "
        f"{engine.threads} threads ({generator.reason})"
    )
    result = synthesise(generator, options)
    rate = f", {result.made / result.seconds:,.0f} slices/s" if result.made else ""
    print(f"{out}: {result.slices:,} slices, {result.made:,} made now{rate}")
