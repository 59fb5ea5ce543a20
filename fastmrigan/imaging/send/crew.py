"""Several associations at once, a thread each, that take files from one list until it is empty."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from fastmrigan.errors import Interrupted, UsageError
from fastmrigan.imaging.send.association import CONTEXTS, Busy, Connection, Lost
from fastmrigan.imaging.send.peer import Answer, Limits, Peer, PeerError
from fastmrigan.imaging.send.source import Item
from fastmrigan.imaging.walker import Refused
from fastmrigan.interrupt import StopSignal

LOST_IN_A_ROW = 5  # associations lost with no answer in between: the peer is not well
FILES_EACH = 8  # an association for fewer is not worth its negotiation
GRACE_SECONDS = 1.0  # for those who still wait for an association when all else is done
BUSY_SECONDS = 0.1  # until the next attempt at a peer that has as many associations as it takes
LOOK_SECONDS = 0.1  # how often the interrupt is looked for while nothing happens


class Outcome(NamedTuple):
    """What became of one file."""

    item: Item
    answer: Answer | None  # None: none came
    reason: str  # why it is not stored, or ""
    lost: bool = False  # its association ended while the answer was due


class Event(Enum):
    """What else a worker tells."""

    CONNECTED = "has an association"
    ENDED = "does no more"


class Crew:
    """The files that are left and the workers that take them, in turn."""

    def __init__(
        self, items: Sequence[Item], peer: Peer, limits: Limits, associations: int
    ) -> None:
        self.total = len(items)
        self.left = deque(items)
        self.peer, self.limits = peer, limits
        self.contexts = sorted({item.context for item in items})
        if len(self.contexts) > CONTEXTS:
            raise UsageError(
                f"the files need {len(self.contexts)} presentation contexts, and an association "
                f"carries {CONTEXTS}; send their subfolders one by one"
            )
        self.stop = threading.Event()
        self.news: queue.SimpleQueue[Outcome | Event] = queue.SimpleQueue()
        wanted = min(associations, -(-self.total // FILES_EACH))
        self.workers = [Worker(self, number) for number in range(wanted)]
        self.stored = 0
        self.lost = 0  # in a row

    @property
    def carried(self) -> int:
        """How many associations at once carried files."""
        return sum(worker.carried for worker in self.workers)

    def run(self, note: Callable[[Outcome], None]) -> None:
        """Sends all; `note` is told in this thread, the main one, what became of each file.

        At the end raises Interrupted after Ctrl-C or SIGTERM, when the files in hand have been
        answered (a second one ends at once), and PeerError where the peer is gone.
        """
        waiting = deque(self.workers)  # for the first association to prove the way
        running = 0
        with StopSignal() as signal:
            try:
                if waiting:
                    waiting.popleft().start()
                    running = 1
                heard = time.monotonic()
                while running:
                    if signal.stopped:
                        self.stop.set()
                    try:
                        news = self.news.get(timeout=LOOK_SECONDS)
                    except queue.Empty:
                        if time.monotonic() - heard > GRACE_SECONDS:
                            self._dismiss(running)
                        continue
                    heard = time.monotonic()
                    if news is Event.ENDED:
                        running -= 1
                    elif news is Event.CONNECTED:
                        while waiting:
                            waiting.popleft().start()
                            running += 1
                    elif isinstance(news, Outcome):
                        self._count(news)
                        note(news)
            finally:
                self.stop.set()
                for worker in self.workers:
                    worker.hang_up()
                for worker in self.workers:
                    if worker.ident is not None:
                        worker.join(GRACE_SECONDS)
        self._judge(interrupted=signal.stopped)

    def _count(self, news: Outcome) -> None:
        if news.lost:
            self.lost += 1
        elif news.answer is not None:
            self.lost = 0
            self.stored += news.answer.stored
        if self.lost >= LOST_IN_A_ROW:
            self.stop.set()

    def _dismiss(self, running: int) -> None:
        """Ends the workers that wait for an association while nothing is left for them to do.

        A peer that takes one association at a time keeps the others waiting.
        """
        waiting = [worker for worker in self.workers if worker.waiting and worker.is_alive()]
        if len(waiting) == running and (self.stop.is_set() or not self.left):
            for worker in waiting:
                worker.hang_up()

    def _judge(self, *, interrupted: bool) -> None:
        failures = [worker.failure for worker in self.workers if worker.failure is not None]
        for failure in failures:
            if not isinstance(failure, PeerError):
                raise failure
        if not self.left:
            return
        rest = f"{self.stored:,} of {self.total:,} files are sent; the same command sends the rest"
        if interrupted:
            raise Interrupted(f"interrupted: {rest}")
        if self.lost >= LOST_IN_A_ROW:
            raise PeerError(f"{self.peer}: {self.lost} files in a row got no answer; {rest}")
        raise PeerError(f"{failures[0]}; {rest}")


class Worker(threading.Thread):
    """One association after another, as long as files are left."""

    def __init__(self, crew: Crew, number: int) -> None:
        super().__init__(name=f"fastmrigan-send-{number}", daemon=True)
        self.crew, self.number = crew, number
        self.connection: Connection | None = None
        self.waiting = False  # for an association
        self.carried = False  # a file
        self.failure: BaseException | None = None  # why it ended while files were left

    def run(self) -> None:
        try:
            while self.crew.left and not self.crew.stop.is_set():
                connection = self._connected()
                try:
                    item = self.crew.left.popleft()
                except IndexError:  # another worker took the last one meanwhile
                    break
                self.crew.news.put(self._send(connection, item))
        except BaseException as error:  # for the main thread to raise
            self.failure = error
        finally:
            try:
                if self.connection is not None:
                    self.connection.close()
            finally:
                self.crew.news.put(Event.ENDED)

    def _connected(self) -> Connection:
        if self.connection is not None:
            if self.connection.alive or not self.connection.accepted:
                return self.connection
            self.connection.close()
        crew = self.crew
        self.waiting = True
        patience = time.monotonic() + crew.limits.timeout
        while True:
            self.connection = Connection(crew.peer, crew.contexts, crew.limits)
            try:
                self.connection.open()
                break
            except Busy:
                pause = BUSY_SECONDS * (1 + self.number)  # not all at the same moment
                if crew.stop.wait(pause) or not crew.left or time.monotonic() > patience:
                    raise
        self.waiting = False
        crew.news.put(Event.CONNECTED)
        return self.connection

    def _send(self, connection: Connection, item: Item) -> Outcome:
        refused = connection.refused.get(item.context)
        if refused is not None:
            return Outcome(item, None, refused)
        try:
            answer = connection.store(item, item.read())
        except Refused as error:
            return Outcome(item, None, error.reason)
        except Lost as error:
            return Outcome(item, None, str(error), lost=True)
        self.carried = True
        return Outcome(item, answer, "" if answer.stored else f"the peer refuses it: {answer}")

    def hang_up(self) -> None:
        """Closes the bare connection, from any thread."""
        if self.is_alive() and self.connection is not None:
            self.connection.cut()
