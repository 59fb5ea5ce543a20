"""log.jsonl: what happened in a job, a line an event, over all its runs.

Every line has `event`, `at` (UTC) and `elapsed` (seconds of its run, by a clock that no change of
the time of day moves; 0 or little more of what happened before the first engine was open). The
events and what they have beside that:

start, resume  command, version, model_sha256, recipe, contrast, total and done (slices), workers,
               pid, host; resume is a start in a folder that has slices already
shard          number, first and count (slices), left_out and flagged (how many), worker, seconds
               (from its first engine call to the disk), waits (seconds for each batch of the
               engine), busy (seconds by stage, since the worker's shard before)
death          a worker that ended before its time: worker, pid, how (its exit status or signal),
               shards (numbers of those it was at); an actor of Ray has its node (null where it had
               none yet) for pid, and what Ray says of its end
restart        another process in its place: worker, pid; an actor of Ray, once its engine is open,
               has a new number, and its node for pid
quarantine     an input that a job gave up: index, why
workers        workers (processes that make slices from now on)
error          what made the run fail: message
stopped        Ctrl-C or SIGTERM ended the run: message
end            state (finished, stopped or failed), done (slices)

A line is one write, handed to the operating system at once: a process that is killed leaves at
most its last line torn, and a machine that loses power a few of the last. Both can be read.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NAME = "log.jsonl"


def now() -> str:
    """The time of day, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JobLog:
    """A log that is written to; lines of earlier runs stay."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._file = path.open("a+b", buffering=0)
        end = self._file.seek(0, 2)
        self._whole = True  # the last line
        if end:
            self._file.seek(end - 1)
            self._whole = self._file.read(1) == b"\n"

    def write(self, event: str, elapsed: float, **facts: object) -> None:
        """Adds a line. Raises OSError, and leaves the log fit for the next line."""
        line = {"event": event, "at": now(), "elapsed": round(elapsed, 3)} | facts
        written = (json.dumps(line) + "\n").encode()
        if not self._whole:
            written = b"\n" + written  # the torn line stays alone
        self._whole = False
        self._whole = self._file.write(written) == len(written)  # fewer where the disk is full

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The events of a log, and how many lines are none. Raises OSError."""
    events: list[dict[str, Any]] = []
    unreadable = 0
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                event = None
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                events.append(event)
            else:
                unreadable += 1
    return events, unreadable
