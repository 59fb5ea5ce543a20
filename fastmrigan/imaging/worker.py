"""The child side of `pool`: one process that calls one function, and how the two sides talk.

Started as `python -m fastmrigan.imaging.worker SOCKET COUNTER`, two open descriptors: one end of a
socket pair, and 8 bytes of shared memory that tell how many tasks were begun. Knows nothing of
images.
"""

from __future__ import annotations

import ctypes
import importlib
import mmap
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastmrigan.errors import FastMriganError, InputRejected

SMALL = 1 << 16  # bytes of a message that are joined and sent in one call
ALIGNED = 64  # bytes: an array begins at a multiple of that many
PR_SET_PDEATHSIG = 1  # of prctl(2)
KEPT_SECONDS = 0.005  # how long what is done may wait for more before it is sent

# A message: how many bytes follow; how many parts, and the bytes of each; the pickle; the arrays


def send(channel: socket.socket, content: object) -> None:
    """Sends one message: pickled, with the bytes of its arrays beside it instead of copied in."""
    arrays: list[pickle.PickleBuffer] = []
    text = pickle.dumps(content, protocol=5, buffer_callback=arrays.append)
    parts: list[bytes | memoryview] = [text]
    parts += [array.raw() for array in arrays]
    sizes = [len(part) for part in parts]
    head = struct.pack(f"<{1 + len(parts)}Q", len(parts), *sizes)
    pieces: list[bytes | memoryview] = [head + bytes(-len(head) % ALIGNED)]
    for part, size in zip(parts, sizes, strict=True):
        pieces += [part, bytes(-size % ALIGNED)]
    total = sum(map(len, pieces))
    pieces.insert(0, struct.pack("<Q", total))
    for piece in [b"".join(pieces)] if total <= SMALL else pieces:
        channel.sendall(piece)


def receive(channel: socket.socket, limit: int = 1 << 40) -> tuple[Any, int]:
    """One message and its bytes; its arrays lie on the bytes received and may be written to.

    Raises EOFError where the other side is gone and ValueError for more than `limit` bytes.
    """
    (total,) = struct.unpack("<Q", exactly(channel, 8))
    if total > limit:
        raise ValueError(f"a message of {total} bytes")
    content = exactly(channel, total)
    (count,) = struct.unpack_from("<Q", content)
    sizes = struct.unpack_from(f"<{count}Q", content, 8)
    at, parts = aligned(8 + 8 * count), []
    for size in sizes:
        parts.append(content[at : at + size])
        at = aligned(at + size)
    return pickle.loads(parts[0], buffers=parts[1:]), total


def aligned(offset: int) -> int:
    return offset + -offset % ALIGNED


def exactly(channel: socket.socket, length: int) -> memoryview:
    content = rest = memoryview(bytearray(length))
    while rest:
        got = channel.recv_into(rest)
        if got == 0:
            raise EOFError
        rest = rest[got:]
    return content


class AddressSpace:
    """Bytes of address space that this process uses, which is what RLIMIT_AS counts."""

    def __init__(self) -> None:
        self.file = os.open("/proc/self/statm", os.O_RDONLY)
        self.fresh = self.used()

    def used(self) -> int:
        return int(os.pread(self.file, 64, 0).split()[0]) * resource.getpagesize()

    def limit(self, memory: int) -> None:
        """Lets the process grow by `memory` bytes from what it used when fresh, no further."""
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = self.fresh + memory
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def call(function: Callable[..., Any], args: tuple[Any, ...], seconds: float) -> tuple[str, Any]:
    """What came of one task: "result", "refused", "stop" (ends the job), "memory" or "broken".

    More than `seconds` of processor time end the process by SIGPROF, whatever it is doing: time
    that others take from the machine, or a slow disk, does not count.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return "result", function(*args)
    except InputRejected as error:
        return "refused", error
    except FastMriganError as error:  # a package that is absent is absent for every file
        return "stop", (type(error), str(error))
    except MemoryError:
        return "memory", None
    except Exception as error:
        return "broken", f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextmanager
def unclocked() -> Iterator[None]:
    """Stops the clock of `call` for an import, which serves all the files that follow.

    Importing nibabel takes seconds where other machines have the cores, and the first file of
    many would be refused for them. Does nothing outside of a task.
    """
    left, interval = signal.setitimer(signal.ITIMER_PROF, 0)  # the second is a profiler's
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, left, interval)


def ran_out(kind: str, content: object) -> bool:
    """Whether memory ran out, be it that the function made a refusal of it."""
    return kind == "memory" or (
        kind == "refused"
        and isinstance(content, InputRejected)
        and isinstance(content.__cause__, MemoryError)
    )


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to deal with
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it ends with its parent
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    channel = socket.socket(fileno=int(sys.argv[1]))
    begun = memoryview(mmap.mmap(int(sys.argv[2]), 8)).cast("Q")
    (paths, module, name, memory), _ = receive(channel)
    sys.path[:] = paths
    function = getattr(importlib.import_module(module), name)
    space = AddressSpace()
    space.limit(memory)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no patient's pixels in a core file
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # codecs write there as they please
    send(channel, None)
    while True:
        try:
            work(function, channel, begun, space, memory // 4)
        except (EOFError, OSError):  # the parent is done, or gone
            os._exit(0)


def work(
    function: Callable[..., Any],
    channel: socket.socket,
    begun: memoryview[int],
    space: AddressSpace,
    growth: int,
) -> None:
    """Takes one batch of tasks, [(args, seconds)], and sends what came of them, in order.

    Memory that is not given back is missing to the next task, and how far an import or a codec got
    when memory ran out is not known: a worker that has grown so far ends, and the parent knows.
    """
    tasks, _ = receive(channel)
    replies: list[tuple[str, Any]] = []
    since = time.monotonic()
    for number, (args, seconds) in enumerate(tasks, start=1):
        begun[0] += 1
        replies.append(call(function, args, seconds))
        worn = ran_out(*replies[-1]) or space.used() - space.fresh > growth
        if worn or number == len(tasks) or time.monotonic() - since > KEPT_SECONDS:
            send(channel, (replies, worn))
            if worn:
                os._exit(0)
            replies.clear()
            since = time.monotonic()


if __name__ == "__main__":
    main()
