"""Functions for the workers of a decode pool to call: each does what some file might."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from fastmrigan.errors import InputRejected, MissingDependency
from fastmrigan.imaging.walker import Refused
from fastmrigan.imaging.worker import unclocked


def spin(seconds: float) -> None:
    began = time.process_time()
    while time.process_time() - began < seconds:
        pass


def task(kind: str, value: float = 0.0) -> object:
    """Does `kind`; workers are told apart by their process number."""
    match kind:
        case "number":
            return value
        case "sleep":
            time.sleep(value)
            return value
        case "pid":
            time.sleep(value)
            return os.getpid()
        case "array":
            return np.full((int(value), 1000), value, np.float32)
        case "two":
            return {"a": np.arange(5.0), "b": np.arange(int(value), dtype=np.uint8)}
        case "fill":  # touches every page
            return float(np.ones(int(value), np.uint8)[-1])
        case "keep":
            KEPT.append(np.ones(int(value), np.uint8))
            return os.getpid()
        case "memory":
            raise MemoryError
        case "spin":
            spin(float("inf"))
        case "import":  # for a second of processor time, before it goes on to its own work
            with unclocked():
                spin(1.0)
            spin(value)
            return value
        case "refuse":
            raise Refused("its own\nname", "its own reason")
        case "starve":
            raise Refused("x", "too large") from MemoryError()
        case "reject":
            raise InputRejected("no name of its own")
        case "absent":
            raise MissingDependency("pydicom", "dicom", "reading DICOM")
        case "bug":
            raise ZeroDivisionError("of\nthree lines\n")
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "exit":
            os._exit(7)
        case "nonsense":
            for number in range(3, 64):
                try:
                    os.write(number, b"\xff" * 64)
                except OSError:
                    continue
        case "print":
            os.write(1, b"a codec talks\n")
            os.write(2, b"a codec complains\n")
            return value
        case "threads":
            return [os.environ[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL")]
        case "unpicklable":
            return lambda: None
    return None


KEPT: list[np.ndarray] = []
