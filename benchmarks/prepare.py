"""Small PNG to a prepared data set: worker processes against decoding in `prepare`'s own process.

Run: OMP_NUM_THREADS=1 python benchmarks/prepare.py [--count 4500] [--rounds 5] [--quick]
Small files are the pool's worst case: each is decoded in less than a millisecond, and handed over
twice. Checks first that both sides give the same bytes, then runs them in turn and prints the wall
time and the processor time of each, and their ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fastmrigan.imaging import prepare as room
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.phantom.slices import PhantomSettings
from fastmrigan.imaging.phantom.writer import write_phantom
from fastmrigan.imaging.pool import DecodePool

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from prepare_inputs import InProcess

PATTERN = "(head[0-9]+)_"


def processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def one(pool: Any, source: Path, out: Path) -> tuple[float, float]:
    """Wall and processor seconds of one run."""
    vars(room)["DecodePool"] = pool
    options = PrepareOptions(size=64, group_pattern=PATTERN, force=True)
    began, processor = time.perf_counter(), processor_seconds()
    with contextlib.redirect_stderr(io.StringIO()):
        room.prepare(source, out, options)
    return time.perf_counter() - began, processor_seconds() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=4500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few files, two rounds: function only")
    options = parser.parse_args()
    count, rounds = (200, 2) if options.quick else (options.count, options.rounds)
    sides: dict[str, Any] = {"workers": DecodePool, "one process": InProcess}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with contextlib.redirect_stderr(io.StringIO()):
            write_phantom(root / "phantom", count, PhantomSettings(64, ("t2",)))
        source = root / "phantom" / "t2"
        digests = set()
        for name, pool in sides.items():
            one(pool, source, root / name)
            made = sorted((root / name).iterdir())
            digests.add(hashlib.sha256(b"".join(path.read_bytes() for path in made)).hexdigest())
        if len(digests) != 1:
            raise SystemExit("the two sides wrote different bytes")
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for turn in range(rounds):
            for name in list(sides)[:: 1 if turn % 2 else -1]:
                taken[name].append(one(sides[name], source, root / name))
    cores = len(os.sched_getaffinity(0))
    print(f"{count:,} PNG of 64x64, {cores} cores of {platform.processor() or platform.machine()}")
    walls, used = ({n: [each[i] for each in taken[n]] for n in taken} for i in (0, 1))
    for name in sides:
        wall, processor = statistics.median(walls[name]), statistics.median(used[name])
        print(
            f"{name}: median {wall:.2f} s (min {min(walls[name]):.2f}), "
            f"{count / wall:,.0f} files/s; processor {processor:.2f} s"
        )
    ratios = [a / b for a, b in zip(walls["workers"], walls["one process"], strict=True)]
    print(f"workers / one process: {statistics.median(ratios):.2f} (wall; 1 or less is wanted)")


if __name__ == "__main__":
    main()
