"""status.json: how a job stands, for whoever watches it from outside.

Rewritten about once a second while the job runs, and at its end; a reader always finds a whole
document. `updated` that is some seconds old in the state "running" means that the process was
killed, or its machine stands still.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fastmrigan.files import write_whole
from fastmrigan.jobs.disk import told

NAME = "status.json"
SCHEMA = 1


@dataclass(frozen=True)
class Status:
    """The fields of status.json."""

    command: str  # synth or translate
    state: str  # running, finished, stopped (a signal; it can go on) or failed
    total: int  # slices of the plan
    done: int  # of them: on the disk, or left out
    made: int  # by this run
    left_out: int  # slices, of all runs
    flagged: int
    rate: float  # slices/s of this run
    seconds: float  # of this run
    seconds_left: float | None  # at this rate; null until the run has made a shard
    disk_left: int | None  # bytes free where the slices go; null where that cannot be told
    disk_needed: int | None  # bytes for the rest, at those a slice took so far; null until known
    disk_suffices: bool | None
    workers: int  # processes
    busy: dict[str, float]  # share of this run's time that each stage took, 0 to 1
    limit: str | None  # the stage that took most
    pid: int
    host: str
    started: str  # this run; UTC
    updated: str
    error: str | None = None  # what ended the run
    schema: int = field(default=SCHEMA)

    def write(self, path: Path) -> None:
        """Whole or not at all; not synced, since it tells of now. Raises OSError or DiskFull."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        write_whole(path, text.encode(), sync=False)


def what_limits(ended: Status) -> str:
    """A line of the stages' shares of the run."""
    stages = ", ".join(f"{stage} {100 * share:.0f} %" for stage, share in ended.busy.items())
    return f"busy: {stages} of the time; what limits is {ended.limit}"


def note(now: Status) -> str:
    """What stands behind rate and time left."""
    texts = []
    if now.limit is not None:
        texts.append(f"{now.limit} {100 * now.busy[now.limit]:.0f} % busy")
    if now.disk_left is not None:
        left = f"{told(now.disk_left)} of disk left"
        if now.disk_suffices is False and now.disk_needed is not None:
            left += f", NOT ENOUGH for the rest ({told(now.disk_needed)})"
        texts.append(left)
    return ", ".join(texts)
