"""What a bench times: one engine under one kind of load, turn by turn."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np

from fastmrigan.imaging.quantise import to_float, to_uint8
from fastmrigan.runtime.backends.base import Float32
from fastmrigan.runtime.generator import Generator
from fastmrigan.runtime.latency_figures import jitter, mean, median, percentiles
from fastmrigan.runtime.latents import normal_latents
from fastmrigan.runtime.loops import SystemClock, Turn, closed_loop, flow_loop, open_loop
from fastmrigan.runtime.machine import cpu_seconds
from fastmrigan.runtime.model_file import ModelMetadata

SETTLE = 2  # calls before each turn, to settle in after another side


@dataclass
class Row:
    """One engine under one kind of load, and what it took so far."""

    generator: Generator
    scope: str
    rate: float | None  # calls a second; None: as many as the engine can
    difference: float  # max abs, from the first backend's slices
    x: Float32  # [batch, …]
    turns: list[Turn] = field(default_factory=list)
    rounds: list[dict[str, float]] = field(default_factory=list)

    @property
    def loop(self) -> str:
        """closed, open (at a rate), or flow (several calls at once)."""
        if self.generator.backend.mode == "throughput":
            return "flow"
        return "closed" if self.rate is None else "open"

    def turn(self, seconds: float) -> None:
        """Times one turn."""
        clock = SystemClock()
        call = call_of(self.generator, self.scope, self.x)
        calls = calls_of(self.generator, self.scope, self.x)
        if self.loop == "flow":
            deque(calls(repeat(None, SETTLE * self.generator.backend.in_flight)), maxlen=0)
        else:
            for _ in range(SETTLE):
                call()
        busy, own = cpu_seconds(), time.process_time()
        if self.loop == "flow":
            turn = flow_loop(calls, seconds, clock)
        elif self.rate is None:
            turn = closed_loop(call, seconds, clock)
        else:
            turn = open_loop(call, seconds, self.rate, clock)
        own = time.process_time() - own
        self.turns.append(turn)
        self.rounds.append(
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

    def record(self) -> dict[str, Any]:
        """What all its turns say, JSON-ready."""
        batch = self.generator.batch
        calls = np.concatenate([turn.latency_ms for turn in self.turns])
        served = sum(turn.served for turn in self.turns)
        loads = [r["load_average"] for r in self.rounds]
        others = [r["cpus_used_by_others"] for r in self.rounds]
        return {
            **self.generator.backend.describe(),
            "batch": batch,
            "loop": self.loop,
            "rate": self.rate,
            "scope": self.scope,
            "call_ms": percentiles(calls),
            "slice_ms": percentiles(calls / batch),
            "slices_per_s": round(batch * served / sum(turn.seconds for turn in self.turns), 2),
            "not_served": len(calls) - served,
            "jitter": jitter([turn.latency_ms for turn in self.turns]),
            "load_average": {"mean": round(mean(loads), 2), "max": round(max(loads), 2)},
            "cpus_used_by_others": round(mean(others), 2),
            "max_abs_difference": self.difference,
            "rounds": [{k: round(v, 4) for k, v in r.items()} for r in self.rounds],
        }


def call_of(generator: Generator, scope: str, x: Float32) -> Callable[[], object]:
    """What is timed: one call on one batch."""
    if scope == "engine":
        return lambda: generator.backend.run(x)
    if generator.metadata.task == "sample":
        return lambda: to_uint8(generator.sample(generator.batch))
    pixels = to_uint8(x[:, 0])  # [batch, H, W]
    return lambda: to_uint8(generator.translate(to_float(pixels)))


def calls_of(
    generator: Generator, scope: str, x: Float32
) -> Callable[[Iterator[None]], Iterator[object]]:
    """The same for each item of an iterator, as many at once as the engine takes."""
    batch = generator.batch
    if scope == "engine":
        return lambda items: generator.backend.run_all(x for _ in items)
    if generator.metadata.task == "sample":
        return lambda items: map(to_uint8, generator.sample_ranges((0, batch) for _ in items))
    pixels = to_uint8(x[:, 0])  # [batch, H, W]
    return lambda items: map(to_uint8, generator.translate_all(to_float(pixels) for _ in items))


def bench_input(metadata: ModelMetadata, batch: int) -> Float32:
    """Latents [batch, latent_size] of seed 0, or uniform slices [batch, 1, H, W] in [-1, 1]."""
    if metadata.latent_size is not None:
        return normal_latents(0, 0, batch, metadata.latent_size)
    rng = np.random.default_rng(0)
    return rng.random((batch, 1, *metadata.slice_size), dtype=np.float32) * 2 - 1
