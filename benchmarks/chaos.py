"""A bulk job in a storm: killed, stopped, starved and corrupted, round after round.

    python benchmarks/chaos.py MODEL [--minutes 5] [--rounds N] [--workers N] [--seed 0]
                               [--json FILE] [-- OPTIONS OF SYNTH]

MODEL samples. The job is made once undisturbed. Each round then makes it again in a folder of its
own and does to it, in an order that the seed decides:

    kill      kill -9 at a random moment: of all its processes, of the first one, or of a worker
    stop      SIGTERM at a random moment
    fill      its disk filled while it runs, and emptied again (every second round, on a tmpfs)
    second    the same command once more while it runs, which must be refused; then SIGTERM
    corrupt   a finished shard or its receipt damaged; `fastmrigan verify` must find that, and
              discard no other

and lets it end. After each of these, every finished file must be the undisturbed run's, at the end
all of them, once each, and `verify` must call them whole. Prints what was done and how jobs ended;
exits 6 on any loss, with a line for each.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from arguments import with_more
from job_process import JobProcess, command_of, contents, finished, half_made
from json_file import add_json_option, write_json
from small_disk import NoSmallDisk, SmallDisk

from fastmrigan.runtime.machine import machine

DISTURBANCES = 6  # a round
ROOM_LEFT = 300 << 10  # bytes, of a disk that is filled: for none to some shards


@dataclass
class Done:
    """What was done of one kind."""

    times: int = 0
    midway: int = 0  # with some shards finished, but not all
    ended: Counter[str] = field(default_factory=Counter)  # how the job ended


class Storm:
    """What is done to a job, and what came of it.

    options: of the command line; expected: `contents` of an undisturbed run; first: seconds until
    that one had its first shard.
    """

    def __init__(
        self, options: argparse.Namespace, expected: dict[str, str], shards: int, first: float
    ) -> None:
        self.options, self.expected, self.shards, self.first = options, expected, shards, first
        self.dice = random.Random(options.seed)
        self.done = {name: Done() for name in ("kill", "stop", "fill", "second", "corrupt", "end")}
        self.losses: list[str] = []
        self.rounds = 0

    def round(self, out: Path, disk: SmallDisk | None) -> None:
        """One job from its beginning to its end."""
        self.rounds += 1
        kinds = ["kill", "kill", "stop", "second", "corrupt", *(["fill", "fill"] if disk else [])]
        for left in range(DISTURBANCES, 0, -1):
            kind = self.dice.choice(kinds)
            if kind == "corrupt":
                self._corrupt(out)
            else:
                self._disturb(kind, out, disk, left)
            self._hold(kind, out)
        with JobProcess(self._synth(out), out) as job:
            self._ended("end", out, job, job.wait(), {0})
        self._hold("end", out)
        if self.expected.items() - contents(out).items():
            self._lost("end", out, "slices are not there")
        if half_made(out):
            self._lost("end", out, f"{', '.join(half_made(out))} was left behind")
        self._verify(out, 0)

    def _synth(self, out: Path) -> list[str]:
        return synth(self.options, out)

    def _disturb(self, kind: str, out: Path, disk: SmallDisk | None, left: int) -> None:
        """Starts the job and does something to it, which ends it or does not."""
        done, there, left_before = self.done[kind], len(finished(out)), set(half_made(out))
        done.times += 1
        with JobProcess(self._synth(out), out) as job:
            early = self.dice.random() < 0.2
            if early:  # anywhere from the process's first instruction on
                time.sleep(self.dice.uniform(0, 1.2 * self.first))
            else:
                job.wait_for(there + self.dice.randint(1, max(1, (self.shards - there) // left)))
                time.sleep(self.dice.uniform(0, 0.01))
            done.midway += 0 < len(finished(out)) < self.shards
            if kind == "kill":
                killed = job.kill(self.dice)
                # 5: a worker that is killed before its engine is open is taken for a bad engine
                self._ended(kind, out, job, job.wait(), {-signal.SIGKILL} if killed else {0, 5})
            elif kind == "stop":
                job.process.terminate()
                # Before the command line listens, SIGTERM ends a process as it ends any other
                self._ended(kind, out, job, job.wait(), {0, 130, -signal.SIGTERM})
            elif kind == "second":
                self._second(out, job, early)
            elif disk is not None:
                disk.fill(but=self.dice.randrange(ROOM_LEFT))
                self._ended(kind, out, job, job.wait(), {0, 4})
                disk.empty()
        new = set(half_made(out)) - left_before
        if kind != "kill" and new:
            self._lost(kind, out, f"{', '.join(new)} was left behind")

    def _second(self, out: Path, job: JobProcess, early: bool) -> None:
        """The first one is halted meanwhile: it holds its folder, and does not end too soon."""
        job.process.send_signal(signal.SIGSTOP)
        ended = job.process.poll() is not None
        again = subprocess.run(self._synth(out), capture_output=True, text=True)
        job.process.send_signal(signal.SIGCONT)
        refused = again.returncode == 2 and "another job is writing" in again.stderr
        if not (refused or ended or early):
            self._lost("second", out, f"a second writer ended with {again.returncode}")
        job.process.terminate()
        # Where the second one came first, the first one is refused
        fine = {0, 2, 130, -signal.SIGTERM} if early else {0, 130}
        self._ended("second", out, job, job.wait(), fine)

    def _corrupt(self, out: Path) -> None:
        """Damages a finished file; `verify` must find that, and discard its shard alone."""
        names = finished(out)
        if not names:
            return
        shard = self.dice.choice(names)
        receipt = out / "receipts" / f"{shard}.json"
        parts = sorted((out / shard).iterdir()) if (out / shard).is_dir() else [out / shard]
        path = self.dice.choice([*parts, receipt])
        how = self.dice.choice(["a byte", "cut", "gone"])
        content = bytearray(path.read_bytes())
        if how == "a byte":
            content[self.dice.randrange(len(content))] ^= 1 << self.dice.randrange(8)
        elif how == "cut":
            del content[self.dice.randrange(len(content)) :]
        path.write_bytes(content)
        if how == "gone":
            path.unlink()
        done = self.done["corrupt"]
        done.times += 1
        done.midway += len(names) < self.shards
        done.ended[f"{how}: {'receipt' if path == receipt else 'shard'}"] += 1
        self._verify(out, 6)
        if path != out / shard or how != "gone":  # a shard that is gone is nothing to discard
            said = self._verify(out, 6, "--discard")
            if f"{shard}: " not in said or (out / shard).exists():
                self._lost("corrupt", out, f"{shard} was damaged ({how}) and not found")
        if len(finished(out)) != len(names) - 1:
            self._lost("corrupt", out, "another shard than the damaged one was discarded")

    def _verify(self, out: Path, expected: int, *more: str) -> str:
        told = subprocess.run(command_of("verify", out, *more), capture_output=True, text=True)
        if told.returncode != expected:
            self._lost("verify", out, f"ended with {told.returncode}: {told.stdout}{told.stderr}")
        return told.stdout

    def _hold(self, kind: str, out: Path) -> None:
        """Whatever is finished must be what the undisturbed run made."""
        if not (out / "run.json").exists():
            return
        there = contents(out)
        receipts = {name for name in there if name.startswith("receipts/")}
        for name, digest in there.items():
            if self.expected.get(name) != digest:
                self._lost(kind, out, f"{name} is not what it was in the undisturbed run")
        for name in finished(out):
            if f"receipts/{name}.json" not in receipts:
                self._lost(kind, out, f"{name} has no receipt")

    def _ended(self, kind: str, out: Path, job: JobProcess, status: int, fine: set[int]) -> None:
        self.done[kind].ended[str(status)] += 1
        if status not in fine:
            self._lost(kind, out, f"the job ended with {status}: {job.said().strip()}")

    def _lost(self, kind: str, out: Path, what: str) -> None:
        self.losses.append(f"round {self.rounds}, {kind}, {out}: {' '.join(what.split())}")
        print(self.losses[-1], flush=True)


def synth(options: argparse.Namespace, out: Path) -> list[str]:
    plan = ("--count", options.shards * options.shard_size, "--shard-size", options.shard_size)
    workers = ("--workers", options.workers) if options.workers else ()
    how = ("--format", options.format, "--seed", 7, "--batch", options.batch)
    return command_of("synth", options.model, "--out", out, *plan, *how, *workers, *options.more)


def undisturbed(options: argparse.Namespace, out: Path) -> float:
    """Makes the whole job; gives the seconds until its first shard was there."""
    began = time.monotonic()
    with JobProcess(synth(options, out), out) as job:
        job.wait_for(1)
        first = time.monotonic() - began
        if job.wait() != 0:
            sys.exit(f"the undisturbed run failed: {job.said().strip()}")
    return first


@contextmanager
def small_disk(folder: Path, needed: int) -> Iterator[SmallDisk | None]:
    """Room for the job and as much again; None, and why, where there can be none."""
    try:
        with SmallDisk(folder / "disk", f"size={2 * needed + (64 << 20)}") as disk:
            yield disk
    except NoSmallDisk as why:
        print(f"no disk will be filled: {why}")
        yield None


def table(storm: Storm) -> None:
    print(f"{'':9}{'times':>6}{'midway':>8}  ended with")
    for kind, done in storm.done.items():
        ended = ", ".join(f"{how} ({times})" for how, times in sorted(done.ended.items()))
        print(f"{kind:9}{done.times or sum(done.ended.values()):6}{done.midway:8}  {ended}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, help="end after so many, however long they take")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: the job's own alone")
    parser.add_argument("--seed", type=int, default=0, help="of what is done, and when")
    parser.add_argument("--shards", type=int, default=80)
    parser.add_argument("--shard-size", type=int, default=32)
    parser.add_argument("--format", default="shard")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--folder", type=Path, help="a disk to write to; default: the temporary one"
    )
    add_json_option(parser)
    options = with_more(parser)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        first = undisturbed(options, folder / "whole")
        expected = contents(folder / "whole")
        needed = sum(512 * path.stat().st_blocks for path in (folder / "whole").rglob("*"))
        storm = Storm(options, expected, options.shards, first)
        began = time.monotonic()
        with small_disk(folder, needed) as disk:
            while True:
                on_small = disk if storm.rounds % 2 == 0 else None
                out = (on_small.path if on_small else folder) / f"round-{storm.rounds + 1}"
                storm.round(out, on_small)
                minutes = (time.monotonic() - began) / 60
                losses = f"{len(storm.losses)} losses"
                print(f"round {storm.rounds}: {minutes:.1f} minutes, {losses}", flush=True)
                shutil.rmtree(out)
                if options.rounds is not None:
                    if storm.rounds >= options.rounds:
                        break
                elif minutes >= options.minutes:
                    break
    table(storm)
    print(f"{storm.rounds} jobs of {options.shards} shards: {len(storm.losses)} losses")
    write_json(options.json, document(options, storm, minutes))
    return 6 if storm.losses else 0


def document(options: argparse.Namespace, storm: Storm, minutes: float) -> dict[str, Any]:
    return {
        "benchmark": "chaos",
        "machine": machine(),
        "model": Path(options.model).name,
        "workers": options.workers,
        "seed": options.seed,
        "format": options.format,
        "shards": options.shards,
        "shard_size": options.shard_size,
        "minutes": round(minutes, 2),
        "rounds": storm.rounds,
        "done": {
            kind: {"times": done.times, "midway": done.midway, "ended": dict(done.ended)}
            for kind, done in storm.done.items()
        },
        "losses": storm.losses,
    }


if __name__ == "__main__":
    sys.exit(main())
