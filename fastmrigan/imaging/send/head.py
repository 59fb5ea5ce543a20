"""What the head of a DICOM file says of it, out of its first bytes.

`plain_head` reads heads as nearly every file has them. pydicom makes an object of every element,
three times over for what C-STORE must know, and nothing is sent meanwhile. What is in any way out
of the ordinary is left to it, in `full_head`: other encodings, nested elements of no stated length,
values that need mending.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import warnings
import zlib
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from fastmrigan.errors import MissingDependency
from fastmrigan.imaging.walker import Refused

PREFIX = b"DICM"  # PS3.10 section 7.1, behind a preamble of 128 bytes
PREAMBLE = 128
LARGEST_HEAD = 4 << 20  # bytes, and what a deflated one may inflate to
SYNTAX, SOP_CLASS, SOP_INSTANCE = 0x00020010, 0x00080016, 0x00080018
MARKS = {0x0008001C: "SyntheticData", 0x00120062: "PatientIdentityRemoved"}
TAGS = (SOP_CLASS, SOP_INSTANCE, *MARKS)
PIXELS = 0x7FE00010
UNDEFINED = 0xFFFFFFFF  # the length of encapsulated pixel data, which hold fragments

ELEMENT = struct.Struct("<HH2sH")  # group, element, VR, length: PS3.5 table 7.1-2
LONG_ELEMENT = struct.Struct("<HH2sxxL")  # PS3.5 table 7.1-1
SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
WANTED = dict.fromkeys((SYNTAX, SOP_CLASS, SOP_INSTANCE), b"UI") | dict.fromkeys(MARKS, b"CS")
UID = re.compile(rb"([0-9.]{1,64})\0?")
FLAG = re.compile(rb"(YES|NO) ?")


class Head(NamedTuple):
    """What the head of a file says, as it stands there."""

    data: int  # byte of the file at which the data set begins
    syntax: str
    sop_class: str
    sop_instance: str
    marked: bool  # SyntheticData or PatientIdentityRemoved is YES
    deflated: bool
    pixels: int  # byte of the file at which the values of pixel data begin; 0: none found
    claimed: int  # bytes they have by their own account, or UNDEFINED


def plain_head(head: bytes) -> Head | None:
    """What the first bytes of a file say; None where that is left to `full_head`.

    Nothing else is read but explicit VR in little endian, elements in ascending order, UIDs and
    marks that are nothing else, and all that up to the pixel data. Raises MissingDependency.
    """
    values: dict[int, bytes] = {}  # of WANTED
    at, last, data, size = PREAMBLE + len(PREFIX), 0x0001FFFF, 0, len(head)
    while at + LONG_ELEMENT.size <= size:
        group, element, vr, length = ELEMENT.unpack_from(head, at)
        tag = group << 16 | element
        start = at + ELEMENT.size
        if vr in LONG:
            length = LONG_ELEMENT.unpack_from(head, at)[3]
            start = at + LONG_ELEMENT.size
        elif vr not in SHORT:
            return None
        if tag <= last:
            return None
        if not data and group != 0x0002:
            data = at
        if tag == PIXELS and vr in (b"OB", b"OW"):
            return _plain(values, data, start, length)
        if tag >= PIXELS:
            return None
        if tag in WANTED:
            if vr != WANTED[tag]:
                return None
            values[tag] = head[start : start + length]
        at, last = start + length, tag  # behind the head where the length is UNDEFINED
    return None


def _plain(values: dict[int, bytes], data: int, pixels: int, claimed: int) -> Head | None:
    uids = [UID.fullmatch(values.pop(tag, b"")) for tag in (SYNTAX, SOP_CLASS, SOP_INSTANCE)]
    marks = [FLAG.fullmatch(value) for value in values.values()]
    if not all(uids) or not all(marks):
        return None
    syntax, sop_class, sop_instance = (match[1].decode("ascii") for match in uids if match)
    if not explicit_little(syntax):
        return None
    marked = any(match[1] == b"YES" for match in marks if match)
    return Head(data, syntax, sop_class, sop_instance, marked, False, pixels, claimed)


@lru_cache
def explicit_little(syntax: str) -> bool:
    """True for a transfer syntax whose data sets lie as `plain_head` reads them."""
    try:
        from pydicom.uid import UID
    except ImportError:
        raise MissingDependency("pydicom", "dicom", "sending DICOM") from None
    uid = UID(syntax, validation_mode=0)  # what is no UID is none of those below
    return (
        uid.is_transfer_syntax
        and uid.is_little_endian
        and not uid.is_implicit_VR
        and not uid.is_deflated
    )


def full_head(name: str, head: bytes, size: int) -> Head | None:
    """What the first bytes of a file of `size` bytes say; None where they do not reach far enough.

    Raises Refused, with `name`, and MissingDependency.
    """
    try:
        from pydicom.filereader import read_dataset
        from pydicom.uid import UID
    except ImportError:
        raise MissingDependency("pydicom", "dicom", "sending DICOM") from None

    whole = len(head) == size
    stream = io.BytesIO(head)
    stream.seek(PREAMBLE + len(PREFIX))
    reached = False

    def behind_meta(tag: int, vr: str | None, length: int) -> bool:
        return tag >> 16 != 2

    def behind_marks(tag: int, vr: str | None, length: int) -> bool:
        nonlocal reached
        reached = tag > TAGS[-1]
        return reached

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that have no business here
            meta = read_dataset(stream, False, True, stop_when=behind_meta)
            start = stream.tell()
            if start >= len(head) and not whole:
                return None
            syntax = UID(str(meta.get("TransferSyntaxUID", "")))
            if not syntax.is_transfer_syntax:
                raise Refused(name, f"no transfer syntax that is known ({syntax or 'none'})")
            if start >= size:
                raise Refused(name, "holds nothing behind its file meta information")
            body = head[start:]
            if syntax.is_deflated:
                inflater = zlib.decompressobj(-zlib.MAX_WBITS)
                body = inflater.decompress(body, LARGEST_HEAD)
                whole = inflater.eof or (whole and not inflater.unconsumed_tail)
            stream = io.BytesIO(body)
            encoding = syntax.is_implicit_VR, syntax.is_little_endian
            data = read_dataset(stream, *encoding, stop_when=behind_marks, specific_tags=list(TAGS))
            marks = [str(data.get(mark, "")) for mark in MARKS.values()]
            sop_class = str(data.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID", ""))
            instance = str(data.get("SOPInstanceUID") or meta.get("MediaStorageSOPInstanceUID", ""))
    except Refused:
        raise
    except Exception as error:  # pydicom raises nearly anything on what is no data set
        if not whole:
            return None
        raise Refused(name, f"its header cannot be read ({type(error).__name__})") from error
    if not reached and not whole:
        return None
    pixels, claimed = (0, 0) if syntax.is_deflated else pixels_at(stream, encoding)
    if pixels:
        pixels += start
    mark = "YES" in marks
    uids = str(syntax), sop_class, instance
    return Head(start, *uids, mark, syntax.is_deflated, pixels, claimed)


def pixels_at(stream: BinaryIO, encoding: tuple[bool, bool]) -> tuple[int, int]:
    """Where the values of pixel data begin within `stream`, read so far, and the length they claim.

    0, 0 where there are none.
    """
    from pydicom.filereader import read_dataset

    header, claimed = 0, 0

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        nonlocal header, claimed
        if tag == PIXELS:
            header, claimed = 8 if vr is None else 12, length  # implicit or explicit
        return tag >= PIXELS

    with contextlib.suppress(Exception), warnings.catch_warnings():  # what was read may end first
        warnings.simplefilter("ignore")
        read_dataset(stream, *encoding, stop_when=at_pixels, specific_tags=[PIXELS])
    return (stream.tell() + header, claimed) if header else (0, 0)
