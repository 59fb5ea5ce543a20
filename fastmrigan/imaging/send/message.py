"""A C-STORE request as the PDUs that carry it, byte for byte those of pynetdicom.

pynetdicom writes the 100 bytes of a command set through pydicom, element by element and twice over,
and copies the data set three times: half of all that sending a slice costs (benchmarks/send.py
times it). Of two requests only the number and the instance differ, so they are written here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fastmrigan.imaging.send.transport import HEADER, P_DATA_TF

PDV_HEADER = struct.Struct(">LBB")  # length of the rest, context, control (PS3.8 table 9-23)
COMMAND, LAST = 1, 2  # bits of the control byte (PS3.8 section E.2)
C_STORE_RQ, LOW, HAS_DATA = 0x0001, 2, 0x0001


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
    return struct.pack("<HHL", 0x0000, number, len(value)) + value


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
