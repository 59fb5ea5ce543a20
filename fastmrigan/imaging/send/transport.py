"""The bytes of an established association, in the caller's own thread.

pynetdicom moves them in a thread of its own, which looks at its queues and its socket once a
millisecond: half of the time that a slice took (benchmarks/send.py).
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any

QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux has it
HEADER = struct.Struct(">BxL")  # of a PDU: its type, and the bytes that follow (PS3.8 section 9.3)
P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = 0x04, 0x05, 0x06, 0x07
LAST_WORD_SECONDS = 0.1  # for the rest of a PDU that began before sending failed


class Ended(Exception):
    """The association is over, or is of no use; the message says why."""


class Transport:
    """The socket of one association; only `waiting` and its methods read and write it.

    seconds: how long the peer may take no byte, and how long it may take for one answer.
    largest: bytes of content that the PDUs it sends may have.
    """

    def __init__(self, connection: socket.socket, seconds: float, largest: int) -> None:
        self.socket, self.seconds, self.largest = connection, seconds, largest
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)

    def release(self) -> None:
        """Asks the peer to end the association, and waits until it agrees. Raises Ended."""
        self.send([release(RELEASE_RQ)])
        until = self.deadline()
        while (kind := self.receive(until)[0]) != RELEASE_RP:
            if kind == RELEASE_RQ:  # the peer asks at the same moment (PS3.8 section 7.2.2.7)
                self.grant_release()

    def grant_release(self) -> None:
        """Answers the peer, which asks to end the association. Raises Ended."""
        self.send([release(RELEASE_RP)])

    def deadline(self) -> float:
        """Until when an answer that is due now may come."""
        return time.monotonic() + self.seconds

    @property
    def waiting(self) -> bool:
        """True where the peer has sent something, or has closed the connection."""
        return bool(self._readable.poll(0))

    def send(self, parts: Iterable[bytes | memoryview]) -> None:
        """Sends whole PDUs. Raises Ended, for an A-ABORT that came meanwhile too."""
        try:
            for part in parts:
                left = memoryview(part)
                while left:
                    left = left[self._within(self.seconds, self.socket.send, left) :]
        except Ended:
            if self.waiting:  # the peer may have said why it takes no more
                self.receive(time.monotonic() + LAST_WORD_SECONDS)
            raise
        # Else the kernel holds an acknowledgement back for 40 ms, and a peer that has not turned
        # Nagle's algorithm off (dcmtk, Orthanc) the end of its answer with it. Holds until reset.
        if QUICK_ACK is not None:
            with contextlib.suppress(OSError):  # closed meanwhile
                self.socket.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)

    def receive(self, until: float | None = None) -> tuple[int, bytes]:
        """The type of the next PDU and all of its bytes. Raises Ended, also for an A-ABORT.

        until: the deadline; None for one from now.
        """
        until = self.deadline() if until is None else until
        header = self._exactly(HEADER.size, until)
        kind, size = HEADER.unpack(header)
        if size > self.largest:
            raise Ended(f"the peer sent a PDU of {size:,} bytes, and may of {self.largest:,}")
        pdu = header + self._exactly(size, until)
        if kind == ABORT:
            said = abort_reason(pdu)
            raise Ended(f"the peer aborted the association ({said})")
        return kind, pdu

    def _exactly(self, count: int, until: float) -> bytes:
        received = bytearray()
        while len(received) < count:
            wanted = count - len(received)
            piece = self._within(until - time.monotonic(), self.socket.recv, wanted)
            if not piece:
                raise Ended("the peer closed the connection")
            received += piece
        return bytes(received)

    def _within(self, seconds: float, operation: Callable[[Any], Any], argument: Any) -> Any:
        try:
            if seconds <= 0:
                raise TimeoutError
            self.socket.settimeout(seconds)
            return operation(argument)
        except TimeoutError:
            raise Ended(f"the peer did not answer within {self.seconds:g} s") from None
        except OSError:  # reset by the peer, or cut by another thread
            raise Ended("the peer closed the connection") from None


def release(kind: int) -> bytes:
    """An A-RELEASE-RQ or -RP: PS3.8 tables 9-24 and 9-25."""
    return HEADER.pack(kind, 4) + bytes(4)


def abort_reason(pdu: bytes) -> str:
    """What an A-ABORT says: PS3.8 table 9-26."""
    from pynetdicom.pdu import A_ABORT_RQ

    abort = A_ABORT_RQ()
    try:
        abort.decode(pdu)
        return abort.reason_str if abort.source == 2 else "by its user"
    except (KeyError, ValueError, struct.error):  # cut short, or of no known source
        return "for no known reason"
