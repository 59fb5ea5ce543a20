"""The CUDA half of instance_norm.py: checks, then times ours against eager, compile and a copy.

    python benchmarks/instance_norm.py --device cuda [--quick] [--no-compile] [--seconds 190]
                                       [--launch graph|queue] [--json FILE]

A call is instance norm and ReLU at batch 8, forward, or forward and gradient to x, each side
allocating its output. Calls go through as many distinct tensors as make six times the L2 cache, and
the outputs of a whole turn through them are kept, so that neither reads nor writes are answered by
the cache. Every side is a CUDA graph of about 1 ms of such calls (--launch graph), or the same
calls queued behind a kernel that waits (--launch queue): either way the launch from Python is not
in the time. Sides take turns in every round, between CUDA events; a time is the median over rounds.

The limit is y.copy_(x) of the same tensors in the same rounds: a forward moves as many bytes as one
copy, forward and backward as many as two and a half (x, y; x, grad_y, grad_x). Goals, each printed
as met or missed: 85 % of the copy's bandwidth, 3x eager, 1.3x torch.compile. torch.compile runs on
the generator's own three sizes and stops at 70 % of --seconds; at --seconds the rest is left out,
and said so.

Before a row is timed every side is held against float64, forward and gradients, within the
tolerances that instance_norm_sides.py states for each type; after it, what each launch left is held
against a call by itself. Exits 6 where a result of any side is wrong (that row has no figures) or a
row fails; a missed goal is reported, not an error.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from instance_norm_launches import Call, Turn, check_launches, time_turns
from instance_norm_sides import (
    DTYPES,
    LAYOUTS,
    Inputs,
    Side,
    check,
    check_sides,
    eager,
    forward_and_backward,
    fused,
    grad_for,
    make_inputs,
)
from json_file import write_json

BATCH = 8
SIZES = ((256, 64), (128, 128), (64, 256))  # (C, H = W) of one generator; also for torch.compile
MORE_SIZES = tuple(
    size for size in itertools.product((64, 128, 256, 512), (64, 128, 256)) if size not in SIZES
)
CHECKED = ((2, 5, 1, 1), (1, 3, 7, 9), (3, 33, 31, 17), (1, 2, 181, 217), (2, 64, 64, 64))
GOALS = {"copy": 0.85, "eager": 3.0, "compile": 1.3}


@dataclass(frozen=True)
class Case:
    size: tuple[int, int]
    dtype: str
    layout: str
    backward: bool
    compiled: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return (BATCH, self.size[0], self.size[1], self.size[1])

    def __str__(self) -> str:
        what = "forward + backward" if self.backward else "forward"
        return f"{what:18} {self.dtype} {self.layout:13} {list(self.shape)}"


def cases(quick: bool, compiled: bool) -> list[Case]:
    """Those with torch.compile first, so that what --seconds cuts off is the least of them."""
    kinds = list(itertools.product(("fp32", "bf16", "fp16"), LAYOUTS, (False, True)))
    found = [Case(s, d, m, b, compiled) for d, m, b in kinds for s in SIZES]
    if not quick:
        found += [Case(s, d, m, b, False) for d, m, b in kinds for s in MORE_SIZES]
    return found


def checks() -> list[dict[str, object]]:
    """Both layouts, three dtypes, with and without affine, forward and gradients; twice alike."""
    rows = []
    for shape, dtype, layout in itertools.product(CHECKED, DTYPES, LAYOUTS):
        for affine in (False, True):
            row = {"shape": list(shape), "dtype": dtype, "layout": layout, "affine": affine}
            try:
                inputs = make_inputs(
                    shape, dtype, layout, device="cuda", affine=affine, gradients=True
                )
                check(fused, inputs)
                grad = grad_for(fused, inputs)
                first, again = (forward_and_backward(fused, inputs, grad) for _ in range(2))
                for one, other in zip(first, again, strict=True):
                    assert torch.equal(one, other), "a second call gives other bits"
                assert first[0].is_contiguous(memory_format=LAYOUTS[layout]), (
                    "y is laid out unlike x"
                )
                row["ok"] = True
            except (AssertionError, ValueError, TypeError, RuntimeError) as failure:
                row |= {"ok": False, "why": str(failure)}
                print(f"check {dtype} {layout} {list(shape)} affine {affine}: {failure}")
            rows.append(row)
    print(f"checks: {sum(row['ok'] for row in rows)} of {len(rows)} hold", flush=True)
    return rows


def sides_of(case: Case) -> dict[str, Side]:
    sides = {"fused": fused, "eager": eager}
    if case.compiled:
        torch.compiler.reset()
        sides["compile"] = torch.compile(eager, fullgraph=True, dynamic=False)
    return sides


def calls_of(sides: Mapping[str, Side], backward: bool, sets: list[Inputs]) -> dict[str, Call]:
    """What is timed: the sides, and the copy that stands for the device's bandwidth."""

    def call_of(side: Side) -> Call:
        if not backward:
            return lambda number: side(sets[number].x)
        grads = [grad_for(side, inputs) for inputs in sets]
        return lambda number: forward_and_backward(side, sets[number], grads[number])

    copies = [torch.empty_like(inputs.x, requires_grad=False) for inputs in sets]
    calls = {name: call_of(side) for name, side in sides.items()}
    return calls | {"copy": lambda number: copies[number].copy_(sets[number].x.detach())}


