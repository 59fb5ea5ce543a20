"""What happens to the processes of a job, told to its log, which opens with the first engine."""

from __future__ import annotations

from fastmrigan.jobs import log
from fastmrigan.jobs.watch import Watch


class Diary:
    """Keeps events until there is a log, with the time of day at which they happened."""

    def __init__(self) -> None:
        self._watch: Watch | None = None
        self._kept: list[tuple[str, dict[str, object]]] = []

    def event(self, event: str, **facts: object) -> None:
        """See `Watch.event`."""
        if self._watch is None:
            self._kept.append((event, {"at": log.now(), **facts}))
        else:
            self._watch.event(event, **facts)

    def open(self, watch: Watch) -> None:
        """The log is there: what was kept is told, and what comes is told at once."""
        self._watch, kept, self._kept = watch, self._kept, []
        for event, facts in kept:
            watch.event(event, **facts)
