"""What a job's supervisor and its workers say to each other: plain values, pickled over a pipe.

A worker is sent a JobSpec and answers `Ready`. Then it is sent `Make`, `Try` and None, which says
that nothing follows for now: what it has in hand it finishes, rather than wait for more. It answers
`Begun` and `ShardDone` to each Make, `Survived` to a Try, and `Failed` to anything, with its last
breath.
"""

from __future__ import annotations

import pickle
import traceback
from dataclasses import dataclass
from typing import Any

from fastmrigan.jobs.plan import Shard


@dataclass(frozen=True)
class Ready:
    """The job is open."""

    pinned: dict[str, Any]  # all that the bytes of its shards depend on
    why_precision: str  # of its engine, as for the engine of this process
    reason: str


@dataclass(frozen=True)
class Make:
    """A shard to put on the disk."""

    shard: Shard
    skipped: dict[int, str]  # of its inputs


@dataclass(frozen=True)
class Begun:
    """A shard was taken up: its inputs are read, or about to be."""

    shard: Shard


@dataclass(frozen=True)
class Try:
    """Inputs to work on for nothing, to see whether the worker survives it."""

    piece: Shard
    skipped: dict[int, str]


@dataclass(frozen=True)
class Survived:
    """It did."""


@dataclass(frozen=True)
class Failed:
    """An error, as plain values: exceptions do not always survive being pickled."""

    kind: type[BaseException]
    args: tuple[Any, ...]
    cause: str  # what a library said
    trace: str

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        """A class that nobody else can make again becomes a RuntimeError that names it."""
        args = error.args
        if isinstance(error, OSError):
            args = (error.errno, error.strerror, error.filename)
        cause, trace = str(error.__cause__ or ""), "".join(traceback.format_exception(error))
        failed = cls(type(error), args, cause, trace)
        try:
            again = pickle.loads(pickle.dumps(failed)).error()
            if (type(again), str(again)) == (type(error), str(error)):
                return failed
        except Exception:  # whatever somebody else's class makes of it
            pass
        return cls(RuntimeError, (f"{type(error).__name__}: {error}",), cause, trace)

    def error(self) -> BaseException:
        """The error again, for whoever catches its kind."""
        error = self.kind.__new__(self.kind, *self.args)  # __init__ may want other arguments
        error.__cause__ = Exception(self.cause) if self.cause else None
        error.add_note(f"In a worker: {self.trace}")
        return error
