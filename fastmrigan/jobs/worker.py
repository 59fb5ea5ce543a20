"""A worker of a bulk job: a process that opens the job's engine and makes the shards it is handed.

Started by `supervisor` as `python -m fastmrigan.jobs.worker SOCKET NUMBER`: an open descriptor, and
which worker it is. It ends when the other side closes, and cannot outlive it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fastmrigan.jobs.job import Job
from fastmrigan.jobs.messages import Begun, Failed, Make, Ready, Survived, Try
from fastmrigan.jobs.plan import Shard
from fastmrigan.jobs.run import make_all

PR_SET_PDEATHSIG = 1  # of prctl(2)
FIRST_TO_GO = 500  # of 1000: where memory runs out, a worker is to end and not its supervisor


class Gone(Exception):
    """The supervisor has no more to do, or has ended."""


def main() -> None:
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to deal with
    signal.signal(signal.SIGTERM, stop)  # by which it tells us to come to an end
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it ends with its supervisor
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no patient's pixels in a core file
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(FIRST_TO_GO))
    channel = Connection(int(sys.argv[1]))
    status = 0
    try:
        job = taken(channel).open()
        engine = job.generator
        channel.send(Ready(job.pinned, engine.backend.why_precision, engine.reason))
        serve(job, channel, lambda: stopping)
    except Gone:
        pass
    except BaseException as error:
        status = 1
        with suppress(OSError):
            channel.send(Failed.of(error))
    sys.stderr.flush()
    os._exit(status)  # an engine that is taken apart has nothing to add


def taken(channel: Connection) -> Any:
    """What is sent next."""
    try:
        return channel.recv()
    except EOFError as error:
        raise Gone from error


def serve(job: Job, channel: Connection, stopped: Callable[[], bool]) -> None:
    """Does what it is sent until it is `stopped`; raises Gone where nothing more comes."""
    saying = threading.Lock()  # one thread begins shards, another puts them on the disk

    def say(message: object) -> None:
        with saying:
            channel.send(message)

    def shards(order: Make | None) -> Iterator[Shard]:
        while order is not None and not stopped():
            job.skipped.update(order.skipped)
            say(Begun(order.shard))
            yield order.shard
            try:
                order = taken(channel)
            except Gone:
                return

    while not stopped():
        order = taken(channel)
        if isinstance(order, Make):
            job.skipped = {}
            make_all(job, shards(order), say, stopped)
        elif isinstance(order, Try):
            job.skipped = dict(order.skipped)
            for _ in job.make([order.piece], stopped):
                say(Survived())


if __name__ == "__main__":
    main()
