"""One bulk job for half an hour: whether it keeps its pace, its memory and its bytes.

    python benchmarks/soak.py MODEL [--minutes 30] [--workers N] [--json FILE] [-- OPTIONS OF SYNTH]

MODEL samples. The job is started with more slices than it can make, by the pace of its first
seconds, and told to stop (SIGTERM) when the time is over. Meanwhile its resident memory is read
from /proc (of all its processes together; pages that several share count once; the largest of each
thirtieth of the time is shown), and each finished shard is held against its receipt and removed, so
that no disk fills. At the end there must have been as many slices as the job says, none twice. The
pace is told by the times at which shards were written: slices/s, and the median, the 99th
percentile and the longest of the seconds from one shard to the next.

Exits 6 where a shard is damaged, lost or doubled, the job ends otherwise than with 130, or memory
grows by more than 5 % from the second thirtieth to the last one. Where the job weighs its bytes
against the disk before it begins, `-- --no-budget-check` has it begin.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from arguments import with_more
from job_process import JobProcess, command_of, finished
from json_file import add_json_option, write_json

from fastmrigan.errors import FastMriganError
from fastmrigan.jobs import receipts
from fastmrigan.jobs.shards import remove
from fastmrigan.runtime.machine import machine

GROWTH = 1.05  # of memory, from the second window to the last one
WINDOWS = 30  # of a run
SAMPLE_SECONDS = 0.5
TRIED = 2**20  # slices of the job by which the pace is known
TRIED_SECONDS = 5.0
AMPLE = 3  # how many times what that pace would make is planned


class Soak:
    """What was seen of a job so far."""

    def __init__(self, out: Path, began: float) -> None:
        self.out, self.began = out, began
        self.memory: list[tuple[float, int]] = []  # (seconds since the beginning, bytes)
        self.shards: dict[int, tuple[float, int]] = {}  # number: (when it was written, slices)
        self.errors: list[str] = []

    def look(self, job: JobProcess, *, last: bool = False) -> None:
        """Samples memory; checks and removes what is finished."""
        if not last:
            resident = sum(map(resident_bytes, job.family()))
            self.memory.append((time.time() - self.began, resident))
        for name in finished(self.out):
            try:
                self._check(name)
            except (OSError, FastMriganError) as error:
                self.errors.append(f"{name}: {error}")

    def _check(self, name: str) -> None:
        path, note = self.out / name, receipts.path_of(self.out, name)
        written = path.stat().st_mtime - self.began
        receipt = receipts.read(note)
        if receipts.digests_of(path) != receipt.files:
            self.errors.append(f"{name}: is not what its receipt says")
        if receipt.shard in self.shards:
            self.errors.append(f"{name}: was made twice")
        self.shards[receipt.shard] = written, receipt.count
        remove(path)
        remove(note)

    @property
    def slices(self) -> int:
        return sum(count for _, count in self.shards.values())

    def windows(self, seconds: float) -> list[dict[str, Any]]:
        """Of equal length: pace, memory, and the seconds from one shard to the next."""
        length = seconds / WINDOWS
        rows = []
        written = sorted(self.shards.values())
        gaps = [(b[0], b[0] - a[0]) for a, b in pairwise(written)]
        for number in range(WINDOWS):
            since, until = number * length, (number + 1) * length
            slices = sum(count for when, count in written if since <= when < until)
            took = sorted(gap for when, gap in gaps if since <= when < until)
            memory = [resident for when, resident in self.memory if since <= when < until]
            rows.append(
                {
                    "until_s": round(until, 1),
                    "slices": slices,
                    "rate": round(slices / length, 1),
                    "rss_mb": round(max(memory, default=0) / 2**20, 1),
                    "shard_p50_s": round(statistics.median(took), 4) if took else None,
                    "shard_p99_s": round(took[int(0.99 * len(took))], 4) if took else None,
                    "shard_max_s": round(took[-1], 4) if took else None,
                }
            )
        return rows


def resident_bytes(number: int) -> int:
    """Of a process: its own pages, and its share of those that it shares with others."""
    try:
        told = Path(f"/proc/{number}/smaps_rollup").read_text()
    except OSError:  # it has just ended
        return 0
    line = next((line for line in told.splitlines() if line.startswith("Pss:")), "Pss: 0 kB")
    return 1024 * int(line.split()[1])


def pace(options: argparse.Namespace, out: Path) -> float:
    """Slices/s of the job's first seconds."""
    with JobProcess(synth(options, out, TRIED), out) as job:
        job.wait_for(1)
        began = time.monotonic()
        time.sleep(TRIED_SECONDS)
        found = options.shard_size * len(finished(out)) / (time.monotonic() - began)
        if job.process.poll() not in (None, 0):
            sys.exit(f"the job failed: {job.said().strip()}")
    return found


