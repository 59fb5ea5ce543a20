"""Calls one after another, several at once, or at a fixed rate of arrivals, each with its time.

Closed loop: the next call starts when the last one ends, which is what the engine can do. Flow: the
same for an engine that computes several at once, which always has as many as it can take. Open
loop: calls arrive at a rate that does not wait for the engine, as slices come from a scanner, and a
call's latency counts from the moment at which it should have begun. One stall then shows in all
the calls that it delays; a closed loop would see it once (coordinated omission, Tene 2013).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

SPIN_NS = 200_000  # sleep() wakes late by tens of microseconds: the rest is waited for awake
PATIENCE = 2.0  # an open loop ends after this many times its seconds, however many calls wait


class Clock(Protocol):
    """What the loops know of time, in nanoseconds."""

    def now(self) -> int: ...

    def wait_until(self, moment: int) -> None:
        """Returns at once where it is past."""


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> int:
        return time.perf_counter_ns()

    def wait_until(self, moment: int) -> None:
        left = moment - time.perf_counter_ns()
        if left > SPIN_NS:
            time.sleep((left - SPIN_NS) / 1e9)
        while time.perf_counter_ns() < moment:
            pass


@dataclass(frozen=True)
class Turn:
    """The calls of one turn of a loop."""

    latency_ms: list[float]  # of each call; open: since each one's arrival
    served: int  # calls made; in an open loop `latency_ms` may hold more
    seconds: float


def closed_loop(call: Callable[[], object], seconds: float, clock: Clock) -> Turn:
    """Calls for `seconds`, at least once."""
    began = now = clock.now()
    end = began + round(seconds * 1e9)
    taken: list[float] = []
    while not taken or now < end:
        call()
        after = clock.now()
        taken.append((after - now) / 1e6)
        now = after
    return Turn(taken, len(taken), (now - began) / 1e9)


def flow_loop(
    calls: Callable[[Iterator[None]], Iterator[object]], seconds: float, clock: Clock
) -> Turn:
    """Has `calls` begin one for each item it takes, for `seconds` and at least once.

    `calls` gives what the calls come to, in the order they began; a call's latency counts from its
    beginning, the time for which it waits for a stream included.
    """
    began = clock.now()
    end = began + round(seconds * 1e9)
    starts: deque[int] = deque()
    taken: list[float] = []

    def items() -> Iterator[None]:
        starts.append(began)
        yield
        while (now := clock.now()) < end:
            starts.append(now)
            yield

    for _ in calls(items()):
        taken.append((clock.now() - starts.popleft()) / 1e6)
    return Turn(taken, len(taken), (clock.now() - began) / 1e9)


def open_loop(call: Callable[[], object], seconds: float, rate: float, clock: Clock) -> Turn:
    """Calls that arrive every 1 / `rate` s for `seconds`, at least one, served in order by one.

    Where the engine cannot keep up it stops after twice the time. Arrivals not served by then count
    with as long as they have waited, which is less than their latency would have been; left out,
    an overloaded engine would look like a fast one.
    """
    began = clock.now()
    arrivals = [began + round(i * 1e9 / rate) for i in range(max(1, math.floor(seconds * rate)))]
    given_up = began + round(PATIENCE * max(seconds, 1 / rate) * 1e9)
    taken: list[float] = []
    for arrival in arrivals:
        if clock.now() >= given_up:
            break
        clock.wait_until(arrival)
        call()
        taken.append((clock.now() - arrival) / 1e6)
    if len(taken) == len(arrivals):
        clock.wait_until(began + round(len(arrivals) * 1e9 / rate))  # the last one's share of time
    end = clock.now()
    waiting = [(end - arrival) / 1e6 for arrival in arrivals[len(taken) :]]
    return Turn(taken + waiting, len(taken), (end - began) / 1e9)
