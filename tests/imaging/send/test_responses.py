"""Answers of peers: pynetdicom's own encoding is read as it was meant, nonsense is refused."""

from __future__ import annotations

import struct

import pytest
from pydicom.uid import MRImageStorage
from pynetdicom.dimse_messages import C_ECHO_RSP, C_STORE_RSP
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import P_DATA_TF

from fastmrigan.imaging.send.message import Response
from fastmrigan.imaging.send.transport import HEADER

CONTEXT = 5


def taken(pdus: list[bytes]) -> Response:
    """The message that these PDUs bring; all of them are needed for it, and no more."""
    response = Response()
    assert [response.add(pdu) for pdu in pdus] == [False] * (len(pdus) - 1) + [True]
    return response


@pytest.mark.parametrize("longest", [0, 16, 64], ids="pdu={}".format)
@pytest.mark.parametrize("together", [False, True], ids=["", "in one PDU"])
@pytest.mark.parametrize(
    ("number", "status", "comment", "instance"),
    [
        (1, 0x0000, None, None),
        (255, 0x0000, None, "1.2.3"),
        (256, 0xB000, "coerced", "2.25." + 59 * "9"),
        (65535, 0xA700, "no space left on device", "1.2.3"),
        (7, 0xC123, "x" * 64, None),
        (8, 0x0110, "odd", ""),
    ],
)
def test_what_pynetdicom_answers(
    number: int,
    status: int,
    comment: str | None,
    instance: str | None,
    together: bool,
    longest: int,
) -> None:
    theirs, message = C_STORE(), C_STORE_RSP()
    theirs.MessageIDBeingRespondedTo, theirs.Status = number, status
    theirs.AffectedSOPClassUID, theirs.AffectedSOPInstanceUID = MRImageStorage, instance
    theirs.ErrorComment = comment
    message.primitive_to_message(theirs)
    pdus = [P_DATA_TF(part).encode() for part in message.encode_msg(CONTEXT, longest)]
    if together:
        values = b"".join(pdu[HEADER.size :] for pdu in pdus)
        pdus = [HEADER.pack(4, len(values)) + values]
    ours = taken(pdus)
    assert (ours.context, ours.command_field) == (CONTEXT, 0x8001)
    assert (ours.number, ours.status, ours.comment) == (number, status, comment or "")


def test_an_echo_that_pynetdicom_answers() -> None:
    theirs, message = C_ECHO(), C_ECHO_RSP()
    theirs.MessageIDBeingRespondedTo, theirs.Status = 3, 0x0122
    message.primitive_to_message(theirs)
    ours = taken([P_DATA_TF(part).encode() for part in message.encode_msg(CONTEXT, 0)])
    assert (ours.command_field, ours.number, ours.status) == (0x8030, 3, 0x0122)


def element(number: int, value: bytes, *, group: int = 0, length: int | None = None) -> bytes:
    return struct.pack("<HHL", group, number, len(value) if length is None else length) + value


def fragment(control: int, value: bytes, *, length: int | None = None) -> bytes:
    """One PDV; the two lowest bits of `control`: of a command set, the last (PS3.8 E.2)."""
    size = 2 + len(value) if length is None else length
    return struct.pack(">LBB", size, CONTEXT, control) + value


def pdu(*fragments: bytes) -> bytes:
    whole = b"".join(fragments)
    return HEADER.pack(4, len(whole)) + whole


FIELD, NUMBER = element(0x0100, b"\x01\x80"), element(0x0120, b"\x01\x00")
NO_DATA, DATA = element(0x0800, b"\x01\x01"), element(0x0800, b"\x01\x00")
STATUS = element(0x0900, b"\0\0")
COMMAND = FIELD + NUMBER + NO_DATA + STATUS


@pytest.mark.parametrize(
    "pdus",
    [
        [pdu(fragment(3, COMMAND))],
        [pdu(fragment(0xFF, COMMAND))],  # the other bits say nothing
        [pdu(fragment(3, STATUS + NO_DATA + NUMBER + FIELD))],  # out of order
        [pdu(fragment(3, element(0, b"\xff\xff\xff\xff") + COMMAND))],  # a wrong group length
        [pdu(fragment(3, COMMAND + element(0x5678, bytes(10))))],  # what nobody knows
        [
            pdu(),
            pdu(fragment(1, COMMAND[:9])),
            pdu(fragment(1, b"")),
            pdu(fragment(3, COMMAND[9:])),
        ],
        [pdu(fragment(3, FIELD + NUMBER + DATA + STATUS)), pdu(fragment(2, b"data"))],
        [pdu(fragment(3, FIELD + NUMBER + DATA + STATUS), fragment(0, b"data"), fragment(2, b""))],
        [pdu(fragment(3, element(0x0002, b"1." * 31 + b"12\0\0") + COMMAND))],
    ],
)
def test_unusual_answers(pdus: list[bytes]) -> None:
    ours = taken(pdus)
    assert (ours.context, ours.command_field) == (CONTEXT, 0x8001)
    assert (ours.number, ours.status, ours.comment) == (1, 0, "")


