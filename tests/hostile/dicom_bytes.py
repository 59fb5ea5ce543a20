"""DICOM files written byte by byte: whole ones, and the parts that those are made of.

Explicit VR little endian unless a maker says otherwise (PS3.5 7.1.2).
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
HTJ2K = "1.2.840.10008.1.2.4.201"
MPEG4 = "1.2.840.10008.1.2.4.102"
RLE = "1.2.840.10008.1.2.5"
UNDEFINED = 0xFFFFFFFF

LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT")
NOISE = np.random.default_rng(6).integers(0, 4096, (32, 40), dtype=np.uint16)  # [H, W]
PIXEL_DATA = 0x7FE00010


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """One data element; `length` claims another length than the value's own."""
    count = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in LONG_VRS:
        return head + struct.pack("<HI", 0, count) + value
    return head + struct.pack("<H", count & 0xFFFF) + value


def text(tag: int, vr: bytes, value: str) -> bytes:
    padded = value.encode() + (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return element(tag, vr, padded)


def us(tag: int, *values: int) -> bytes:
    return element(tag, b"US", struct.pack(f"<{len(values)}H", *values))


def item(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content) if length is None else length) + content


END_OF_ITEM = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
END_OF_SEQUENCE = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def meta(syntax: str | None) -> bytes:
    """Preamble, mark and file meta information."""
    group = element(0x00020001, b"OB", b"\0\1") + text(
        0x00020002, b"UI", "1.2.840.10008.5.1.4.1.1.4"
    )
    group += text(0x00020003, b"UI", "2.25.6")
    if syntax is not None:
        group += text(0x00020010, b"UI", syntax)
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", struct.pack("<I", len(group))) + group


HEADER = {
    0x00080016: text(0x00080016, b"UI", "1.2.840.10008.5.1.4.1.1.4"),
    0x00080018: text(0x00080018, b"UI", "2.25.6"),
    0x00080060: text(0x00080060, b"CS", "MR"),
    0x00100020: text(0x00100020, b"LO", "hostile"),
    0x0020000D: text(0x0020000D, b"UI", "2.25.7"),
    0x0020000E: text(0x0020000E, b"UI", "2.25.8"),
    0x00280002: us(0x00280002, 1),
    0x00280004: text(0x00280004, b"CS", "MONOCHROME2"),
    0x00280010: us(0x00280010, 32),
    0x00280011: us(0x00280011, 40),
    0x00280100: us(0x00280100, 16),
    0x00280101: us(0x00280101, 16),
    0x00280102: us(0x00280102, 15),
    0x00280103: us(0x00280103, 0),
    0x00280301: text(0x00280301, b"CS", "NO"),  # BurnedInAnnotation
}
PIXELS = element(PIXEL_DATA, b"OW", NOISE.tobytes())


def header(changes: dict[int, bytes] | None = None, without: tuple[int, ...] = ()) -> bytes:
    """The header's elements in order, some of them replaced, added or left out."""
    merged = {**HEADER, **(changes or {})}
    return b"".join(merged[tag] for tag in sorted(merged) if tag not in without)


def dicom(
    changes: dict[int, bytes] | None = None,
    *,
    pixels: bytes = PIXELS,
    syntax: str | None = EXPLICIT,
    without: tuple[int, ...] = (),
    before: bytes = b"",
) -> bytes:
    """A whole file; `before` stands between the header and the pixels."""
    return meta(syntax) + header(changes, without) + before + pixels


def encapsulated(*fragments: bytes, closed: bool = True, table: bytes = b"") -> bytes:
    """Pixel data in fragments (PS3.5 A.4)."""
    content = item(table) + b"".join(item(f + bytes(len(f) % 2)) for f in fragments)
    end = END_OF_SEQUENCE if closed else b""
    return element(PIXEL_DATA, b"OB", content + end, UNDEFINED)


def size(rows: int, columns: int) -> dict[int, bytes]:
    return {0x00280010: us(0x00280010, rows), 0x00280011: us(0x00280011, columns)}


def frames(number: str) -> dict[int, bytes]:
    return {0x00280008: text(0x00280008, b"IS", number)}


EIGHT_BITS = {
    0x00280100: us(0x00280100, 8),
    0x00280101: us(0x00280101, 8),
    0x00280102: us(0x00280102, 7),
}


