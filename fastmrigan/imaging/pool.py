"""Decoding in worker processes with a memory limit and a time limit, which the job survives.

A worker is a fresh Python process (not a fork) that imports one function and calls it for a task
after the other. What a file can do there ends with its worker: a crash in a codec, a bomb, an
endless loop are one refusal, the worker is replaced, and the rest goes on.
"""

from __future__ import annotations

import mmap
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from fastmrigan.errors import UsageError
from fastmrigan.imaging.walker import Refused, printable
from fastmrigan.imaging.worker import receive, send

Result = TypeVar("Result")

MAX_WORKERS = 8
BATCH = 32  # tasks that are handed over at a time, at most,
BATCH_SECONDS = 0.01  # and only as many as a worker does in that time
WINDOW = 128  # results a worker that may wait for the oldest task that is not done
WALL = 20.0  # how many times its processor time a task may take on the clock
START_SECONDS = 120.0  # for Python and NumPy to be imported, from the slowest of disks
MODULE = "fastmrigan.imaging.worker"
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}


@dataclass(frozen=True)
class Task:
    number: int  # place in the order of results
    name: str
    args: tuple[Any, ...]
    seconds: float  # of processor time


class Worker:
    """One process, the socket to it and the tasks it has been given, which it does in order."""

    def __init__(self, function: Callable[..., Any], memory: int) -> None:
        self.tasks: deque[Task] = deque()
        self.heard = 0  # tasks whose results came
        self.batch = 1  # tasks to give it at a time
        self.ready = False
        self.starved = self.waited_before = 0.0  # seconds without a core: since it began, before
        self.began = time.monotonic()  # to start, then to work on the first of its tasks
        counter = os.memfd_create("fastmrigan-begun")
        os.truncate(counter, 8)
        self.begun = memoryview(mmap.mmap(counter, 8)).cast("Q")  # tasks that the process began
        self.seen = 0  # of those, when we last looked
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(START_SECONDS)
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the worker lives)
        descriptors = (theirs.fileno(), counter)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, *map(str, descriptors)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.errors,
                pass_fds=descriptors,
                process_group=0,  # a terminal's Ctrl-C goes to the parent alone
                env=os.environ | ONE_THREAD,
            )
        finally:
            theirs.close()
            os.close(counter)
        paths = [path for path in sys.path if path]  # not the folder we happen to stand in
        send(self.channel, (paths, function.__module__, function.__name__, memory))

    def deadline(self) -> float:
        """When patience with the task in hand ends, on the clock."""
        if not self.ready:
            return self.began + START_SECONDS
        if self.begun[0] != self.seen:
            self.seen = self.begun[0]
            self.begin()
        return self.began + WALL * max(task.seconds for task in self.tasks) + self.starved

    def begin(self) -> None:
        """From now on it works on something else."""
        self.began, self.starved = time.monotonic(), 0.0
        self.waited_before = waited_for_a_core(self.process.pid)

    def is_late(self) -> bool:
        """Whether patience has ended; the time that others had its core is not its own."""
        if time.monotonic() < self.deadline():
            return False
        self.starved = waited_for_a_core(self.process.pid) - self.waited_before
        return time.monotonic() >= self.deadline()

    def in_hand(self) -> Task | None:
        """Takes away the task it works on, or was about to; None where it has none."""
        if not self.tasks:
            return None
        index = self.begun[0] - self.heard - 1
        index = index if 0 < index < len(self.tasks) else 0  # a broken process may write anything
        task = self.tasks[index]
        del self.tasks[index]
        return task

    def last_words(self) -> str:
        """The last line it wrote before it was ready: Python's own account of a failed start."""
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").splitlines()
        return printable(lines[-1]) if lines else f"exit status {self.process.returncode}"

    def end(self, *, kill: bool) -> int:
        """Waits for a process that is dying, or kills it; returns the status subprocess gives."""
        if kill:
            self.process.kill()
        try:
            status = self.process.wait(10.0)
        except subprocess.TimeoutExpired:  # its socket is closed, yet it lives
            self.process.kill()
            status = self.process.wait()
        self.channel.close()
        return status


