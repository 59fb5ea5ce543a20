"""The loops on a clock and an engine of our own: what they report is known in advance."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pytest

from fastmrigan.runtime.backends.base import in_order
from fastmrigan.runtime.latency_figures import percentiles
from fastmrigan.runtime.loops import SystemClock, closed_loop, flow_loop, open_loop


class Engine:
    """A clock, and calls that take the given milliseconds one after another, round and round."""

    def __init__(self, delays_ms: Sequence[float]) -> None:
        self.delays = delays_ms
        self.calls = 0
        self.time = 17  # a clock starts anywhere

    def now(self) -> int:
        return self.time

    def wait_until(self, moment: int) -> None:
        self.time = max(self.time, moment)

    def __call__(self) -> None:
        self.time += round(self.delays[self.calls % len(self.delays)] * 1e6)
        self.calls += 1


def waiting_line(delays_ms: Sequence[float], period_ms: float) -> list[float]:
    """Latencies by Lindley's recursion: what is left of the one before, and one's own service."""
    latencies, left = [], 0.0
    for delay in delays_ms:
        latencies.append(left + delay)
        left = max(0.0, latencies[-1] - period_ms)
    return latencies


STALL = [1.0] * 99 + [100.0]  # a call of 1 ms, and each hundredth stalls


def test_closed_loop_reports_the_engines_own_delays() -> None:
    engine = Engine(STALL)
    turn = closed_loop(engine, 1.99, engine)
    assert turn.latency_ms == pytest.approx(STALL * 10)
    assert (turn.served, turn.seconds) == (1000, pytest.approx(1.99))
    found = percentiles(turn.latency_ms)
    assert (found["p50"], found["p90"], found["max"]) == (1.0, 1.0, 100.0)


def test_closed_loop_calls_at_least_once() -> None:
    engine = Engine([5.0])
    assert closed_loop(engine, 0.001, engine).latency_ms == [5.0]


@pytest.mark.parametrize("in_flight", [1, 2, 3])
def test_flow_counts_from_the_beginning_of_each_call(in_flight: int) -> None:
    """An engine that serves one at a time: a call waits for those that began before it."""
    engine = Engine([10.0])

    def serve(i: int) -> int:
        engine()
        return i

    def calls(items: Iterator[None]) -> Iterator[int]:
        return in_order((partial(serve, i) for i, _ in enumerate(items)), in_flight)

    turn = flow_loop(calls, 1.0, engine)
    assert turn.served == len(turn.latency_ms) == 100 + in_flight - 1
    assert turn.seconds == pytest.approx(turn.served * 0.01)
    full = [10.0 * in_flight] * (turn.served - in_flight + 1)
    assert turn.latency_ms == pytest.approx([*(10.0 * i for i in range(1, in_flight)), *full])
    engine = Engine([5.0])
    assert flow_loop(calls, 0.001, engine).served >= 1


@pytest.mark.parametrize("rate", [10.0, 250.0, 400.0, 490.0])
def test_open_loop_counts_from_the_arrival(rate: float) -> None:
    engine = Engine(STALL)
    turn = open_loop(engine, 4.0, rate, engine)
    expected = waiting_line((STALL * 100)[: int(4 * rate)], 1000 / rate)
    np.testing.assert_allclose(turn.latency_ms, expected, atol=1e-4)
    assert turn.served == engine.calls == 4 * rate
    last = (len(expected) - 1) / rate + expected[-1] / 1000
    assert turn.seconds == pytest.approx(max(4.0, last), abs=1e-6)


def test_a_stall_shows_in_every_call_that_it_delays() -> None:
    """At 400 calls/s the closed loop's p90 of 1 ms would be coordinated omission: 1 % of the calls
    stall, but two thirds of all wait for one that did."""
    closed, opened = Engine(STALL), Engine(STALL)
    alone = percentiles(closed_loop(closed, 4.0, closed).latency_ms)
    arriving = percentiles(open_loop(opened, 4.0, 400.0, opened).latency_ms)
    assert alone["p90"] == 1.0
    assert arriving["p90"] > 80.0
    assert arriving["p50"] > 10.0


def test_an_overloaded_engine_does_not_look_fast() -> None:
    """Calls of 10 ms that arrive every 5 ms are served in twice the time; of calls of 50 ms, 40."""
    engine = Engine([10.0])
    turn = open_loop(engine, 1.0, 200.0, engine)
    assert (turn.served, len(turn.latency_ms)) == (200, 200)
    assert turn.latency_ms[-1] == pytest.approx(2000 - 995)
    engine = Engine([50.0])
    turn = open_loop(engine, 1.0, 200.0, engine)
    assert (turn.served, len(turn.latency_ms)) == (40, 200)  # 2 s of calls of 50 ms
    arrivals = 5.0 * np.arange(200)
    served = 50.0 * np.arange(1, 41) - arrivals[:40]
    np.testing.assert_allclose(turn.latency_ms[:40], served)
    np.testing.assert_allclose(turn.latency_ms[40:], 2000 - arrivals[40:])


def test_a_rate_slower_than_the_turn_makes_one_call() -> None:
    engine = Engine([5.0])
    turn = open_loop(engine, 0.1, 2.0, engine)
    assert (turn.latency_ms, turn.served) == ([5.0], 1)
    assert turn.seconds == pytest.approx(0.5)  # the call's share of time: 2 calls a second


def test_the_systems_clock_waits_and_never_wakes_early() -> None:
    clock = SystemClock()
    for ahead in (-1_000_000, 0, 50_000, 3_000_000):
        moment = time.perf_counter_ns() + ahead
        clock.wait_until(moment)
        assert clock.now() >= moment
