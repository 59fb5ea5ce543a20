"""How long a slice takes on this machine: every backend, mode, batch, number of threads and load.

Engine: `Backend.run` on one fixed input. End to end: pixels in, pixels out, by the Generator; for
a model that samples, from the seed to pixels. Backends take turns in rounds within one run, so that
a change of the machine's load meets all of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from fastmrigan import __version__
from fastmrigan.errors import CheckFailed, MissingDependency, UsageError
from fastmrigan.progress import Progress, counted
from fastmrigan.runtime.backends import BACKENDS, Backend, BackendOptions, installed, open_backend
from fastmrigan.runtime.backends.base import MODES
from fastmrigan.runtime.cold_start import cold_starts
from fastmrigan.runtime.engine_file import EngineFile, read_model
from fastmrigan.runtime.generator import Generator
from fastmrigan.runtime.latency_rows import Row, bench_input
from fastmrigan.runtime.machine import machine, peak_memory_mb
from fastmrigan.runtime.model_file import ModelFile

SCHEMA_VERSION = 3
KIND = "fastmrigan-bench"
SHORTEST, LONGEST = 0.001, 86_400  # seconds of timed calls
SCOPES = ("engine", "end-to-end")
AGREEMENT = 1e-3  # fp32 engines further apart than this are not doing the same work


@dataclass(frozen=True)
class BenchOptions:
    """What is measured, and for how long."""

    backends: tuple[str, ...] = ()  # names; empty: all that run here
    batches: tuple[int, ...] = (1, 8, 64)
    seconds: float = 5.0  # of each row
    rounds: int = 5  # turns those seconds are cut into
    threads: tuple[int | None, ...] = (None,)  # None: as many as this process may use
    scopes: tuple[str, ...] = SCOPES
    rates: tuple[float, ...] = ()  # arrivals of a call a second, beside the closed loop
    precision: str = "auto"
    modes: tuple[str, ...] = ("latency",)
    cold_starts: int = 3  # fresh processes a backend; their median is reported

    @property
    def loops(self) -> tuple[float | None, ...]:
        """None is the closed loop, a number the rate of an open one."""
        return (None, *self.rates)


def bench(path: Path, options: BenchOptions) -> dict[str, Any]:
    """Measures a model file and returns one JSON-ready document.

    Milliseconds throughout: `call_ms` is what one call takes, which every slice of its batch
    waits for (at a fixed rate: counted from when it should have begun); `slice_ms` is a call
    divided by its batch. Raises UsageError for an unknown backend or senseless options,
    MissingDependency for a named backend that is not installed, and CheckFailed where two fp32
    engines make different slices.
    """
    check(options)
    model = read_model(path)
    names, left_out = usable_backends(model, options)
    began = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    rows = len(names) * len(options.modes) * len(options.scopes) * len(options.loops)
    slots = rows * options.rounds * len(options.batches) * len(options.threads)
    with Progress("bench", slots + len(names) * options.cold_starts, "turns") as progress:
        cold = cold_starts(
            path, names, options.cold_starts, options.precision, options.threads[0], progress
        )
        calls = [
            record
            for threads, batch in product(options.threads, options.batches)
            for record in measure(model, names, batch, threads, options, progress)
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
            "threads": list(options.threads),
            "rates": list(options.rates),
            "precision": options.precision,
            "modes": list(options.modes),
        },
        "left_out": left_out,
        "cold_start": cold,
        "measurements": calls,
        "peak_rss_mb": round(peak_memory_mb(), 1),
    }


def check(options: BenchOptions) -> None:
    """Raises UsageError for senseless options; needs no model file."""
    if not options.batches or min(options.batches) < 1:
        raise UsageError("bench: batch sizes are positive numbers, e.g. --batch 1,8,64")
    for threads in options.threads:
        if threads is not None and threads < 1:
            raise UsageError(f"bench: threads {threads}: expected at least 1")
    if not SHORTEST <= options.seconds <= LONGEST:
        raise UsageError(
            f"bench: seconds {options.seconds:g}: expected {SHORTEST:g} to {LONGEST} (a day)"
        )
    for rate in options.rates:
        if not 1 / LONGEST <= rate <= 1 / SHORTEST**2:
            raise UsageError(f"bench: rate {rate:g}: expected calls a second, e.g. --rate 20")
    for scope in options.scopes:
        if scope not in SCOPES:
            raise UsageError(f"bench: scope {scope!r}: expected {' or '.join(SCOPES)}")
    for mode in options.modes:
        if mode not in MODES:
            raise UsageError(f"bench: mode {mode!r}: expected {' or '.join(MODES)}")
    if options.rates and options.modes != ("latency",):
        raise UsageError("bench: --rate is of --mode latency, where calls are served one by one")
    for name in options.backends:
        if name not in BACKENDS:
            raise UsageError(
                f"bench: backend {name!r} is unknown; choose all or from {', '.join(BACKENDS)}"
            )


def usable_backends(
    model: ModelFile | EngineFile, options: BenchOptions
) -> tuple[list[str], dict[str, str]]:
    """The backends to measure, and why each other one is left out.

    Named ones must run, or their error is raised; left to choose, every one that runs here is taken
    and the rest come back with their reason. An engine file names its own.
    """
    setting = BackendOptions(1, options.precision, options.threads[0])
    named = options.backends or (("tensorrt",) if isinstance(model, EngineFile) else ())
    if named:
        for name in named:
            if not installed(name):
                cls = BACKENDS[name]
                raise MissingDependency(cls.package, cls.extra, f"backend {name}")
            open_backend(model, name, setting)
        return list(dict.fromkeys(named)), {}
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


def measure(
    model: ModelFile | EngineFile,
    names: Sequence[str],
    batch: int,
    threads: int | None,
    options: BenchOptions,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Times `names` against each other at one batch size; one record a backend, scope and loop."""
    x = bench_input(model.metadata, batch)
    found: list[Row] = []
    reference: Backend | None = None
    expected = np.empty(0, np.float32)
    for name, mode in product(names, options.modes):
        generator = Generator(
            model,
            backend=name,
            precision=options.precision,
            threads=threads,
            batch=batch,
            mode=mode,
        )
        engine = generator.backend
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
        found += [
            Row(generator, scope, rate, apart, x)
            for scope, rate in product(options.scopes, options.loops)
        ]
    for turn in range(options.rounds):
        for row in found if turn % 2 == 0 else reversed(found):
            row.turn(options.seconds / options.rounds)
            progress.advance(note=f"{row.generator.backend.name}, {row.scope}, batch {batch}")
    return [row.record() for row in found]


def past_budget(document: dict[str, Any], budget_ms: float) -> list[str]:
    """What a call's p99 is in each measurement that is past a budget, a line each."""
    return [
        f"{m['backend']} {m['precision']}, batch {m['batch']}, {counted(m['threads'], 'thread')}, "
        f"{m['scope']}, {_load(m)}: p99 {m['call_ms']['p99']:.3f} ms"
        for m in document["measurements"]
        if not m["call_ms"]["p99"] <= budget_ms
    ]


def _load(measurement: dict[str, Any]) -> str:
    if measurement["loop"] == "open":
        return f"{measurement['rate']:g}/s"
    return "several at once" if measurement["loop"] == "flow" else "closed loop"
