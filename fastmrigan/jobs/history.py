"""What the log and the receipts of a job say of all its runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fastmrigan.errors import InputRejected
from fastmrigan.jobs import log, receipts
from fastmrigan.jobs.formats import FORMATS

Event = dict[str, Any]
STATES = ("finished", "stopped", "failed")
UNKNOWN = "killed or running"
SHARD: dict[str, type | tuple[type, ...]] = {  # what a line of a shard must have
    **dict.fromkeys(("number", "first", "count", "left_out", "flagged"), int),
    **dict.fromkeys(("elapsed", "seconds"), (int, float)),
}


@dataclass
class Run:
    """One run of a job, or of a part of it: the lines of the log from a start on."""

    start: Event
    shards: list[Event] = field(default_factory=list)
    others: list[Event] = field(default_factory=list)
    end: Event | None = None
    elapsed: float = 0.0  # seconds, at its last line
    part: range | None = None  # places of the plan it was for; None: the whole

    @property
    def state(self) -> str:
        """finished, stopped or failed; UNKNOWN where it has not said that it ended."""
        return UNKNOWN if self.end is None else str(self.end["state"])

    @property
    def made(self) -> int:
        """Slices of the plan that it put on the disk, or left out."""
        return sum(line["count"] for line in self.shards)

    @property
    def begun(self) -> float | None:
        """Seconds since 1970; None where its start does not tell."""
        try:
            return datetime.fromisoformat(str(self.start["at"])).timestamp()
        except ValueError:
            return None

    @property
    def workers(self) -> int:
        """Processes that made slices, at most."""
        changes = [line for line in self.others if line["event"] == "workers"]
        return max(1, *(int(line.get("workers", 1)) for line in (self.start, *changes)))


@dataclass
class History:
    """All runs of a job, the oldest first, and what came of its shards. Of jobs that make a part of
    the plan each, several may run at the same time."""

    runs: list[Run] = field(default_factory=list)
    unreadable: int = 0  # lines of the log
    missing: list[str] = field(default_factory=list)  # sentences: what cannot be told

    @property
    def shards(self) -> list[Event]:
        """The last line of each shard; one that was made again has several."""
        return list({line["number"]: line for run in self.runs for line in run.shards}.values())


def read(out: Path) -> History:
    """Of the job in `out`: what can be read of its logs. `part`s of a job have a log each."""
    found = History()
    for path in sorted(out.glob(log.NAME.replace(".", "*."))):
        try:
            events, unreadable = log.read(path)
        except OSError as error:
            found.missing.append(f"{path.name} cannot be read ({error.strerror}).")
            continue
        found.unreadable += unreadable
        found.runs += runs_of(events, part_of(path.name))
    found.runs.sort(key=lambda run: str(run.start["at"]))
    if not found.runs:
        found.missing.append(f"{log.NAME} tells of no run.")
    return found


def part_of(name: str) -> range | None:
    """Of the log log-<A>-<B>.jsonl, the places A up to B of the plan; of log.jsonl None."""
    stem, _, extension = log.NAME.partition(".")
    named = re.fullmatch(rf"{stem}-(\d+)-(\d+)\.{extension}", name)
    return None if named is None else range(int(named[1]), int(named[2]))


def runs_of(events: Iterable[Event], part: range | None = None) -> list[Run]:
    """The runs of one log; lines that lack what their kind has are passed over."""
    runs: list[Run] = []
    for line in events:
        if line["event"] in ("start", "resume"):
            runs.append(Run(line | {"at": line.get("at", "")}, part=part))
            continue
        if not runs:
            continue
        run = runs[-1]
        run.elapsed = max(run.elapsed, float(line.get("elapsed", 0.0)))
        if line["event"] == "end":
            run.end = line if line.get("state") in STATES else None
        elif line["event"] != "shard":
            run.others.append(line)
        elif all(isinstance(line.get(key), kind) for key, kind in SHARD.items()):
            run.shards.append(line)
    return runs


def unfinished(runs: Iterable[Run]) -> list[Run]:
    """Of the whole and of each part, the last run, where it has not finished and no run that began
    later has finished all of that part."""
    last: dict[range | None, Run] = {}
    for run in runs:  # the oldest first
        if run.state == "finished":
            last = {part: each for part, each in last.items() if not within(part, run.part)}
        last.pop(run.part, None)  # to the end
        last[run.part] = run
    return [run for run in last.values() if run.state != "finished"]


def within(part: range | None, other: range | None) -> bool:
    """Whether all of a part is another's too; None is the whole."""
    if other is None:
        return True
    return part is not None and other.start <= part.start and part.stop <= other.stop


