"""One optimisation step of CycleGAN against a plain PyTorch loop in the reference's order.

    python benchmarks/train_step.py [--quick] [--size 128 …] [--only SIDE …] [--compile]
                                    [--threads 2] [--json FILE]
    python benchmarks/train_step.py --device cuda      (train_step_cuda.py: see there)

ResNet-9 generators and 70x70 PatchGAN discriminators on one slice of one channel each way, identity
loss on, image pool of 50, least-squares losses, at 128 and 256. train_step_baseline.py is the
baseline. Beside it run fastmrigan's own system as `train` runs it, in the reference's order, with
the recipe's `speed`, and with speed and bf16; then the baseline with one change at a time.

First every side takes one step from the same weights on the same slices: losses, gradients and new
weights must agree with the baseline's (train_step_check.py says how nearly), or the side is not
timed. Then each side lives in a process of its own, and one process at a time takes a step: so that
each has an allocator and a peak of resident memory for itself, and slow seconds of the machine fall
on all. A ratio is the baseline's time over the side's: that of the medians, which the bar is held
against, then (the median ratio within a round, and its quartiles).

    bf16      ours, speed, bf16: at least 1.8x
    memory    ours, speed, in fp32 and bf16: at most 80 % of the baseline's peak

fp32 has no bar: the limit printed is what the same convolutions would leave of the baseline's time
if all the rest took none. Exits 6 where a result is wrong or a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from json_file import add_json_option, write_json
from timing import Ratio, ratio, summary
from train_step_check import TOLERANCES, check
from train_step_sides import ABLATION, OURS, SIDES, Setting

FASTER = {"ours, speed, bf16": 1.8}  # at least
SMALLER = {"ours, speed": 0.8, "ours, speed, bf16": 0.8}  # at most, of the baseline's peak
PAUSE = 0.02  # seconds between two processes' turns: threads that spin go to sleep
COMPILED = "torch.compile"


# A side's process. It answers each line of its input with one of JSON.


def serve(name: str, setting: Setting) -> int:
    entry = SIDES[name]
    if entry.kept:
        from fastmrigan.ops import keep_freed_memory

        keep_freed_memory()
    torch.manual_seed(0)
    side = entry.make(setting)
    source, target = setting.slices(0), setting.slices(1)
    for line in sys.stdin:
        match line.strip():
            case "step":
                faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                began = time.perf_counter()
                side.step(source, target)
                seconds = time.perf_counter() - began
                faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
                answer: dict[str, float] = {"seconds": seconds, "faults": faults}
            case "profile":
                answer = {"share": convolution_share(lambda: side.step(source, target))}
            case _:
                answer = {"peak_mb": peak_mb()}
        print(json.dumps(answer), flush=True)
    return 0


def peak_mb() -> float:
    """Of resident memory; not ru_maxrss, which begins with that of the process that forked."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def convolution_share(step: Any) -> float:
    """Of a step's time, what its convolutions take, forward and backward."""
    kinds = {"aten::convolution", "aten::convolution_backward"}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        began = time.perf_counter()
        step()
        seconds = time.perf_counter() - began
    rows: list[Any] = [row for row in profile.key_averages() if row.key in kinds]
    spent: float = sum(row.cpu_time_total for row in rows)
    return 1e-6 * spent / seconds


