"""What the log and the receipts of a job say of all its runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastmrigan.errors import InputRejected
from fastmrigan.jobs import log, receipts

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

    @property
    def state(self) -> str:
        """finished, stopped or failed; UNKNOWN where it has not said that it ended."""
        return UNKNOWN if self.end is None else str(self.end["state"])

    @property
    def made(self) -> int:
        """Slices of the plan that it put on the disk, or left out."""
        return sum(line["count"] for line in self.shards)

    @property
    def workers(self) -> int:
        """Processes that made slices, at most."""
        changes = [line for line in self.others if line["event"] == "workers"]
        return max(1, *(int(line.get("workers", 1)) for line in (self.start, *changes)))


@dataclass
class History:
    """All runs of a job, the oldest first, and what came of its shards."""

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
        found.runs += runs_of(events)
    found.runs.sort(key=lambda run: str(run.start["at"]))
    if not found.runs:
        found.missing.append(f"{log.NAME} tells of no run.")
    return found


def runs_of(events: Iterable[Event]) -> list[Run]:
    """The runs of one log; lines that lack what their kind has are passed over."""
    runs: list[Run] = []
    for line in events:
        if line["event"] in ("start", "resume"):
            runs.append(Run(line | {"at": line.get("at", "")}))
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


@dataclass
class Rejects:
    """Slices that the job left out or flagged."""

    left_out: dict[int, str] = field(default_factory=dict)  # index: why
    flagged: dict[int, str] = field(default_factory=dict)
    unlogged: int = 0  # slices of shards that are there and not in the log: a run was killed


def rejects(out: Path, history: History) -> Rejects:
    """From the receipts of those shards alone for which the log has any, or has no line."""
    found = Rejects()
    clean = {line["number"]: not (line["left_out"] or line["flagged"]) for line in history.shards}
    for path in sorted((out / receipts.FOLDER).glob("*.json")):
        number = re.search(r"\d+", path.name)
        if number is not None and clean.get(int(number[0]), False):
            continue
        if not (out / path.name.removesuffix(".json")).exists():
            continue  # of a shard that is still to be made
        try:
            receipt = receipts.read(path)
        except (InputRejected, OSError) as error:
            history.missing.append(f"A receipt cannot be read: {error}")
            continue
        found.left_out |= receipt.left_out
        found.flagged |= receipt.flagged
        if receipt.shard not in clean:
            found.unlogged += receipt.count
    return found


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
