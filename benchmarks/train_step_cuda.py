"""The CUDA half of train_step.py: checks first, then slices a second at batch 1, 4 and 16.

    python benchmarks/train_step.py --device cuda [--quick] [--seconds 75] [--json FILE]

The checks are those of the CPU, at 128 and batch 2, with TF32 off. The baseline is then timed as
eager PyTorch runs it in fp32 (TF32 in convolutions, cuDNN's search on, as the reference has it)
against fastmrigan's system with speed, in fp32 and in bf16 (channels_last, fused instance norm,
fused Adam), and in bf16 with each step replayed as one CUDA graph. Sides take turns, a turn being a
few steps between two CUDA events; a time is the median over rounds. A slice a second is one of each
domain. Peak memory is that of a side alone. Replayed steps are checked against the same steps taken
one by one; where they are wrong, or cannot be recorded, they are not timed.

Goal, printed as met or missed at each batch: the better side in bf16 at least 2.5 times the
baseline. Rows past --seconds are left out, and said so. Exits 6 where a result is wrong or a row
fails; a missed goal is reported, not an error.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from typing import Any

import torch
from json_file import write_json
from timing import Ratio, ratio, summary
from train_step_check import TOLERANCES, check
from train_step_sides import GRAPHED, OURS, SIDES, Setting

from fastmrigan.errors import UsageError

BATCHES = (1, 4, 16)
BF16, GRAPH = "ours, speed, bf16", "ours, speed, bf16, graph"
TIMED = ("baseline", "ours, speed", BF16, GRAPH)
ALL = SIDES | GRAPHED
GOAL = 2.5  # of the better one in bf16, at least
WARM = 6  # steps before a side is timed; one that replays has begun to by then
# Of a loss after WARM + 2 steps; the gradient of a reflected border is summed in any order.
REPLAYED = 5e-2
TURN = 0.25  # seconds of one side before the next has its turn
GB = 1e9


def made(name: str, setting: Setting) -> tuple[Callable[[], object], float]:
    """A side's step, warm, and the memory it takes at its peak, in GB."""
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    side = ALL[name].make(setting)
    source, target = setting.slices(0), setting.slices(1)
    for _ in range(WARM):
        side.step(source, target)
    torch.cuda.synchronize()
    return lambda: side.step(source, target), (torch.cuda.max_memory_allocated() - held) / GB


def seconds_of(step: Callable[[], object], steps: int) -> float:
    """One step's, by the device's own clock."""
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    for _ in range(steps):
        step()
    ended.record()
    ended.synchronize()
    return 1e-3 * began.elapsed_time(ended) / steps


def time_batch(setting: Setting, timed: list[str], rounds: int) -> list[dict[str, Any]]:
    sides = {name: made(name, setting) for name in timed}
    steps = {name: max(1, round(TURN / seconds_of(step, 2))) for name, (step, _) in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in timed[:: 1 if number % 2 == 0 else -1]:
            seconds[name].append(seconds_of(sides[name][0], steps[name]))
    times = summary(seconds)
    found = {name: ratio(seconds["baseline"], seconds[name]) for name in timed}
    better = max({BF16, GRAPH}.intersection(timed), key=lambda name: found[name].of_medians)
    rows = []
    for name in timed:
        goal = GOAL if name == better else None
        rows.append(
            {
                "side": name,
                "size": setting.size,
                "batch": setting.batch,
                "rounds": rounds,
                "times": times[name],
                "slices_per_second": 1e3 * setting.batch / times[name]["median_ms"],
                "ratio": vars(found[name]),
                "peak_gb": sides[name][1],
                "goal": goal,
                "met": None if goal is None else found[name].of_medians >= goal,
            }
        )
    return rows


def check_replays(setting: Setting) -> dict[str, float] | str:
    """How far losses of replayed steps are off those of the same steps taken one by one; a sentence
    where it is too far."""
    losses: dict[str, list[dict[str, float]]] = {}
    for name in (BF16, GRAPH):
        torch.manual_seed(0)
        side = ALL[name].make(setting)
        losses[name] = []
        for number in range(WARM + 2):
            try:
                rows = side.step(setting.slices(2 * number), setting.slices(2 * number + 1))
            except UsageError as refused:
                return str(refused)
            losses[name].append({key: float(value) for key, value in rows.items()})
    off = max(
        abs(found[key] - value) / max(abs(value), 1e-2)
        for found, wanted in zip(losses[GRAPH], losses[BF16], strict=True)
        for key, value in wanted.items()
        if key.startswith("loss")
    )
    if not off <= REPLAYED:
        return f"losses of {WARM + 2} steps are off by {off:.2g}, allowed {REPLAYED:g}"
    return {"loss": off}


def show(row: dict[str, Any]) -> None:
    goal = ""
    if row["goal"] is not None:
        goal = f", goal at least {row['goal']}x: {'met' if row['met'] else 'missed'}"
    print(
        f"{row['size']}, batch {row['batch']:2} {row['side']:24} "
        f"{row['times']['median_ms']:.1f} ms, {row['slices_per_second']:.1f} slices/s, "
        f"peak {row['peak_gb']:.1f} GB, {Ratio(**row['ratio'])}{goal}",
        flush=True,
    )


def on_cuda(options: argparse.Namespace) -> int:
    began = time.perf_counter()
    document: dict[str, Any] = {
        "benchmark": "train_step",
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "checks": {},
        "rows": [],
    }
    torch.backends.cudnn.allow_tf32 = False
    checked = check(Setting(128, 2, options.width, options.blocks, "cuda"), list(OURS))
    checked[GRAPH] = check_replays(Setting(128, 2, options.width, options.blocks, "cuda"))
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    bad = sum(isinstance(off, str) for off in checked.values())
    timed = [name for name in TIMED if name != GRAPH or not isinstance(checked[GRAPH], str)]
    document |= {"checks": checked, "tolerances": {n: t._asdict() for n, t in TOLERANCES.items()}}
    document["tolerances"]["replayed"] = {"loss": REPLAYED}
    for name, off in checked.items():
        print(f"check {name}: {off}", flush=True)
    write_json(options.json, document)
    for size in options.size:
        for batch in BATCHES:
            if time.perf_counter() - began > options.seconds:
                print(f"{size}, batch {batch}: left out, past {options.seconds:.0f} s", flush=True)
                document["rows"].append({"size": size, "batch": batch, "left_out": True})
                continue
            setting = Setting(size, batch, options.width, options.blocks, "cuda")
            try:
                rows = time_batch(setting, timed, 3 if options.quick else 7)
            except RuntimeError as failure:  # out of memory among them
                print(f"{size}, batch {batch}: FAILED: {failure}", flush=True)
                rows = [{"size": size, "batch": batch, "failed": str(failure)}]
                bad += 1
            else:
                for row in rows:
                    show(row)
            document["rows"] += rows
            gc.collect()
            torch.cuda.empty_cache()
            write_json(options.json, document)
    print(f"{bad} wrong or failed")
    return 6 if bad else 0