@pytest.mark.parametrize(
    ("command", "number", "status"),
    [
        (FIELD + NO_DATA + STATUS, None, 0),
        (FIELD + NUMBER + NO_DATA, 1, None),
        (FIELD + NO_DATA + element(0x0120, b"") + element(0x0900, b""), None, None),
    ],
)
def test_what_is_not_stated(command: bytes, number: int | None, status: int | None) -> None:
    ours = taken([pdu(fragment(3, command))])
    assert (ours.number, ours.status) == (number, status)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (pdu(b"\0"), "it is cut short"),
        (pdu(fragment(3, COMMAND, length=0)), "it is cut short"),
        (pdu(fragment(3, COMMAND, length=1)), "it is cut short"),
        (pdu(fragment(3, COMMAND, length=3 + len(COMMAND))), "it is cut short"),
        (pdu(fragment(3, COMMAND, length=0xFFFFFFFF)), "it is cut short"),
        (pdu(fragment(3, COMMAND), b"\0"), "more follows it"),
        (pdu(fragment(3, COMMAND), fragment(3, COMMAND)), "more follows it"),
        (pdu(fragment(3, COMMAND), fragment(2, b"data")), "more follows it"),
        (pdu(fragment(2, b"data")), "a data set of nothing"),
        (pdu(fragment(1, COMMAND), fragment(2, b"data")), "a data set of nothing"),
        (pdu(fragment(3, FIELD + DATA), fragment(3, COMMAND)), "a second command set"),
        (pdu(fragment(1, bytes(8000)), fragment(1, bytes(8000)), fragment(1, bytes(8000))), "end"),
        (pdu(fragment(3, b"")), "it does not say what it is"),
        (pdu(fragment(3, NUMBER + NO_DATA + STATUS)), "it does not say what it is"),
        (pdu(fragment(3, FIELD + NUMBER + STATUS)), "it does not say what it is"),
        (pdu(fragment(3, COMMAND + b"\0")), "its command set is cut short"),
        (pdu(fragment(3, COMMAND[:-1])), r"is broken at element \(0000,0900\)"),
        (pdu(fragment(3, COMMAND + FIELD)), r"is broken at element \(0000,0100\)"),
        (pdu(fragment(3, COMMAND + element(5, b"", group=8))), r"at element \(0008,0005\)"),
        (
            pdu(fragment(3, COMMAND + element(0x0902, b"", length=0xFFFFFFFF))),
            r"is broken at element \(0000,0902\)",
        ),
        (
            pdu(fragment(3, FIELD + NUMBER + NO_DATA + element(0x0900, b"\0"))),
            r"\(0000,0900\) has 1 bytes instead of 2",
        ),
        (
            pdu(fragment(3, FIELD + NUMBER + NO_DATA + element(0x0900, b"\0\0\0\1"))),
            r"\(0000,0900\) has 4 bytes instead of 2",
        ),
        (
            pdu(fragment(3, FIELD + element(0x0120, bytes(4)) + NO_DATA + STATUS)),
            r"\(0000,0120\) has 4 bytes",
        ),
        (pdu(fragment(3, element(0x0100, b"\x01") + NO_DATA)), r"\(0000,0100\) has 1 bytes"),
        (pdu(fragment(3, FIELD + element(0x0800, b"\x01"))), r"\(0000,0800\) has 1 bytes"),
        (pdu(fragment(3, COMMAND + element(0x1000, b"1." * 40))), "it names no UID"),
        (pdu(fragment(3, element(0x0002, b"1." * 40) + COMMAND)), "it names no UID"),
    ],
)
def test_what_is_no_answer(said: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Response().add(said)


def test_every_beginning_and_every_bit() -> None:
    """Of a good answer: nothing but ValueError, and no other status, number or context passes."""
    good = pdu(fragment(3, COMMAND))
    for end in range(HEADER.size + 1, len(good)):
        with pytest.raises(ValueError, match="it is cut short"):
            Response().add(good[:end])
    for bit in range(8 * HEADER.size, 8 * len(good)):
        altered = bytearray(good)
        altered[bit // 8] ^= 1 << bit % 8
        response = Response()
        try:
            whole = response.add(bytes(altered))
        except ValueError:
            continue
        told = response.context, response.command_field, response.number, response.status
        harmless = bit // 8 == HEADER.size + 5 and bit % 8 > 1  # the control byte's other bits
        assert not whole or harmless or told != (CONTEXT, 0x8001, 1, 0), bit
