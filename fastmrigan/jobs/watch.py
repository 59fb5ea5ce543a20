"""What a running job tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from fastmrigan.jobs.plan import Content, Shard
from fastmrigan.progress import Progress


@dataclass(frozen=True)
class ShardDone:
    """A shard that is on the disk for good; plain values, so that it crosses processes."""

    shard: Shard
    left_out: Mapping[int, str]  # index: why
    flagged: Mapping[int, str]
    # Seconds that the process which made it has spent so far in each stage: waiting for the engine,
    # quantising, writing
    busy: Mapping[str, float]

    @classmethod
    def of(cls, content: Content, busy: Mapping[str, float]) -> ShardDone:
        return cls(content.shard, dict(content.left_out), dict(content.flagged), dict(busy))


class Watch:
    """Progress of a job; use it in a `with` statement.

    done: slices of its plan that are on the disk, or left out.
    """

    def __init__(self, command: str, total: int, start: int) -> None:
        self._progress = Progress(command, total, "slices", start=start)

    def __enter__(self) -> Watch:
        self._progress.__enter__()
        return self

    def shard_done(self, done: ShardDone) -> None:
        self._progress.advance(done.shard.count)

    @property
    def done(self) -> int:
        return self._progress.done

    @property
    def made(self) -> int:
        """By this run."""
        return self._progress.done - self._progress.start

    @property
    def seconds(self) -> float:
        return self._progress.seconds

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._progress.__exit__(kind, error, tb)
