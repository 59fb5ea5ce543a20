"""The supervisor's side of a worker: its process, the pipe to it, and what it has been given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing import Pipe

from fastmrigan.jobs.plan import Shard
from fastmrigan.jobs.search import Search
from fastmrigan.jobs.spec import Engine, JobSpec
from fastmrigan.runtime.cuda_driver import visible_devices
from fastmrigan.runtime.engine_file import SUFFIX

COMMAND = (sys.executable, "-P", "-m", "fastmrigan.jobs.worker")  # SOCKET NUMBER
CUDA_BACKENDS = ("onnxruntime-cuda", "tensorrt")


class Worker:
    """One process, the pipe to it and what it has been given."""

    def __init__(self, number: int, spec: JobSpec, device: str | None) -> None:
        self.number = number
        self.ready = False
        self.waiting: list[Shard] = []  # given, not begun
        self.begun: list[Shard] = []  # not yet on the disk
        self.alone = False  # what it has is all that it is given until that is done
        self.search: Search | None = None
        self.flushed = False  # knows that nothing follows
        self.channel, theirs = Pipe()
        signals = {signal.SIGINT, signal.SIGTERM}  # kept from it until it knows what to do on one
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            self.process = subprocess.Popen(
                [*COMMAND, str(theirs.fileno()), str(number)],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what libraries print
                pass_fds=(theirs.fileno(),),
                env=os.environ | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device}),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self.send(spec)

    def send(self, content: object) -> None:
        with suppress(OSError):  # it has ended; what it said before that is still to be heard
            self.channel.send(content)

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.begun or self.search)

    def end(self, patience: float) -> int:
        """Waits for a process that is ending, and kills it after that; the status it ended with."""
        try:
            status = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.channel.close()
        return status


def devices_for(engine: Engine) -> list[str]:
    """The CUDA devices that workers are shared out to; none where they run on the CPU."""
    built = engine.backend == "auto" and engine.model.suffix == SUFFIX
    return visible_devices() if built or engine.backend in CUDA_BACKENDS else []


def manner_of_death(status: int) -> str:
    """What a process ended with, from the status that subprocess gives."""
    if status == -signal.SIGKILL:
        return "SIGKILL; is the machine out of memory?"
    if status < 0:
        known = {number.value: number.name for number in signal.Signals}
        return known.get(-status, f"signal {-status}")
    return f"exit status {status}"
