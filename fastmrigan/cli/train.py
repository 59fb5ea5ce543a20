"""`fastmrigan train`: a recipe and a prepared dataset to a run folder."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from fastmrigan.cli.freed_memory import KeepFreedMemory


def train(
    recipe: Annotated[
        str, typer.Argument(help="A shipped recipe's name, or the path of a YAML file.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Prepared dataset (the --out of `fastmrigan prepare`).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; a run begun there is resumed.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value for a recipe's field."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Stop at this step instead of the recipe's.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Stop at this epoch instead of the recipe's.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help="Stop after these minutes of this call.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")
    ] = "auto",
    keep_freed_memory: KeepFreedMemory = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved recipe and stop; needs no data.")
    ] = False,
) -> None:
    """Train a recipe on prepared slices; the first bound reached ends the run."""
    from fastmrigan.errors import MissingDependency, UsageError

    try:
        import torch
    except ImportError as error:
        raise MissingDependency("torch", "train", "fastmrigan train") from error

    from fastmrigan.training.recipe import load_recipe

    overrides = list(set_ or [])
    overrides += [f"steps={steps}"] if steps is not None else []
    overrides += [f"epochs={epochs}"] if epochs is not None else []
    resolved = load_recipe(recipe, overrides)

    if dry_run:
        from fastmrigan.training.networks import initial_networks, parameter_count

        generator, discriminator = initial_networks(resolved)
        print(resolved.to_yaml(), end="")
        print(f"# generator: {parameter_count(generator):,} parameters")
        print(f"# discriminator: {parameter_count(discriminator):,} parameters")
        return
    if data is None or out is None:
        missing = " and ".join(n for n, v in (("--data", data), ("--out", out)) if v is None)
        raise UsageError(f"train: {missing} missing; only --dry-run goes without")
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device!r}: expected auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this torch finds no CUDA device; use --device cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"

    from fastmrigan.ops import memory
    from fastmrigan.training.data import load_training_data
    from fastmrigan.training.loop import train as run_training

    memory.keep_freed_memory(keep_freed_memory)
    slices = load_training_data(data, resolved)
    print(
        f"train: {resolved.name} on {slices.count:,} slices, {device}, {resolved.precision}, "
        f"{torch.get_num_threads()} threads",
        file=sys.stderr,
    )
    result = run_training(
        resolved,
        slices,
        out,
        minutes=minutes,
        device=device,
        resume_command=shlex.join(["fastmrigan", *sys.argv[1:]]),
    )
    if result.steps_now == 0:
        print(f"{out}: already at step {result.step:,}; give more --steps or --epochs to go on")
    else:
        print(
            f"{out}: step {result.step:,} (epoch {result.epoch:,.1f}), {result.steps_now:,} steps "
            f"in {result.seconds_now:,.0f} s ({result.step_seconds:.3f} s a step)"
        )
    print(f"next: fastmrigan export {shlex.quote(str(out))} --out model.onnx")
