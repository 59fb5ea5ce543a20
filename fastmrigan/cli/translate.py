"""`fastmrigan translate`: prepared slices of one contrast to another, in bulk."""

from __future__ import annotations

import sys
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
) -> None:
    """Translate prepared slices in bulk: slice i of the output is input i, resumable at any moment.

    Each slice's record names the input it was made of: its index and hash in the dataset.
    """
    from fastmrigan.imaging.dataset import PreparedDataset
    from fastmrigan.runtime.engine_file import read_model
    from fastmrigan.runtime.generator import Generator
    from fastmrigan.runtime.job import Output
    from fastmrigan.runtime.translation import check_inputs, contrast_mismatch
    from fastmrigan.runtime.translation import translate as run_translation

    output = Output(out, format, shard_size, dtype)
    output.check()
    dataset = PreparedDataset.open(inputs)
    file = read_model(model)
    check_inputs(file, dataset)  # before the engine, which may take its time
    mismatch = contrast_mismatch(file, dataset)
    if mismatch is not None:
        print(f"warning: {mismatch}", file=sys.stderr)
    generator = Generator(
        file, backend=backend, precision=precision, threads=threads, batch=batch, mode=mode
    )
    print(bulk.engine_line(generator))
    result = run_translation(generator, dataset, output, split=split, label=label)
    print(bulk.result_line(out, result))