def synth(options: argparse.Namespace, out: Path, count: int) -> list[str]:
    plan = ("--count", count, "--shard-size", options.shard_size, "--seed", 7)
    workers = ("--workers", options.workers) if options.workers else ()
    how = ("--batch", options.batch, *workers, *options.more)
    return command_of("synth", options.model, "--out", out, *plan, *how)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: the job's own alone")
    parser.add_argument("--shard-size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--folder", type=Path, help="a disk to write to; default: the temporary one"
    )
    add_json_option(parser)
    options = with_more(parser)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        rate = pace(options, Path(temporary) / "tried")
        remove(Path(temporary) / "tried")
        out, count = Path(temporary) / "out", round(AMPLE * rate * 60 * options.minutes)
        with JobProcess(synth(options, out, max(count, TRIED)), out) as job:
            job.wait_for(1)
            soak = Soak(out, time.time())
            while (seconds := time.time() - soak.began) < 60 * options.minutes:
                soak.look(job)
                if job.process.poll() is not None:
                    break
                time.sleep(SAMPLE_SECONDS)
            job.process.terminate()
            status = job.wait()
            soak.look(job, last=True)
            said = job.said().strip().splitlines()[-1:]
    return report(options, soak, seconds, status, " ".join(said))


def report(options: argparse.Namespace, soak: Soak, seconds: float, status: int, said: str) -> int:
    rows = soak.windows(seconds)
    print(f"{'until':>8} {'slices/s':>10} {'RSS':>9} {'shard p50':>10} {'p99':>9} {'longest':>9}")
    for row in rows:
        p50, p99, longest = (
            "-" if row[key] is None else f"{1e3 * row[key]:.1f} ms"
            for key in ("shard_p50_s", "shard_p99_s", "shard_max_s")
        )
        memory = f"{row['rss_mb']:.0f} MB"
        print(
            f"{row['until_s']:6.0f} s {row['rate']:10,.0f} {memory:>9} {p50:>10} {p99:>9} "
            f"{longest:>9}"
        )
    growth = rows[-1]["rss_mb"] / max(rows[1]["rss_mb"], 0.1)
    faults = list(soak.errors)
    told = re.search(r"stopped with ([\d,]+) of", said)
    if status != 130 or told is None:
        faults.append(f"the job ended with {status}: {said}")
    elif int(told[1].replace(",", "")) != soak.slices:
        faults.append(f"the job made {told[1]} slices, {soak.slices:,} are there")
    if growth > GROWTH:
        faults.append(f"memory grew {growth:.3f} times (bar {GROWTH})")
    print(
        f"{soak.slices:,} slices in {len(soak.shards):,} shards, {seconds / 60:.1f} minutes, "
        f"{soak.slices / seconds:,.0f} slices/s; memory {growth:.3f} times the second window's; "
        f"{len(faults)} faults"
    )
    for fault in faults[:20]:
        print(fault)
    write_json(
        options.json,
        {
            "benchmark": "soak",
            "machine": machine(),
            "model": Path(options.model).name,
            "workers": options.workers,
            "shard_size": options.shard_size,
            "seconds": round(seconds, 1),
            "slices": soak.slices,
            "shards": len(soak.shards),
            "memory_growth": round(growth, 4),
            "faults": faults,
            "windows": rows,
        },
    )
    return 6 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
