"""Runs the command line under a clock that is wrong and jumps.

    python clock.py SECONDS COMMAND …

The time of day, as Python tells it, is SECONDS off, and at every look another three hours to and
fro. Clocks that only measure are left alone: the system's own do not jump.
"""

from __future__ import annotations

import datetime
import itertools
import sys
import time

offset = float(sys.argv[1])
sys.argv = ["fastmrigan", *sys.argv[2:]]
real_time, real_local, real_utc = time.time, time.localtime, time.gmtime
jumps = itertools.cycle([0.0, 10_800.0, -10_800.0])


def now() -> float:
    return real_time() + offset + next(jumps)


class Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Datetime:
        return cls.fromtimestamp(now(), tz)

    @classmethod
    def utcnow(cls) -> Datetime:
        return cls.fromtimestamp(now(), datetime.UTC).replace(tzinfo=None)


class Date(datetime.date):
    @classmethod
    def today(cls) -> Date:
        return cls.fromtimestamp(now())


time.time, time.time_ns = now, lambda: int(1e9 * now())
time.localtime = lambda seconds=None: real_local(now() if seconds is None else seconds)
time.gmtime = lambda seconds=None: real_utc(now() if seconds is None else seconds)
datetime.datetime, datetime.date = Datetime, Date  # type: ignore[misc]

from fastmrigan.cli import main  # noqa: E402 - it must see the wrong clock

main()