def run_case(case: Case, cache: int, rounds: int, launch: str) -> dict[str, object]:
    make = partial(
        make_inputs,
        case.shape,
        case.dtype,
        case.layout,
        device="cuda",
        gradients=case.backward,
    )
    sets, sides = [make(seed=0)], sides_of(case)
    check_sides(sides, sets[0])
    nbytes = sets[0].x.nbytes
    count = max(2, -(-6 * cache // (2 * nbytes)))
    sets += [make(seed=number) for number in range(1, count)]
    calls = max(count, -(-4_000_000_000 // (2 * nbytes)))  # 1 ms at 4 TB/s
    calls = min(calls, 256 if launch == "graph" else 64)  # a stream queues about 1,000 launches
    turns = {
        name: Turn(call, count, calls, launch)
        for name, call in calls_of(sides, case.backward, sets).items()
    }
    times = time_turns(turns, rounds)
    check_launches(turns, sets)
    medians = {name: statistics.median(found) for name, found in times.items()}
    copies = 2.5 if case.backward else 1.0
    ratios = {
        "copy": copies * medians["copy"] / medians["fused"],
        **{
            name: medians[name] / medians["fused"] for name in ("eager", "compile") if name in times
        },
    }
    return {
        "row": "backward" if case.backward else "forward",
        "dtype": case.dtype,
        "layout": case.layout,
        "batch": BATCH,
        "channels": case.size[0],
        "shape": list(case.shape),
        "tensors": count,
        "calls": calls,
        "ms": {n: {"min": min(found), "median": medians[n]} for n, found in times.items()},
        "gb_per_s": {
            "fused": copies * 2e-6 * nbytes / medians["fused"],
            "copy": 2e-6 * nbytes / medians["copy"],
        },
        "ratios": ratios,
        "met": {name: found >= GOALS[name] for name, found in ratios.items()},
    }


def show(case: Case, row: dict) -> None:
    parts = [f"{name} {1e3 * time['median']:.1f}" for name, time in row["ms"].items()]
    marks = {name: "" if met else " MISSED" for name, met in row["met"].items()}
    ratios = [
        f"{name} {found:.2f}x{marks[name]}"
        for name, found in row["ratios"].items()
        if name != "copy"
    ]
    rate = row["gb_per_s"]
    print(
        f"{case}: {', '.join(parts)} us; {rate['fused']:,.0f} of {rate['copy']:,.0f} GB/s, "
        f"{100 * row['ratios']['copy']:.0f} % of copy{marks['copy']}; {', '.join(ratios)}",
        flush=True,
    )


def goals(rows: list[dict]) -> list[dict[str, object]]:
    """Of each goal and direction: how many rows meet it, the least and the median."""
    found = []
    for what, goal in itertools.product(("forward", "backward"), GOALS):
        ratios = [
            row["ratios"][goal] for row in rows if row["row"] == what and goal in row["ratios"]
        ]
        if ratios:
            one = {"row": what, "against": goal, "goal": GOALS[goal], "rows": len(ratios)}
            one["met"] = sum(ratio >= GOALS[goal] for ratio in ratios)
            one |= {"least": min(ratios), "median": statistics.median(ratios)}
            found.append(one)
            print(
                f"{what:8} against {goal:7} goal {GOALS[goal]}: met in {one['met']} of "
                f"{one['rows']} rows, least {one['least']:.2f}, median {one['median']:.2f}"
            )
    return found


def on_cuda(options: argparse.Namespace) -> int:
    began = time.monotonic()
    properties = torch.cuda.get_device_properties(0)
    machine = {
        "device": properties.name,
        "sm": f"{properties.major}{properties.minor}",
        "l2_bytes": properties.L2_cache_size,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    rows, failed, left_out = [], [], []
    document = {"benchmark": "instance_norm", "machine": machine, "launch": options.launch}
    document |= {"checks": checks(), "rows": rows, "failed": failed, "left_out": left_out}
    rounds = 10 if options.quick else 20
    remaining = deque(cases(options.quick, options.compile))
    while remaining:
        write_json(options.json, document)
        case, spent = remaining.popleft(), time.monotonic() - began
        if spent > options.seconds:
            left_out.append(str(case))
            continue
        if case.compiled and spent > 0.7 * options.seconds:
            left_out.append(f"{case}, torch.compile")
            case = replace(case, compiled=False)
        try:
            rows.append(run_case(case, properties.L2_cache_size, rounds, options.launch))
            show(case, rows[-1])
        except Exception as failure:  # whatever a compiler raises: the other rows are still wanted
            text = (str(failure).splitlines() or [""])[0]
            failed.append({"row": str(case), "why": f"{type(failure).__name__}: {text}"})
            print(f"{case}: FAILED, no figures: {failed[-1]['why']}", flush=True)
            if case.compiled:
                remaining.appendleft(replace(case, compiled=False))
        gc.collect()
        torch.cuda.empty_cache()
    document |= {"goals": goals(rows), "seconds": time.monotonic() - began}
    write_json(options.json, document)
    wrong = len(failed) + sum(not row["ok"] for row in document["checks"])
    print(
        f"{wrong} checks or rows failed, {len(left_out)} left out for want of time; "
        f"{document['seconds']:.0f} s"
    )
    return 6 if wrong else 0
