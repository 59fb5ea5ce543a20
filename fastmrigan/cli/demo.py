"""`fastmrigan demo`: the whole path on the phantom, each step the command a user would type."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from fastmrigan import NOTICE

SLICES = 5_000
NEEDS = ("torch", "tensorboard", "matplotlib", "scipy", "onnx", "onnxscript", "onnxruntime")
RECORD = "demo.json"  # in its folder: the commands that have ended, of
KEPT = ("phantom", "prepare")  # those that would begin anew; the others go on by themselves
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NEXT = (
    "fastmrigan prepare MY_SLICES --out mine --size 64 --label tumour",
    "fastmrigan train tumour-dcgan64 --data mine --out mine-run --set precision=bf16 --minutes 60",
    "fastmrigan export mine-run --out mine.onnx && fastmrigan synth mine.onnx --count 5000 "
    "--out mine-slices",
)


def steps(out: Path) -> list[list[str]]:
    """The commands, in order."""
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
    """Run the whole path on phantom slices: train, export, generate 5,000, evaluate.

    Interrupted, the same command goes on where it stopped.
    """
    check_packages()
    began = time.monotonic()
    lines = {}
    ended = whole_so_far(out)
    for command in steps(out):
        print(f"\n$ fastmrigan {shlex.join(command)}", flush=True)
        if command in ended:
            print("(made before)", flush=True)
            continue
        started = time.monotonic()
        lines[command[0]] = run_step(command)
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
        if command[0] in KEPT:
            ended.append(command)
            note_whole(out, ended)
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


def check_packages() -> None:
    """Raises MissingDependency now, and not once the phantom is made."""
    from importlib.util import find_spec

    from fastmrigan.errors import MissingDependency

    for package in NEEDS:
        if find_spec(package) is None:
            raise MissingDependency(package, "train,export", "fastmrigan demo")


def whole_so_far(out: Path) -> list[list[str]]:
    """Of KEPT, the first commands that an earlier demo in `out` has ended, and whose results are
    there."""
    try:
        ended = json.loads((out / RECORD).read_bytes())
    except (OSError, ValueError):
        return []
    whole = []
    for command in steps(out):
        made = Path(command[command.index("--out") + 1])
        if not isinstance(ended, list) or command not in ended or not made.exists():
            break
        whole.append(command)
    return whole


def note_whole(out: Path, ended: list[list[str]]) -> None:
    from fastmrigan.files import write_whole

    write_whole(out / RECORD, (json.dumps(ended, indent=1) + "\n").encode())


def run_step(command: list[str]) -> list[str]:
    """Runs one command in a process of its own, shows what it prints, and returns that.

    After a signal it waits for what the command saves. The command has a process group of its own,
    since a terminal sends Ctrl-C to all of one: a second signal would end it at once.
    """
    from fastmrigan.errors import EXIT_INTERRUPTED

    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "fastmrigan", *command],
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    printed = []
    with passing_signals_on(process) as passed_on, process.stdout:
        for line in process.stdout:
            print(line, end="", flush=True)
            printed.append(line.rstrip("\n"))
        code = process.wait()
    if passed_on:
        raise typer.Exit(EXIT_INTERRUPTED)
    if code != 0:
        raise typer.Exit(code)
    return printed


@contextmanager
def passing_signals_on(process: subprocess.Popen[str]) -> Iterator[list[int]]:
    """Signals go to the process instead; which came. An error here ends it."""
    came: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        process.terminate()

    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, pass_on) for number in heeded}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process.poll() is None:
            process.terminate()
            process.wait()
