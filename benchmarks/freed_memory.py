"""What fresh memory costs instance norm at batch 8, with and without keep_freed_memory().

    python benchmarks/freed_memory.py [--quick] [--threads 2] [--json FILE]

glibc gives blocks of more than 32 MB back to the system at every free, and the next one costs a
page fault for every 4 KB. Three ways are compared, each in processes of its own since each concerns
the whole process, in turn:

    default   as a plain Python process runs
    kept      after fastmrigan.ops.keep_freed_memory()
    huge      with THP_MEM_ALLOC_ENABLE=1, PyTorch's own switch for 2 MB pages

Prints, for the forward and for forward and backward: the milliseconds of both sides, their ratio,
the minor page faults of a call, and the fused forward into a buffer that exists, which is the limit
that no allocator can beat. Shown, without a bar; exits 6 where a result is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from instance_norm_sides import (
    Side,
    check,
    describe_cpu,
    eager,
    forward_and_backward,
    fused,
    grad_for,
    make_inputs,
)
from json_file import add_json_option, write_json
from timing import interleave

from fastmrigan.ops import keep_freed_memory

SHAPES = ((8, 64, 128, 128), (8, 64, 256, 256))  # 34 and 134 MB in fp32
WAYS = {"default": {}, "kept": {}, "huge": {"THP_MEM_ALLOC_ENABLE": "1"}}


def minor_faults(call: Callable[[], object], calls: int = 3) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(calls):
        call()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / calls


def child(rounds: int) -> list[dict[str, object]]:
    rows = []
    for shape in SHAPES:
        for gradients in (False, True):
            inputs = make_inputs(shape, gradients=gradients)
            with torch.set_grad_enabled(gradients):
                sides: dict[str, Callable[[], object]] = {}
                for name, side in (("fused", fused), ("eager", eager)):
                    check(side, inputs)
                    sides[name] = whole(side, inputs) if gradients else partial(side, inputs.x)
                if not gradients:
                    sides["existing"] = partial(fused, inputs.x, out=torch.empty_like(inputs.x))
                seconds = interleave(sides, rounds)
                rows.append(
                    {
                        "row": "backward" if gradients else "forward",
                        "shape": list(shape),
                        "ms": {n: 1e3 * statistics.median(s) for n, s in seconds.items()},
                        "faults": {name: minor_faults(call) for name, call in sides.items()},
                    }
                )
    return rows


def whole(side: Side, inputs) -> Callable[[], object]:
    return partial(forward_and_backward, side, inputs, grad_for(side, inputs))


def in_child(way: str, rounds: int, threads: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--way", way, "--rounds", str(rounds)]
    done = subprocess.run(
        [*command, "--threads", str(threads)],
        env={**os.environ, **WAYS[way]},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        sys.exit(6)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer processes and rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    add_json_option(parser)
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.way:
        if options.way == "kept":
            keep_freed_memory()
        rows = child(options.rounds)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"rows": rows, "peak_mb": peak}))
        return 0

    document = {"benchmark": "freed_memory", "machine": describe_cpu(), "rows": []}
    print(", ".join(f"{key} {value}" for key, value in document["machine"].items()), flush=True)
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(1 if options.quick else 3):
        for way in WAYS:
            found[way].append(in_child(way, 5 if options.quick else 15, options.threads))
    for number in range(len(found["default"][0]["rows"])):
        for way, processes in found.items():
            rows = [process["rows"][number] for process in processes]
            row = {"way": way, "row": rows[0]["row"], "shape": rows[0]["shape"]}
            for kind in ("ms", "faults"):
                row[kind] = {n: statistics.median(r[kind][n] for r in rows) for n in rows[0][kind]}
            row["ratio"] = statistics.median(r["ms"]["eager"] / r["ms"]["fused"] for r in rows)
            document["rows"].append(row)
            parts = [
                f"{name} {row['ms'][name]:.2f} ms, {row['faults'][name]:,.0f} faults"
                for name in row["ms"]
            ]
            print(
                f"{row['row']:9} {row['shape']} {way:8} eager / fused {row['ratio']:.2f}x: "
                f"{'; '.join(parts)}"
            )
    document["peak_mb"] = {
        way: statistics.median(process["peak_mb"] for process in processes)
        for way, processes in found.items()
    }
    sizes = ", ".join(f"{way} {peak:,.0f} MB" for way, peak in document["peak_mb"].items())
    print(f"peak memory of a process: {sizes}")
    write_json(options.json, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
