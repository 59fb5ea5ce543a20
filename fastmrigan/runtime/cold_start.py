"""From the start of a fresh process to its first slice, phase by phase."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from fastmrigan.progress import Progress
from fastmrigan.runtime.backends import BACKENDS
from fastmrigan.runtime.backends.openvino_package import openvino_package
from fastmrigan.runtime.engine_file import read_model
from fastmrigan.runtime.generator import Generator
from fastmrigan.runtime.latency_figures import median
from fastmrigan.runtime.machine import peak_memory_mb

PHASES = ("start", "import", "load", "compile", "first")
COLD_START = (
    "import sys, time; began = time.monotonic_ns(); "
    "from fastmrigan.runtime.cold_start import child; child(began, sys.argv[1:])"
)


def cold_starts(
    path: Path,
    names: Sequence[str],
    processes: int,
    precision: str,
    threads: int | None,
    progress: Progress,
) -> list[dict[str, Any]]:
    """`processes` fresh processes a backend, backends in turn; a record each, of medians.

    start: the interpreter; import: fastmrigan's runtime and the engine; load: read and check the
    file; compile: at batch 1; first: one slice. The files are in the system's cache by then.
    peak_mb: resident memory of such a process at its largest.
    """
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(processes):
        for name in names:
            runs[name].append(_cold_start(path, name, precision, threads))
            progress.advance(note=f"cold start, {name}")
    return [
        {
            "backend": name,
            "processes": len(found),
            **{f"{p}_ms": round(median([run[p] for run in found]), 2) for p in PHASES},
            "total_ms": round(median([sum(run[p] for p in PHASES) for run in found]), 2),
            "peak_mb": round(median([run["peak_mb"] for run in found]), 1),
        }
        for name, found in runs.items()
        if found
    ]


def _cold_start(path: Path, name: str, precision: str, threads: int | None) -> dict[str, float]:
    """{phase: ms} of one fresh process, and its peak_mb."""
    import subprocess  # here, since the child must not pay for it

    arguments = [str(path), name, precision, str(threads or 0)]
    spawned = time.monotonic_ns()  # one clock for all processes of a machine
    process = subprocess.run(
        [sys.executable, "-P", "-c", COLD_START, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        last = process.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RuntimeError(f"the cold start of {name} ended with {process.returncode}: {last[0]}")
    told = json.loads(process.stdout.splitlines()[-1])
    marks: list[int] = [spawned, *told["marks"]]
    spans = {p: (b - a) / 1e6 for p, (a, b) in zip(PHASES, pairwise(marks), strict=True)}
    return spans | {"peak_mb": told["peak_mb"]}


def child(began: int, arguments: list[str]) -> None:
    """Runs in the fresh process; prints the monotonic nanoseconds at the end of each phase."""
    path, name, precision, threads = arguments
    if name == "openvino":
        openvino_package()  # as the backend imports it
    else:
        import_module(BACKENDS[name].package)
    marks = [began, time.monotonic_ns()]
    model = read_model(path)
    marks.append(time.monotonic_ns())
    generator = Generator(
        model, backend=name, precision=precision, threads=int(threads) or None, batch=1
    )
    marks.append(time.monotonic_ns())
    if model.metadata.task == "sample":
        generator.sample(1)
    else:
        from fastmrigan.runtime.latency_rows import bench_input

        generator.translate(bench_input(model.metadata, 1)[:, 0])
    marks.append(time.monotonic_ns())
    print(json.dumps({"marks": marks, "peak_mb": peak_memory_mb()}))
