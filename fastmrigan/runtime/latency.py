"""How long a slice takes on this machine: every backend, batch, number of threads and kind of load.

Engine: `Backend.run` on one fixed input. End to end: pixels in, pixels out, by the Generator; for
a model that samples, from the seed to pixels. Backends take turns in rounds within one run, so that
a change of the machine's load meets all of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from fastmrigan import __version__
from fastmrigan.errors import CheckFailed, MissingDependency, UsageError
from fastmrigan.imaging.quantise import to_float, to_uint8
from fastmrigan.progress import Progress
from fastmrigan.runtime.backends import BACKENDS, Backend, BackendOptions, installed, open_backend
from fastmrigan.runtime.backends.base import Float32
from fastmrigan.runtime.cold_start import cold_starts
from fastmrigan.runtime.engine_file import EngineFile, read_model
from fastmrigan.runtime.generator import Generator
from fastmrigan.runtime.latency_figures import jitter, mean, median, percentiles
from fastmrigan.runtime.latents import normal_latents
from fastmrigan.runtime.loops import SystemClock, Turn, closed_loop, open_loop
from fastmrigan.runtime.machine import cpu_seconds, machine, peak_memory_mb
from fastmrigan.runtime.model_file import ModelFile, ModelMetadata

SCHEMA_VERSION = 2
KIND = "fastmrigan-bench"
SHORTEST, LONGEST = 0.001, 86_400  # seconds of timed calls
SCOPES = ("engine", "end-to-end")
SETTLE = 2  # calls before each turn, to settle in after another side
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
    cold_starts: int = 3  # fresh processes a backend; their median is reported

    @property
    def loops(self) -> tuple[float | None, ...]:
        """None is the closed loop, a number the rate of an open one."""
        return (None, *self.rates)


@dataclass
class Row:
    """One engine under one kind of load, and what it took so far."""

    generator: Generator
    scope: str
    rate: float | None  # calls a second; None: closed loop
    difference: float  # max abs, from the first backend's slices
    call: Callable[[], object]
    turns: list[Turn] = field(default_factory=list)
    rounds: list[dict[str, float]] = field(default_factory=list)


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
    rows = len(names) * len(options.scopes) * len(options.loops)
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
    for name in names:
        generator = Generator(
            model, backend=name, precision=options.precision, threads=threads, batch=batch
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
            Row(generator, scope, rate, apart, call_of(generator, scope, x))
            for scope, rate in product(options.scopes, options.loops)
        ]
    for turn in range(options.rounds):
        for row in found if turn % 2 == 0 else reversed(found):
            _round(row, options.seconds / options.rounds)
            progress.advance(note=f"{row.generator.backend.name}, {row.scope}, batch {batch}")
    return [_record(row) for row in found]


def call_of(generator: Generator, scope: str, x: Float32) -> Callable[[], object]:
    """What is timed: one call on one batch."""
    if scope == "engine":
        return lambda: generator.backend.run(x)
    if generator.metadata.task == "sample":
        return lambda: to_uint8(generator.sample(generator.batch))
    pixels = to_uint8(x[:, 0])  # [batch, H, W]
    return lambda: to_uint8(generator.translate(to_float(pixels)))


def _round(row: Row, seconds: float) -> None:
    """One turn of a row."""
    for _ in range(SETTLE):
        row.call()
    clock = SystemClock()
    busy, own = cpu_seconds(), time.process_time()
    if row.rate is None:
        turn = closed_loop(row.call, seconds, clock)
    else:
        turn = open_loop(row.call, seconds, row.rate, clock)
    own = time.process_time() - own
    row.turns.append(turn)
    row.rounds.append(
        {
            "calls": turn.served,
            "seconds": turn.seconds,
            "p50_ms": median(turn.latency_ms),
            "max_ms": max(turn.latency_ms),
            "load_average": os.getloadavg()[0],
            "cpus_used": own / turn.seconds,
            "cpus_used_by_others": max(0.0, (cpu_seconds() - busy - own) / turn.seconds),
        }
    )


def _record(row: Row) -> dict[str, Any]:
    batch = row.generator.batch
    calls = np.concatenate([turn.latency_ms for turn in row.turns])
    served = sum(turn.served for turn in row.turns)
    loads = [r["load_average"] for r in row.rounds]
    others = [r["cpus_used_by_others"] for r in row.rounds]
    return {
        **row.generator.backend.describe(),
        "batch": batch,
        "loop": "closed" if row.rate is None else "open",
        "rate": row.rate,
        "scope": row.scope,
        "call_ms": percentiles(calls),
        "slice_ms": percentiles(calls / batch),
        "slices_per_s": round(batch * served / sum(turn.seconds for turn in row.turns), 2),
        "not_served": len(calls) - served,
        "jitter": jitter([turn.latency_ms for turn in row.turns]),
        "load_average": {"mean": round(mean(loads), 2), "max": round(max(loads), 2)},
        "cpus_used_by_others": round(mean(others), 2),
        "max_abs_difference": row.difference,
        "rounds": [{k: round(v, 4) for k, v in r.items()} for r in row.rounds],
    }


def past_budget(document: dict[str, Any], budget_ms: float) -> list[str]:
    """What a call's p99 is in each measurement that is past a budget, a line each."""
    return [
        f"{m['backend']} {m['precision']}, batch {m['batch']}, {m['threads']} threads, "
        f"{m['scope']}, {'closed loop' if m['rate'] is None else format(m['rate'], 'g') + '/s'}: "
        f"p99 {m['call_ms']['p99']:.3f} ms"
        for m in document["measurements"]
        if not m["call_ms"]["p99"] <= budget_ms
    ]


def bench_input(metadata: ModelMetadata, batch: int) -> Float32:
    """Latents [batch, latent_size] of seed 0, or uniform slices [batch, 1, H, W] in [-1, 1]."""
    if metadata.latent_size is not None:
        return normal_latents(0, 0, batch, metadata.latent_size)
    rng = np.random.default_rng(0)
    return rng.random((batch, 1, *metadata.slice_size), dtype=np.float32) * 2 - 1
