"""How long a slice takes: cold start in fresh processes, then calls one after another.

What is timed is the engine's own call (`Backend.run`) on one fixed input, closed loop: the next
call starts when the last one ends. Backends take turns in rounds within one run, so that a change
of the machine's load meets all of them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fastmrigan import __version__
from fastmrigan.errors import CheckFailed, MissingDependency, UsageError
from fastmrigan.progress import Progress
from fastmrigan.runtime.backends import BACKENDS, Backend, BackendOptions, installed, open_backend
from fastmrigan.runtime.backends.base import Float32
from fastmrigan.runtime.generator import Generator
from fastmrigan.runtime.latents import normal_latents
from fastmrigan.runtime.machine import cpu_seconds, machine
from fastmrigan.runtime.model_file import ModelFile, ModelMetadata, read_model_file

SCHEMA_VERSION = 1
KIND = "fastmrigan-bench"
SHORTEST, LONGEST = 0.001, 86_400  # seconds of timed calls
TAIL_NEEDS = 1000  # calls below which p99.9 would be little more than the largest one
PHASES = ("start", "import", "load", "compile", "first")
AGREEMENT = 1e-3  # fp32 engines further apart than this are not doing the same work
COLD_START = (
    "import sys, time; began = time.monotonic_ns(); "
    "from fastmrigan.runtime.latency import cold_start_child; cold_start_child(began, sys.argv[1:])"
)


@dataclass(frozen=True)
class BenchOptions:
    """What is measured, and for how long."""

    backends: tuple[str, ...] = ()  # names; empty: all that run here
    batches: tuple[int, ...] = (1, 8, 64)
    seconds: float = 5.0  # of timed calls for each backend and batch
    rounds: int = 5  # turns those seconds are cut into
    threads: int | None = None  # None: as many as this process may use
    precision: str = "auto"
    cold_starts: int = 3  # fresh processes a backend; their median is reported


@dataclass
class Samples:
    """The calls of one backend at one batch size."""

    engine: Backend
    difference: float  # max abs, from the first backend's slices
    call_ms: list[float] = field(default_factory=list)
    rounds: list[dict[str, float]] = field(default_factory=list)


def bench(path: Path, options: BenchOptions) -> dict[str, Any]:
    """Measures a model file and returns one JSON-ready document.

    Milliseconds throughout: `call_ms` is what one call takes, which every slice of its batch
    waits for; `slice_ms` is a call divided by its batch. Raises UsageError for an unknown backend
    or senseless options, MissingDependency for a named backend that is not installed, and
    CheckFailed where two fp32 engines make different slices.
    """
    check(options)
    model = read_model_file(path)
    names, left_out = usable_backends(model, options)
    began = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    slots = len(names) * (options.cold_starts + options.rounds * len(options.batches))
    with Progress("bench", slots, "turns") as progress:
        cold = cold_starts(path, names, options, progress)
        calls = [
            record
            for batch in options.batches
            for record in measure(model, names, batch, options, progress)
        ]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "began": began,
        "fastmrigan": __version__,
        "model": {
            "file": path.name,
            "sha256": model.sha256,
            **model.metadata.model_dump(mode="json", include={"task", "recipe", "slice_size"}),
        },
        "machine": machine(),
        "settings": {
            "seconds": options.seconds,
            "rounds": options.rounds,
            "threads": options.threads,
            "precision": options.precision,
        },
        "left_out": left_out,
        "cold_start": cold,
        "measurements": calls,
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def check(options: BenchOptions) -> None:
    """Raises UsageError for senseless options; needs no model file."""
    if not options.batches or min(options.batches) < 1:
        raise UsageError("bench: batch sizes are positive numbers, e.g. --batch 1,8,64")
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"bench: threads {options.threads}: expected at least 1")
    if not SHORTEST <= options.seconds <= LONGEST:
        raise UsageError(
            f"bench: seconds {options.seconds:g}: expected {SHORTEST:g} to {LONGEST} (a day)"
        )
    for name in options.backends:
        if name not in BACKENDS:
            raise UsageError(
                f"bench: backend {name!r} is unknown; choose all or from {', '.join(BACKENDS)}"
            )


def usable_backends(model: ModelFile, options: BenchOptions) -> tuple[list[str], dict[str, str]]:
    """The backends to measure, and why each other one is left out.

    Named ones must run, or their error is raised; left to choose, every one that runs here is taken
    and the rest come back with their reason.
    """
    setting = BackendOptions(1, options.precision, options.threads)
    if options.backends:
        for name in options.backends:
            if not installed(name):
                cls = BACKENDS[name]
                raise MissingDependency(cls.package, cls.extra, f"backend {name}")
            open_backend(model, name, setting)
        return list(dict.fromkeys(options.backends)), {}
    names, left_out = [], {}
    for name, cls in BACKENDS.items():
        if not installed(name):
            left_out[name] = f"not installed: pip install 'fastmrigan[{cls.extra}]'"
            continue
        try:
            open_backend(model, name, setting)
        except UsageError as error:
            left_out[name] = str(error)
        else:
            names.append(name)
    if not names:
        raise UsageError(
            "bench: no backend runs here: " + "; ".join(f"{k}: {v}" for k, v in left_out.items())
        )
    return names, left_out


def cold_starts(
    path: Path, names: Sequence[str], options: BenchOptions, progress: Progress
) -> list[dict[str, Any]]:
    """From the start of a fresh process to its first slice, phase by phase, backends in turn.

    start: the interpreter; import: fastmrigan's runtime and the engine; load: read and check the
    file; compile: at batch 1; first: one slice. The files are in the system's cache by then.
    """
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.cold_starts):
        for name in names:
            runs[name].append(_cold_start(path, name, options))
            progress.advance(note=f"cold start, {name}")
    return [
        {
            "backend": name,
            "processes": len(found),
            **{f"{p}_ms": round(_median([run[p] for run in found]), 2) for p in PHASES},
            "total_ms": round(_median([sum(run.values()) for run in found]), 2),
        }
        for name, found in runs.items()
        if found
    ]


def _cold_start(path: Path, name: str, options: BenchOptions) -> dict[str, float]:
    """{phase: ms} of one fresh process."""
    import subprocess  # here, since the child must not pay for it

    arguments = [str(path), name, options.precision, str(options.threads or 0)]
    spawned = time.monotonic_ns()  # one clock for all processes of a machine
    child = subprocess.run(
        [sys.executable, "-P", "-c", COLD_START, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode != 0:
        last = child.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RuntimeError(f"the cold start of {name} ended with {child.returncode}: {last[0]}")
    marks: list[int] = [spawned, *json.loads(child.stdout.splitlines()[-1])]
    return {p: (b - a) / 1e6 for p, (a, b) in zip(PHASES, pairwise(marks), strict=True)}


def cold_start_child(began: int, arguments: list[str]) -> None:
    """Runs in the fresh process; prints the monotonic nanoseconds at the end of each phase."""
    path, name, precision, threads = arguments
    import_module(BACKENDS[name].package)
    marks = [began, time.monotonic_ns()]
    model = read_model_file(path)
    marks.append(time.monotonic_ns())
    generator = Generator(
        model, backend=name, precision=precision, threads=int(threads) or None, batch=1
    )
    marks.append(time.monotonic_ns())
    if model.metadata.task == "sample":
        generator.sample(1)
    else:
        generator.translate(bench_input(model.metadata, 1)[:, 0])
    marks.append(time.monotonic_ns())
    print(json.dumps(marks))


def measure(
    model: ModelFile, names: Sequence[str], batch: int, options: BenchOptions, progress: Progress
) -> list[dict[str, Any]]:
    """Times `names` against each other at one batch size; one record a backend."""
    x = bench_input(model.metadata, batch)
    setting = BackendOptions(batch, options.precision, options.threads)
    found: dict[str, Samples] = {}
    reference: Backend | None = None
    expected = np.empty(0, np.float32)
    for name in names:
        engine = open_backend(model, name, setting)
        slices = engine.run(x)
        if reference is None:
            reference, expected = engine, slices
        apart = float(np.abs(slices - expected).max())
        both_fp32 = engine.precision == reference.precision == "fp32"
        if not np.isfinite(slices).all() or (both_fp32 and not apart <= AGREEMENT):
            raise CheckFailed(
                f"{model.path}: {name} makes slices {apart:.3g} away from {reference.name}'s at "
                f"batch {batch} (at most {AGREEMENT:g}); timings of different work mean nothing"
            )
        found[name] = Samples(engine, apart)
    for turn in range(options.rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            _round(found[name], x, options.seconds / options.rounds)
            progress.advance(note=f"{name}, batch {batch}")
    return [_record(samples, batch) for samples in found.values()]


def _round(samples: Samples, x: Float32, seconds: float) -> None:
    """One turn of a backend: two calls to settle in after the other one, then timed calls."""
    run = samples.engine.run
    run(x)
    run(x)
    taken: list[int] = []
    busy, own = cpu_seconds(), time.process_time()
    began = time.perf_counter_ns()
    end = began + int(seconds * 1e9)
    now = began
    while now < end:
        run(x)
        after = time.perf_counter_ns()
        taken.append(after - now)
        now = after
    wall = (now - began) / 1e9
    own = time.process_time() - own
    call_ms = [t / 1e6 for t in taken]
    samples.call_ms += call_ms
    samples.rounds.append(
        {
            "calls": len(taken),
            "p50_ms": _median(call_ms),
            "load_average": os.getloadavg()[0],
            "cpus_used": own / wall,
            "cpus_used_by_others": max(0.0, (cpu_seconds() - busy - own) / wall),
        }
    )


def _record(samples: Samples, batch: int) -> dict[str, Any]:
    calls = np.array(samples.call_ms)
    loads = [r["load_average"] for r in samples.rounds]
    others = [r["cpus_used_by_others"] for r in samples.rounds]
    return {
        **samples.engine.describe(),
        "batch": batch,
        "loop": "closed",
        "scope": "engine",
        "call_ms": percentiles(calls),
        "slice_ms": percentiles(calls / batch),
        "slices_per_s": round(1000 * batch * len(calls) / float(calls.sum()), 2),
        "load_average": {"mean": round(_mean(loads), 2), "max": round(max(loads), 2)},
        "cpus_used_by_others": round(_mean(others), 2),
        "max_abs_difference": samples.difference,
        "rounds": [{k: round(v, 4) for k, v in r.items()} for r in samples.rounds],
    }


def percentiles(times: Any) -> dict[str, Any]:
    """n, min, mean, p50, p90, p99, p99_9 and max of `times` (any unit, at least one).

    Linear interpolation between ranks, as numpy does; p99_9 is None under 1000 of them.
    """
    t = np.asarray(times, np.float64)
    p50, p90, p99, p99_9 = (float(p) for p in np.percentile(t, (50, 90, 99, 99.9)))
    found = {"min": float(t.min()), "mean": float(t.mean()), "p50": p50, "p90": p90, "p99": p99}
    rounded = {name: round(value, 5) for name, value in found.items()}
    tail = round(p99_9, 5) if t.size >= TAIL_NEEDS else None
    return {"n": int(t.size), **rounded, "p99_9": tail, "max": round(float(t.max()), 5)}


def _median(values: list[float]) -> float:
    return float(np.median(values))


def _mean(values: list[float]) -> float:
    return float(np.mean(values))


def bench_input(metadata: ModelMetadata, batch: int) -> Float32:
    """Latents [batch, latent_size] of seed 0, or uniform slices [batch, 1, H, W] in [-1, 1]."""
    if metadata.latent_size is not None:
        return normal_latents(0, 0, batch, metadata.latent_size)
    rng = np.random.default_rng(0)
    return rng.random((batch, 1, *metadata.slice_size), dtype=np.float32) * 2 - 1