def timeline(runs: Iterable[Run]) -> tuple[list[float], float]:
    """When each run began, in seconds of the time in which any of them was at work, and how long
    that time was. Of runs at the same time it is counted once; the time between runs is left out.

    runs: the oldest first. One that does not tell when it began follows those before it.
    """
    starts: list[float] = []
    total, behind = 0.0, 0.0  # behind: when its second 0 would have been
    for run in runs:
        begun = run.begun
        if begun is None or begun - behind >= total or not starts:
            start, behind = total, (behind if begun is None else begun - total)
        else:
            start = max(0.0, begun - behind)
        starts.append(start)
        total = max(total, start + run.elapsed)
    return starts, total


@dataclass
class Rejects:
    """Slices that the job left out or flagged."""

    left_out: dict[int, str] = field(default_factory=dict)  # index: why
    flagged: dict[int, str] = field(default_factory=dict)
    unlogged: int = 0  # slices of shards that are there and not in the log: a run was killed
    without_files: set[int] = field(default_factory=set)  # shards that are done and have no slice


def rejects(out: Path, history: History, own: Container[int] | None = None) -> Rejects:
    """From the receipts of those shards alone for which the log has any, or has no line.

    own: numbers of the shards that are asked for; None asks for all.
    """
    found = Rejects()
    clean = {line["number"]: not (line["left_out"] or line["flagged"]) for line in history.shards}
    for path in sorted((out / receipts.FOLDER).glob("*.json")):
        number = re.search(r"\d+", path.name)
        if number is not None and clean.get(int(number[0]), False):
            continue
        if number is not None and own is not None and int(number[0]) not in own:
            continue
        there = (out / path.name.removesuffix(".json")).exists()
        try:
            receipt = receipts.read(path)
        except (InputRejected, OSError) as error:
            history.missing.append(f"A receipt cannot be read: {error}")
            continue
        if not there and (receipt.files or not _entire(path.name.removesuffix(".json"))):
            continue  # of a shard that is still to be made
        if not there:
            found.without_files.add(receipt.shard)
        found.left_out |= receipt.left_out
        found.flagged |= receipt.flagged
        if receipt.shard not in clean:
            found.unlogged += receipt.count
    return found


def _entire(name: str) -> bool:
    """Whether the shard of that name is done where its receipt names no files: of other formats it
    has at least an empty folder."""
    return any(
        fmt.entire and re.fullmatch(rf"{fmt.stem}-\d+{re.escape(fmt.suffix)}", name) is not None
        for fmt in FORMATS.values()
    )


def by_reason(why: dict[int, str]) -> list[tuple[str, list[int]]]:
    """Reasons with the slices they are given for, the commonest first. Reasons that differ in their
    numbers alone are one: a quality gate says by how much a slice missed it."""
    kinds: dict[str, list[int]] = {}
    for index, reason in sorted(why.items()):
        kinds.setdefault(re.sub(r"-?\d+(\.\d+)?(e[-+]?\d+)?", "…", reason), []).append(index)
    counted = Counter({kind: len(indices) for kind, indices in kinds.items()})
    return [
        (why[kinds[kind][0]] if count == 1 else kind, kinds[kind])
        for kind, count in counted.most_common()
    ]
