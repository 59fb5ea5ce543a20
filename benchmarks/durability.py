"""What it costs a bulk job that every shard is on the disk for good before it counts as done.

    python benchmarks/durability.py MODEL [--count 20000] [--rounds 5] [--format shard]
                                          [--folder DIR] [--json FILE]

The same job, in this process and in turn: as it is, and with os.fsync replaced by nothing. Between
two of them the system writes out what it still holds, outside the time that counts. First both
sides' files are compared. Prints slices/s of both, the difference a slice, of medians and in each
round, and what one fsync of a new file of the same size takes on this disk, which no job can
avoid a shard. Exits 6 above the bar of 0.2 ms a slice.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from json_file import add_json_option, write_json

from fastmrigan.jobs import receipts
from fastmrigan.jobs.sampling import JobOptions, synthesise
from fastmrigan.runtime import load
from fastmrigan.runtime.generator import Generator
from fastmrigan.runtime.machine import machine

BAR_MS = 0.2
SIDES = ("synced", "not synced")


@contextmanager
def fsync_as(side: str) -> Iterator[list[int]]:
    """Counts calls of os.fsync; they do nothing on the side that is not synced."""
    real, calls = os.fsync, [0]

    def counted(descriptor: int) -> None:
        calls[0] += 1
        if side == "synced":
            real(descriptor)

    os.fsync = counted  # type: ignore[assignment]
    try:
        yield calls
    finally:
        os.fsync = real


def digests(out: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for receipt in (out / receipts.FOLDER).iterdir():
        found |= receipts.read(receipt).files
    return found


def job(
    generator: Generator, out: Path, side: str, options: argparse.Namespace
) -> dict[str, float]:
    """Seconds of one job, and how often it called fsync."""
    os.sync()
    with fsync_as(side) as calls:
        made = synthesise(generator, JobOptions(out, options.count, 7, options.format))
    assert made.made == options.count
    return {"seconds": made.seconds, "fsyncs": calls[0]}


def one_fsync(folder: Path, size: int, tries: int = 20) -> float:
    """Median seconds of writing and syncing a new file of `size` bytes, less those of writing."""
    content, found = os.urandom(size), []
    for number in range(tries):
        with (folder / f"file-{number}").open("wb") as file:
            file.write(content)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            found.append(time.perf_counter() - began)
    return statistics.median(found)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--format", default="shard")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--folder", help="a disk to write to; default: the temporary folder")
    add_json_option(parser)
    options = parser.parse_args()
    generator = load(options.model, batch=options.batch, mode="throughput")
    generator.sample(options.batch)
    took: dict[str, list[float]] = {side: [] for side in SIDES}
    fsyncs = 0.0
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder, made = Path(temporary), {}
        for number in range(-1, options.rounds):  # the first one warms up, and its files compare
            for side in SIDES[:: 1 if number % 2 else -1]:
                out = folder / side.replace(" ", "-")
                done = job(generator, out, side, options)
                if number < 0:
                    made[side] = digests(out)
                else:
                    took[side].append(done["seconds"])
                    fsyncs = max(fsyncs, done["fsyncs"])
                files = [*out.glob("shard-*.*"), *out.glob("shard-*/*")]
                size = max(path.stat().st_size for path in files)
                shutil.rmtree(out)
        if made["synced"] != made["not synced"] or not made["synced"]:
            print("the two sides made other files")
            return 6
        alone = one_fsync(folder, size)
    each = [1e3 * (a - b) / options.count for a, b in zip(*(took[s] for s in SIDES), strict=True)]
    medians = {side: statistics.median(seconds) for side, seconds in took.items()}
    cost = 1e3 * (medians["synced"] - medians["not synced"]) / options.count
    for side, seconds in medians.items():
        print(f"{side:10} {options.count / seconds:10,.0f} slices/s (median of {options.rounds})")
    print(
        f"durability costs {cost:.4f} ms a slice (rounds: {min(each):.4f} to {max(each):.4f}; bar "
        f"{BAR_MS} ms) in {fsyncs:,.0f} fsyncs of {options.count:,} slices; one of a new file of "
        f"{size:,} bytes: {1e3 * alone:.2f} ms"
    )
    write_json(
        options.json,
        {
            "benchmark": "durability",
            "machine": machine(),
            "model": Path(options.model).name,
            "count": options.count,
            "format": options.format,
            "seconds": took,
            "ms_a_slice": cost,
            "bar_ms": BAR_MS,
            "fsyncs": fsyncs,
            "one_fsync_ms": 1e3 * alone,
        },
    )
    return 0 if cost <= BAR_MS else 6


if __name__ == "__main__":
    sys.exit(main())
