"""`fastmrigan demo`: the whole path on the phantom, each step the command a user would type."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from fastmrigan import NOTICE

SLICES = 5_000
NEXT = (
    "fastmrigan prepare MY_SLICES --out mine --size 64 --label tumour",
    "fastmrigan train tumour-dcgan64 --data mine --out mine-run --set precision=bf16 --minutes 60",
    "fastmrigan export mine-run --out mine.onnx && fastmrigan synth mine.onnx --count 5000 "
    "--out mine-slices",
)


def steps(out: Path) -> list[list[str]]:
    """The commands, in order; each one goes on where an earlier demo in `out` stopped."""
    folder = f"./{out}" if str(out).startswith("-") else str(out)  # never taken for an option
    quoted = shlex.quote(folder)
    phantom, data, run, model, slices = (
        f"{quoted}/{name}" for name in ("phantom", "data", "run", "model.onnx", "slices")
    )
    labelled = "--size 64 --contrast t2 --group-pattern '(head[0-9]+)_'"
    commands = (
        f"phantom --count 4500 --size 64 --contrast t2 --tumour 0.6667 --out {phantom}",
        f"prepare {phantom}/t2 --out {data} {labelled}",
        f"train phantom-quick --data {data} --out {run} --set label=tumour",
        f"export {run} --out {model}",
        f"synth {model} --count {SLICES} --seed 7 --out {slices}",
        f"evaluate --real {data} --synthetic {slices} --run {run} --classifier-data {data} "
        f"--out {quoted}/report.html",
    )
    return [shlex.split(command) for command in commands]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for all that the demo makes.")] = Path("demo"),
) -> None:
    """Run the whole path on phantom slices: train, export, generate 5,000, evaluate."""
    began = time.monotonic()
    lines = {}
    for command in steps(out):
        print(f"\n$ fastmrigan {shlex.join(command)}", flush=True)
        started = time.monotonic()
        lines[command[0]] = run_step(command)
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
    print(
        f"\nMade in {time.monotonic() - began:.0f} s, {NOTICE}:\n"
        f"  {out / 'report.html'}  open it in a browser\n"
        f"  {out / 'slices'}  {SLICES:,} synthetic tumour slices in shards\n"
        f"  {out / 'model.onnx'}  the generator that made them\n"
        f"  {lines['synth'][-1]}\n"
        "Next, on slices of your own:"
    )
    if shutil.which("fastmrigan") is None:
        print(f"  (first: source {shlex.quote(str(Path(sys.prefix) / 'bin' / 'activate'))})")
    for number, command in enumerate(NEXT, 1):
        print(f"  {number}. {command}")


def run_step(command: list[str]) -> list[str]:
    """Runs one command in a process of its own, shows what it prints, and returns that."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "fastmrigan", *command], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        print(line, end="", flush=True)
        printed.append(line.rstrip("\n"))
    code = process.wait()
    if code != 0:
        raise typer.Exit(code)
    return printed