def rle(*segments: bytes, count: int | None = None) -> bytes:
    """One frame of RLE (PS3.5 G.5)."""
    offsets, at = [], 64
    for segment in segments:
        offsets.append(at)
        at += len(segment)
    number = len(segments) if count is None else count
    return struct.pack("<16I", number, *offsets, *[0] * (15 - len(offsets))) + b"".join(segments)


def picture(kind: str, height: int = 32, width: int = 40, **how: object) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(7).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind, **how)
    return buffer.getvalue()


def j2k() -> bytes:
    """A bare JPEG 2000 codestream."""
    return picture("JPEG2000", no_jp2=True)


def patched(data: bytes, mark: bytes, offset: int, new: bytes) -> bytes:
    """`data` with `new` at `offset` bytes behind the first `mark`."""
    at = data.index(mark) + offset
    return data[:at] + new + data[at + len(new) :]


def jpeg_ls(height: int, width: int, data: bytes) -> bytes:
    """A JPEG-LS stream (ISO 14495-1) that claims a size before `data`."""
    frame = struct.pack(">HBHHBBBB", 11, 8, height, width, 1, 1, 0x11, 0)
    scan = struct.pack(">HBBBBBB", 8, 1, 1, 0, 0, 0, 0)
    return b"\xff\xd8\xff\xf7" + frame + b"\xff\xda" + scan + data + b"\xff\xd9"


def jpeg_lossless(height: int, width: int, data: bytes) -> bytes:
    """A lossless JPEG stream (ISO 10918-1, process 14) that claims a size before `data`."""
    table = b"\xff\xc4" + struct.pack(">H", 2 + 17 + 1) + b"\0" + b"\0\1" + bytes(14) + b"\x05"
    frame = struct.pack(">HBHHBBBB", 11, 16, height, width, 1, 1, 0x11, 0)
    scan = struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0)
    return b"\xff\xd8" + table + b"\xff\xc3" + frame + b"\xff\xda" + scan + data + b"\xff\xd9"


def nested(depth: int, *, closed: bool = True) -> bytes:
    """Sequences of undefined length within one another: 20 bytes a level."""
    sequence = element(0x00081140, b"SQ", b"", UNDEFINED) + item(b"", UNDEFINED)
    return sequence * depth + (END_OF_ITEM + END_OF_SEQUENCE) * (depth if closed else 0)


def nested_defined(depth: int) -> bytes:
    """The same with every length told."""
    content = b""
    for _ in range(depth):
        content = element(0x00081140, b"SQ", item(content))
    return content


def deflated(content: bytes) -> bytes:
    """A raw deflate stream."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


PER_FRAME, PLACE, ORIGIN = 0x52009230, 0x00209113, 0x00200032
DIRECTION, MEASURES = 0x00209116, 0x00289110


def per_frame(count: int, *, closed: bool = True) -> dict[int, bytes]:
    """Enhanced groups (PS3.3 C.7.6.16) of many frames in a few bytes each, 1 mm apart.

    closed: every length is told; otherwise items and sequences end by delimiters.
    """

    def sequence(tag: int, *items: bytes) -> bytes:
        if closed:
            return element(tag, b"SQ", b"".join(map(item, items)))
        inside = b"".join(item(content, UNDEFINED) + END_OF_ITEM for content in items)
        return element(tag, b"SQ", inside + END_OF_SEQUENCE, UNDEFINED)

    direction = sequence(DIRECTION, text(0x00200037, b"DS", "1\\0\\0\\0\\1\\0"))
    measures = sequence(MEASURES, text(0x00280030, b"DS", "1\\1"))
    places = (sequence(PLACE, text(ORIGIN, b"DS", f"0\\0\\{frame}")) for frame in range(count))
    groups = sequence(PER_FRAME, *(place + direction + measures for place in places))
    return {**frames(str(count)), PER_FRAME: groups}


HUGE_TEXT = element(0x00324000, b"UT", b"", 0x7FFFFFF0)  # the zeros that follow are its value


def rle_literal(data: bytes) -> bytes:
    """PackBits without any runs."""
    parts = [data[i : i + 128] for i in range(0, len(data), 128)]
    return b"".join(bytes([len(part) - 1]) + part for part in parts)
