"""The CUDA half of train_step.py: checks first, then slices a second at batch 1, 4 and 16.

    python benchmarks/train_step.py --device cuda [--quick] [--seconds 75] [--json FILE]

The checks are those of the CPU, at 128 and batch 2, with TF32 off. The baseline is then timed as
eager PyTorch runs it in fp32 (TF32 in convolutions, cuDNN's search on, as the reference has it)
against fastmrigan's system with speed, in fp32 and in bf16 (channels_last, fused instance norm,
fused Adam). Sides take turns, a turn being a few steps between two CUDA events; a time is the
median over rounds. A slice a second is one of each domain. Peak memory is that of a side alone.

Goal, printed as met or missed at each batch: bf16 at least 2.5 times the baseline. Rows past
--seconds are left out, and said so. Exits 6 where a result is wrong or a row fails; a missed goal
is reported, not an error.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from typing import Any

import torch
from timing import Ratio, ratio, summary, write_json
from train_step_check import TOLERANCES, check
from train_step_sides import OURS, SIDES, Setting

BATCHES = (1, 4, 16)
TIMED = ("baseline", "ours, speed", "ours, speed, bf16")
GOALS = {"ours, speed, bf16": 2.5}  # at least
TURN = 0.25  # seconds of one side before the next has its turn
GB = 1e9


def made(name: str, setting: Setting) -> tuple[Callable[[], object], float]:
    """A side's step, warm, and the memory it takes at its peak, in GB."""
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    side = SIDES[name].make(setting)
    source, target = setting.slices(0), setting.slices(1)
    for _ in range(3):
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


def time_batch(setting: Setting, rounds: int) -> list[dict[str, Any]]:
    sides = {name: made(name, setting) for name in TIMED}
    steps = {name: max(1, round(TURN / seconds_of(step, 2))) for name, (step, _) in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in TIMED[:: 1 if number % 2 == 0 else -1]:
            seconds[name].append(seconds_of(sides[name][0], steps[name]))
    times = summary(seconds)
    rows = []
    for name in TIMED:
        found = ratio(seconds["baseline"], seconds[name])
        goal = GOALS.get(name)
        rows.append(
            {
                "side": name,
                "size": setting.size,
                "batch": setting.batch,
                "rounds": rounds,
                "times": times[name],
                "slices_per_second": 1e3 * setting.batch / times[name]["median_ms"],
                "ratio": vars(found),
                "peak_gb": sides[name][1],
                "goal": goal,
                "met": None if goal is None else found.of_medians >= goal,
            }
        )
    return rows


def show(row: dict[str, Any]) -> None:
    goal = ""
    if row["goal"] is not None:
        goal = f", goal at least {row['goal']}x: {'met' if row['met'] else 'missed'}"
    print(
        f"{row['size']}, batch {row['batch']:2} {row['side']:18} "
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
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    bad = sum(isinstance(off, str) for off in checked.values())
    document |= {"checks": checked, "tolerances": {n: t._asdict() for n, t in TOLERANCES.items()}}
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
                rows = time_batch(setting, 3 if options.quick else 7)
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