class Process:
    def __init__(self, name: str, setting: Setting, threads: int) -> None:
        self.name = name
        command = [sys.executable, __file__, "--serve", name, "--threads", str(threads)]
        for field in ("size", "width", "blocks"):
            command += [f"--{field}", str(getattr(setting, field))]
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "KINETO_LOG_LEVEL": "99"},  # the profiler is not to talk
        )

    def ask(self, what: str) -> dict[str, float]:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        try:
            self.child.stdin.write(what + "\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            pass  # the answer, which does not come, says so
        answer = self.child.stdout.readline()
        if not answer:
            raise RuntimeError(
                f"train_step: the process of {self.name!r} ended with status {self.child.wait()}"
            )
        found: dict[str, float] = json.loads(answer)
        return found


@contextmanager
def process(name: str, setting: Setting, threads: int) -> Iterator[Process]:
    running = Process(name, setting, threads)
    try:
        yield running
    finally:
        running.child.communicate()  # the end of its input is its own


def in_turn(processes: Mapping[str, Process], rounds: int) -> dict[str, list[dict[str, float]]]:
    """A step of each process a round, after two that warm up; the order turns every round."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in processes}
    for number in range(-2, rounds):
        for name in list(processes)[:: 1 if number % 2 == 0 else -1]:
            time.sleep(PAUSE)
            answer = processes[name].ask("step")
            if number >= 0:
                taken[name].append(answer)
    return taken


# The table.


def rows_of(
    names: list[str], checked: Mapping[str, Any], setting: Setting, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Our sides together with the baseline, then each ablation with the same baseline alone."""
    good = [name for name in names if not isinstance(checked[name], str)]
    ours = [name for name in good if name in OURS]
    groups = ([ours] if ours else []) + [[name] for name in good if name not in OURS]
    if not groups:
        return
    about: dict[str, dict[str, float]] = {}  # the baseline's once: the profiler takes memory, too
    with process("baseline", setting, options.threads) as baseline:
        for group in groups:
            with ExitStack() as stack:
                processes = {"baseline": baseline} | {
                    name: stack.enter_context(process(name, setting, options.threads))
                    for name in group
                }
                taken = in_turn(processes, options.rounds)
                for name, one in processes.items():
                    if name not in about:
                        about[name] = one.ask("peak") | one.ask("profile")
            for name in group:
                row = {"side": name, "size": setting.size, "checked": checked[name]}
                yield row | compare(name, taken, about)


def compare(
    name: str, taken: Mapping[str, list[dict[str, float]]], about: Mapping[str, dict[str, float]]
) -> dict[str, Any]:
    both = ("baseline", name)
    seconds = {side: [step["seconds"] for step in taken[side]] for side in both}
    found = ratio(seconds["baseline"], seconds[name])
    smaller = about[name]["peak_mb"] / about["baseline"]["peak_mb"]
    met = {}
    if name in FASTER:
        met["time"] = found.of_medians >= FASTER[name]
    if name in SMALLER:
        met["memory"] = smaller <= SMALLER[name]
    return {
        "times": summary(seconds),
        "ratio": vars(found),
        "rounds": len(seconds[name]),
        "faults": {
            side: statistics.median(step["faults"] for step in taken[side]) for side in both
        },
        "peak_mb": {side: about[side]["peak_mb"] for side in both},
        "of_baseline_peak": smaller,
        "convolution_share": {side: about[side]["share"] for side in both},
        "bars": {"time": FASTER.get(name), "memory": SMALLER.get(name)},
        "met": met,
    }


def show(row: Mapping[str, Any]) -> None:
    name, times, share = row["side"], row["times"], row["convolution_share"]
    parts = [
        f"{side} {times[side]['median_ms']:.0f} ms (min {times[side]['min_ms']:.0f})"
        for side in (name, "baseline")
    ]
    print(f"{row['size']} {', '.join(parts)}: {Ratio(**row['ratio'])}")
    print(
        f"    peak {row['peak_mb'][name]:.0f} MB, {row['of_baseline_peak']:.0%} of the baseline's; "
        f"{row['faults'][name]:,.0f} page faults, baseline {row['faults']['baseline']:,.0f}; "
        f"convolutions {share[name]:.0%}, {share[name] * times[name]['median_ms']:.0f} ms"
    )
    limits = {"time": f"at least {row['bars']['time']}x", "memory": "at most 80 % of the memory"}
    for kind, met in row["met"].items():
        print(f"    {limits[kind]}: {'met' if met else 'MISSED'}")
    sys.stdout.flush()


def show_limit(row: Mapping[str, Any]) -> None:
    share, median = row["convolution_share"]["baseline"], row["times"]["baseline"]["median_ms"]
    print(
        f"{row['size']} limit: the baseline's convolutions are {share:.0%} of its step, "
        f"{share * median:.0f} ms: with all the rest free {1 / share:.2f}x",
        flush=True,
    )


def on_cpu(options: argparse.Namespace) -> int:
    from instance_norm_sides import describe_cpu

    torch.set_num_threads(options.threads)
    known = [*OURS, *ABLATION]
    names = [name for name in options.only or known if name != COMPILED or options.compile]
    document: dict[str, Any] = {
        "benchmark": "train_step",
        "machine": describe_cpu(),
        "network": {"width": options.width, "blocks": options.blocks},
        "tolerances": {name: t._asdict() for name, t in TOLERANCES.items()},
        "rows": [],
    }
    print(", ".join(f"{key} {value}" for key, value in document["machine"].items()), flush=True)
    bad = 0
    for size in options.size:
        setting = Setting(size, 1, options.width, options.blocks)
        checked = check(setting, names)
        for name, off in checked.items():
            if isinstance(off, str):
                print(f"{size} {name}: WRONG RESULT, not timed: {off}", flush=True)
                document["rows"].append({"side": name, "size": size, "wrong": off})
                bad += 1
            else:
                shown = ", ".join(f"{kind} {value:.1g}" for kind, value in off.items())
                print(f"{size} {name}: one step agrees, off by: {shown}", flush=True)
        for number, row in enumerate(rows_of(names, checked, setting, options)):
            if number == 0:
                show_limit(row)
            show(row)
            bad += sum(not met for met in row["met"].values())
            document["rows"].append(row)
            write_json(options.json, document)
    write_json(options.json, document)
    print(f"{bad} wrong or missed")
    return 6 if bad else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; CPU: 128 alone")
    parser.add_argument("--size", type=int, action="append", help="default: 128, 256; CUDA: 256")
    parser.add_argument("--only", action="append", choices=[*OURS, *ABLATION], help="these sides")
    parser.add_argument("--compile", action="store_true", help="also torch.compile (minutes)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, help="default: 9, quick 3")
    parser.add_argument("--width", type=int, default=64, help="channels; another for a try")
    parser.add_argument("--blocks", type=int, default=9, help="residual blocks; likewise")
    parser.add_argument("--seconds", type=float, default=75, help="CUDA: rows past these are left")
    add_json_option(parser)
    parser.add_argument("--serve", choices=list(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 9)
    if options.rounds < 2:
        parser.error("--rounds: expected at least 2")
    if options.serve:
        torch.set_num_threads(options.threads)
        return serve(options.serve, Setting(options.size[0], 1, options.width, options.blocks))
    if options.device == "cuda":
        if not torch.cuda.is_available():
            print("train_step: no CUDA device: run on a GPU machine, or --device cpu", flush=True)
            return 2
        from train_step_cuda import on_cuda

        options.size = options.size or [256]
        return on_cuda(options)
    options.size = options.size or ([128] if options.quick else [128, 256])
    return on_cpu(options)


if __name__ == "__main__":
    sys.exit(main())
