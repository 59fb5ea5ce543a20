"""DIMSE messages as the PDUs that carry them: C-STORE requests, and the answers to requests.

pynetdicom writes and reads the 100 bytes of a command set through pydicom, element by element and
twice over, and copies the data set three times: most of all that sending a slice cost
(benchmarks/send.py times it). The requests here are byte for byte those of pynetdicom.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fastmrigan.imaging.send.transport import HEADER, P_DATA_TF

PDV_HEADER = struct.Struct(">LBB")  # length of the rest, context, control (PS3.8 table 9-23)
ELEMENT = struct.Struct("<HHL")  # group, element, length of the value (PS3.5 section 7.1.3)
COMMAND, LAST = 1, 2  # bits of the control byte (PS3.8 section E.2)
C_STORE_RQ, C_STORE_RSP, C_ECHO_RSP = 0x0001, 0x8001, 0x8030
LOW, HAS_DATA, NO_DATA = 2, 0x0001, 0x0101
LONGEST_COMMAND = 16384  # bytes of an answer's command set: it says a hundred bytes or two
LONGEST_UID = 64  # PS3.5 table 6.2-1


def command_set(sop_class: str, sop_instance: str, number: int) -> bytes:
    """The command set of a C-STORE-RQ with low priority: PS3.7 table 9.3-1, implicit VR little."""
    body = b"".join(
        (
            _element(0x0002, _uid(sop_class)),
            _element(0x0100, struct.pack("<H", C_STORE_RQ)),
            _element(0x0110, struct.pack("<H", number)),
            _element(0x0700, struct.pack("<H", LOW)),
            _element(0x0800, struct.pack("<H", HAS_DATA)),
            _element(0x1000, _uid(sop_instance)),
        )
    )
    return _element(0x0000, struct.pack("<L", len(body))) + body


def _element(number: int, value: bytes) -> bytes:
    return ELEMENT.pack(0x0000, number, len(value)) + value


def _uid(value: str) -> bytes:
    return value.encode("ascii") + b"\0" * (len(value) % 2)


def request(context: int, command: bytes, content: bytes, pdu: int) -> Iterator[bytes | memoryview]:
    """The bytes of a command set and its data set, in PDUs of at most `pdu` bytes (0: uncut).

    Fragments have an even number of bytes (PS3.8 section 9.3.5.1); so must `content`.
    """
    for kind, whole in ((COMMAND, command), (0, content)):
        view = memoryview(whole)
        step = (pdu - PDV_HEADER.size) // 2 * 2 if pdu else len(whole)
        for start in range(0, len(whole), step):
            part = view[start : start + step]
            control = kind | (LAST if start + step >= len(whole) else 0)
            yield HEADER.pack(P_DATA_TF, PDV_HEADER.size + len(part)) + PDV_HEADER.pack(
                2 + len(part), context, control
            )
            yield part


class Response:
    """An answer, put together from the PDUs that bring it.

    `context`, `command_field`, `number` (of the request it answers), `status` and `comment` are
    there once `add` has said True; None where the answer does not state them.
    """

    def __init__(self) -> None:
        self.context: int | None = None
        self.command_field: int | None = None
        self.number: int | None = None
        self.status: int | None = None
        self.comment = ""
        self._command = b""
        self._data_follows = False

    def add(self, pdu: bytes) -> bool:
        """Takes a P-DATA-TF; True once the message is whole. Raises ValueError: it is none.

        A data set, which no answer to ours should bring, is passed over.
        """
        at, whole = HEADER.size, False
        while at < len(pdu):
            if whole:
                raise ValueError("more follows it")
            if at + PDV_HEADER.size > len(pdu):
                raise ValueError("it is cut short")
            size, context, control = PDV_HEADER.unpack_from(pdu, at)
            end = at + 4 + size
            if size < 2 or end > len(pdu):
                raise ValueError("it is cut short")
            if not control & COMMAND:
                if not self._data_follows:
                    raise ValueError("a data set of nothing")
                whole = bool(control & LAST)
            elif self._data_follows:
                raise ValueError("a second command set")
            else:
                self._command += pdu[at + PDV_HEADER.size : end]
                if len(self._command) > LONGEST_COMMAND:
                    raise ValueError("its command set has no end")
                if control & LAST:
                    self.context = context
                    self._read()
                    whole = not self._data_follows
            at = end
        return whole

    def _read(self) -> None:
        """The command set: PS3.7 section 6.3.1 and table E.1-1."""
        values = elements(self._command)
        self.command_field = _number(values, 0x0100)
        data = _number(values, 0x0800)
        if self.command_field is None or data is None:
            raise ValueError("it does not say what it is")
        self._data_follows = data != NO_DATA
        self.number = _number(values, 0x0120)
        self.status = _number(values, 0x0900)
        self.comment = values.get(0x0902, b"").decode("latin-1").strip("\0 ")
        if max(len(values.get(uid, b"").rstrip(b"\0 ")) for uid in (0x0002, 0x1000)) > LONGEST_UID:
            raise ValueError("it names no UID")


def elements(command: bytes) -> dict[int, bytes]:
    """The values of a command set, in implicit VR little endian, by their elements' numbers.

    Raises ValueError where the elements do not fill it, or are not all of group 0, or not one of
    each.
    """
    values: dict[int, bytes] = {}
    at = 0
    while at < len(command):
        start = at + ELEMENT.size
        if start > len(command):
            raise ValueError("its command set is cut short")
        group, number, length = ELEMENT.unpack_from(command, at)
        at = start + length
        if group != 0x0000 or number in values or at > len(command):
            raise ValueError(f"its command set is broken at element ({group:04X},{number:04X})")
        values[number] = command[start:at]
    return values


def _number(values: dict[int, bytes], element: int) -> int | None:
    """The value of an element of VR US; None where it is absent or empty. Raises ValueError."""
    value = values.get(element, b"")
    if len(value) not in (0, 2):
        raise ValueError(f"element (0000,{element:04X}) has {len(value)} bytes instead of 2")
    return int.from_bytes(value, "little") if value else None