class DecodePool(Generic[Result]):
    """Calls `function(*args)` for tasks in worker processes; use it in a `with` statement.

    function: of a module that can be imported anew. Its arguments are small; what it returns is
        pickled, with the bytes of its arrays beside the pickle.
    workers: processes; None takes one a core, at most 8. They start when tasks first need them,
        and end with the thread that started them.
    memory: bytes of address space a worker may add to what it uses when fresh (RLIMIT_AS).
    seconds: processor time of one task, or a function of the task's args that returns it. On the
        clock a task may take twenty times that, and as long again as it waited for a core, so that
        no busy machine, nor one that shares its cores with other machines, refuses a good file.
    """

    def __init__(
        self,
        function: Callable[..., Result],
        *,
        workers: int | None = None,
        memory: int = 1 << 30,
        seconds: float | Callable[..., float] = 2.0,
    ) -> None:
        if function.__module__ == "__main__" or function.__qualname__ != function.__name__:
            raise ValueError(
                "DecodePool: expected a function at the top of a module that a worker can import, "
                f"got {function.__module__}.{function.__qualname__}"
            )
        self._function, self._memory = function, memory
        self._seconds = seconds
        self._most = workers or min(len(os.sched_getaffinity(0)), MAX_WORKERS)
        self._workers: list[Worker] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> DecodePool[Result]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._dismiss(list(self._workers))
        self._selector.close()

    def run(self, tasks: Iterable[tuple[str, tuple[Any, ...]]]) -> Iterator[Result | Refused]:
        """For each task (name, args), in their order, what the function returned or a `Refused`.

        Tasks are taken as they are needed, a window ahead of the results; one run at a time.
        Refused is what the function itself refuses, under the name it gives, and by the task's
        name whatever raises another error, needs more memory or time than it may, or ends its
        process. Raises the function's UsageError (of an absent package), and UsageError where no
        worker starts.
        """
        self._source = enumerate(tasks)
        self._back: deque[Task] = deque()  # given to a worker that died of another one
        self._done: dict[int, tuple[Any, int]] = {}  # by number: what came, and in how many bytes
        self._held = 0  # bytes of all that is done and not yet asked for
        self._largest = 0  # bytes that a result may have, by those so far
        number = 0
        try:
            while True:
                self._hand_out()
                if number in self._done:
                    result, size = self._done.pop(number)
                    self._held -= size
                    number += 1
                    yield result
                    del result  # or a volume would be kept until the next one is there
                elif any(worker.tasks for worker in self._workers):
                    self._listen()
                else:
                    return
        finally:  # where the run was left early
            self._dismiss([worker for worker in self._workers if worker.tasks])

    def _hand_out(self) -> None:
        """Gives out tasks as long as there are some, and workers to take them."""
        while True:
            worker = min(self._workers, key=lambda w: len(w.tasks), default=None)
            more = len(self._workers) < self._most
            if not more and worker is not None and len(worker.tasks) > worker.batch:
                return  # all have what they work on and what comes next
            alone = sum(not each.tasks for each in self._workers) < 2  # else others wait as well
            tasks = self._take(worker.batch if worker is not None and alone and not more else 1)
            if not tasks:
                return
            if worker is None or (more and worker.tasks):
                worker = self._start()
            try:
                send(worker.channel, [(task.args, task.seconds) for task in tasks])
            except OSError:  # it has ended; what it said before that is still to be heard
                self._back.extendleft(reversed(tasks))
                self._hear(worker)
                continue
            if worker.ready and not worker.tasks:
                worker.begin()
            worker.tasks.extend(tasks)

    def _take(self, count: int) -> list[Task]:
        """Up to `count` tasks to do next; none while too many results wait to be asked for, those
        counted that are still to come."""
        tasks: list[Task] = []
        begun = sum(len(worker.tasks) for worker in self._workers)
        while len(tasks) < count:
            to_come = (begun + len(tasks)) * self._largest
            if self._back:
                tasks.append(self._back.popleft())
            elif self._held + to_come >= self._memory or len(self._done) >= WINDOW * self._most:
                break
            else:
                try:
                    number, (name, args) = next(self._source)
                except StopIteration:
                    break
                seconds = self._seconds(*args) if callable(self._seconds) else self._seconds
                tasks.append(Task(number, name, args, seconds))
        return tasks

    def _start(self) -> Worker:
        worker = Worker(self._function, self._memory)
        self._workers.append(worker)
        self._selector.register(worker.channel, selectors.EVENT_READ, worker)
        return worker

    def _listen(self) -> None:
        """Waits until a worker says something or is late."""
        first = min(worker.deadline() for worker in self._workers if worker.tasks)
        for key, _ in self._selector.select(max(0.0, first - time.monotonic())):
            self._hear(key.data)
        for worker in [w for w in self._workers if w.tasks and w.is_late()]:
            seconds = time.monotonic() - worker.began
            self._bury(worker, f"was not decoded within {seconds:.0f} s on the clock")

    def _hear(self, worker: Worker) -> None:
        """Takes one message of a worker, or its end."""
        try:
            content, size = receive(worker.channel, 2 * self._memory)
        except (EOFError, OSError):  # reset, where it left tasks unread
            self._bury(worker)
            return
        except Exception as error:  # whatever pickle makes of bytes that a broken process wrote
            self._bury(worker, f"its decoder returned nonsense ({type(error).__name__})")
            return
        took = time.monotonic() - worker.began
        worker.begin()
        if not worker.ready:
            worker.ready = True
            return
        replies, worn = content
        worker.heard += len(replies)
        worker.batch = min(BATCH, max(1, int(BATCH_SECONDS * len(replies) / max(took, 1e-9))))
        for kind, result in replies:
            task = worker.tasks.popleft()
            if kind == "stop":
                error_class, text = result
                raise error_class.__new__(error_class, text)
            if kind != "result":
                result = self._refusal(task, kind, result)
            self._finish(task, result, size // len(replies))
        if worn:
            self._back.extendleft(reversed(worker.tasks))
            self._dismiss([worker])

    def _refusal(self, task: Task, kind: str, content: Any) -> Refused:
        if kind == "memory":
            reason = f"needs more than {self._memory >> 20:,} MiB of memory to decode"
        elif kind == "broken":
            reason = f"cannot be decoded ({content.strip()[:200]})"
        elif isinstance(content, Refused):
            return content
        else:
            reason = str(content)
        return Refused(task.name, printable(" ".join(reason.split())))

    def _bury(self, worker: Worker, reason: str | None = None) -> None:
        """Replaces a worker that died, or kills one for `reason`; its task is refused."""
        self._forget(worker)
        status = worker.end(kill=reason is not None)
        if not worker.ready:
            words = worker.last_words()
            worker.errors.close()
            raise UsageError(f"a process to decode images in did not start: {words}")
        worker.errors.close()
        task = worker.in_hand()
        self._back.extendleft(reversed(worker.tasks))
        if task is not None:
            why = cause_of_death(status, task.seconds) if reason is None else reason
            self._finish(task, Refused(task.name, why), 0)

    def _finish(self, task: Task, result: Any, size: int) -> None:
        self._done[task.number] = (result, size)
        self._held += size
        self._largest = max(size, self._largest * 7 // 8)  # one that was large is no rule

    def _dismiss(self, workers: list[Worker]) -> None:
        for worker in workers:
            self._forget(worker)
            worker.end(kill=True)
            worker.errors.close()

    def _forget(self, worker: Worker) -> None:
        self._workers.remove(worker)
        self._selector.unregister(worker.channel)


def waited_for_a_core(pid: int) -> float:
    """Seconds for which the process' main thread could have run, and had no core (proc(5)); 0 where
    the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def cause_of_death(status: int, seconds: float) -> str:
    """The reason for a refusal, from the status a worker ended with."""
    if status == -signal.SIGPROF:
        return f"takes more than {seconds:g} s to decode"
    if status == -signal.SIGKILL:
        return "its decoder was killed from outside (is the machine out of memory?)"
    if status < 0:
        return f"its decoder crashed ({signal.Signals(-status).name})"
    return f"its decoder ended the process (exit status {status})"
