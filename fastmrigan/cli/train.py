"""`fastmrigan train`: a recipe and a prepared dataset to a run folder."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastmrigan.cli.freed_memory import KeepFreedMemory
from fastmrigan.progress import counted

if TYPE_CHECKING:
    from fastmrigan.training.data import TrainingData


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A shipped recipe's name, e.g. tumour-dcgan64 (any other word prints them all), "
            "or the path of a YAML file."
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Prepared dataset (the --out of `fastmrigan prepare`).")
    ] = None,
    source_data: Annotated[
        Path | None,
        typer.Option(
            help="Translation: prepared dataset of the source slices, where --data holds the "
            "target's alone."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; a run begun there is resumed.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another value for a recipe's field, e.g. --set batch=16 --set "
            "generator.width=32; --dry-run prints every field.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Stop at this step instead of the recipe's.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Stop at this epoch instead of the recipe's.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Stop after these minutes of this call; the same command goes on."
        ),
    ] = None,
    fidelity: Annotated[
        str | None,
        typer.Option(
            help="reference: the published schedule to the letter, a last epoch at learning rate "
            "0 included; corrected: without that."
        ),
    ] = None,
    speed: Annotated[
        bool | None,
        typer.Option(
            "--speed/--no-speed",
            help="The same mathematics in fewer passes, or the reference's order [default: the "
            "recipe's, which is --speed].",
        ),
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

    from fastmrigan.training.recipe_file import load_recipe

    overrides = list(set_ or [])
    overrides += [f"steps={steps}"] if steps is not None else []
    overrides += [f"epochs={epochs}"] if epochs is not None else []
    overrides += [f"fidelity={fidelity}"] if fidelity is not None else []
    overrides += [f"speed={str(speed).lower()}"] if speed is not None else []
    resolved = load_recipe(recipe, overrides)

    if dry_run:
        from fastmrigan.training.networks import parameter_count
        from fastmrigan.training.systems import system_of

        print(resolved.to_yaml(), end="")
        for name, network in system_of(resolved).make(resolved).items():
            print(f"# {name}: {parameter_count(network):,} parameters")
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
    from fastmrigan.training.distributed import ranks_of_this_run
    from fastmrigan.training.loading import load_training_data
    from fastmrigan.training.loop import train as run_training
    from fastmrigan.training.step_graph import why_no_graph

    memory.keep_freed_memory(keep_freed_memory)
    with ranks_of_this_run(device) as ranks:
        slices = load_training_data(data, resolved, source_data=source_data, world=ranks.world)
        if ranks.first:
            several = f", {ranks.world} processes" if ranks.world > 1 else ""
            threads = counted(torch.get_num_threads(), "thread")
            print(
                f"train: {resolved.name} on {described(slices)}, {device}, {resolved.precision}, "
                f"{threads}{several}",
                file=sys.stderr,
            )
            if resolved.task == "sample" and slices.info["label"] is None:
                warn_of_labels(data, slices.info["labels"])
            if device == "cuda":
                why = why_no_graph(resolved, ranks)
                said = f"no CUDA graph of the step: {why}"
                if why is None:
                    said = "each step is replayed as one CUDA graph"
                print(f"train: {said}", file=sys.stderr)
        result = run_training(
            resolved,
            slices,
            out,
            minutes=minutes,
            device=f"cuda:{ranks.local}" if device == "cuda" else device,
            resume_command=shlex.join([*launcher(ranks.world), *sys.argv[1:]]),
            ranks=ranks,
        )
    if not ranks.first:
        return
    if result.steps_now == 0:
        print(f"{out}: already at step {result.step:,}; give more --steps or --epochs to go on")
    else:
        steps = counted(result.steps_now, "step")
        print(
            f"{out}: step {result.step:,} (epoch {result.epoch:,.1f}), {steps} in "
            f"{result.seconds_now:,.0f} s ({result.step_seconds:.3f} s a step)"
        )
        total = sum(result.phases.values())
        shares = sorted(result.phases.items(), key=lambda phase: -phase[1])
        print("time: " + ", ".join(f"{name} {spent / total:.0%}" for name, spent in shares))
    print(f"look at {out / 'run.html'}")
    bound = resolved.total_steps(slices.count, ranks.world)
    if resolved.system == "progan" and bound is not None and result.step < bound:
        print(f"next: the same command, until it is grown at step {bound:,}")
    else:
        print(f"next: fastmrigan export {shlex.quote(str(out))} --out model.onnx")


def warn_of_labels(data: Path, labels: Mapping[str, int]) -> None:
    """A generator of tumours learns little from slices that have none."""
    from fastmrigan.imaging.walker import printable

    if len(labels) > 1:
        counts = ", ".join(f"{name or '(no label)'} {n:,}" for name, n in labels.items())
        print(
            f"warning: {data}: slices of {len(labels):,} labels are trained on together "
            f"({printable(counts)}); --set label=NAME takes those of one",
            file=sys.stderr,
        )


def launcher(processes: int) -> list[str]:
    """The words before the command's own."""
    if processes == 1:
        return ["fastmrigan"]
    return ["torchrun", "--nproc-per-node", str(processes), "-m", "fastmrigan"]


def described(data: TrainingData) -> str:
    """E.g. "600 source and 620 target slices"."""
    if data.sources is None:
        return counted(len(data.slices), "slice")
    if data.paired:
        return counted(len(data.slices), "pair of slices", "pairs of slices")
    return f"{len(data.sources):,} source and {counted(len(data.slices), 'target slice')}"
