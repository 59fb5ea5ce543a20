"""DICOM files that claim what they do not hold, written byte by byte: no library would write them.

Explicit VR little endian unless a maker says otherwise (PS3.5 7.1.2).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import bombs
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
LAST_BEFORE_PIXELS = 0x00324000

GOOD = {
    "good.dcm": dicom,
    "good_deflated.dcm": lambda: meta(DEFLATED) + deflated(header() + PIXELS),
    "good_j2k.dcm": lambda: dicom(EIGHT_BITS, pixels=encapsulated(j2k()), syntax=JPEG_2000),
    "good_rle.dcm": lambda: dicom(
        EIGHT_BITS,
        pixels=encapsulated(rle(rle_literal((NOISE >> 4).astype(np.uint8).tobytes()))),
        syntax=RLE,
    ),
}


def rle_literal(data: bytes) -> bytes:
    """PackBits without any runs."""
    parts = [data[i : i + 128] for i in range(0, len(data), 128)]
    return b"".join(bytes([len(part) - 1]) + part for part in parts)


NOT_DICOM = "not a DICOM file"
PIXELS_LEFT = len(NOISE.tobytes())

# name: (maker, what the reason must say)
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    # Cut short
    "cut_preamble.dcm": (lambda: dicom()[:100], NOT_DICOM),
    "cut_mark.dcm": (lambda: dicom()[:132], "DICOM without pixels"),
    "cut_meta.dcm": (lambda: dicom()[:170], "DICOM without pixels"),
    "cut_header.dcm": (lambda: dicom()[: len(meta(EXPLICIT)) + 100], "DICOM without pixels"),
    "cut_before_pixels.dcm": (lambda: dicom(pixels=b""), "without pixels"),
    "cut_pixel_length.dcm": (lambda: dicom(pixels=PIXELS[:10]), "broken DICOM"),
    "cut_pixels.dcm": (lambda: dicom()[: -PIXELS_LEFT // 2], "its pixels cannot be decoded"),
    "cut_last_byte.dcm": (lambda: dicom()[:-1], "its pixels cannot be decoded"),
    # Claims
    "claims_rle_65535.dcm": (
        lambda: dicom(size(65535, 65535), pixels=encapsulated(rle(b"\x81\0" * 40)), syntax=RLE),
        "claims 65535x65535 pixels",
    ),
    "claims_frames.dcm": (lambda: dicom(frames("2147483647")), r"claims [\d,]+ frames"),
    "claims_frames_rle.dcm": (
        lambda: dicom(
            {**frames("2147483647"), **EIGHT_BITS},
            pixels=encapsulated(rle(b"\x81\0" * 40)),
            syntax=RLE,
        ),
        r"claims [\d,]+ frames",
    ),
    "claims_frames_negative.dcm": (lambda: dicom(frames("-3")), "-3 frames"),
    "claims_frames_text.dcm": (lambda: dicom(frames("many")), "its NumberOfFrames is not a number"),
    "claims_frames_float.dcm": (lambda: dicom(frames("1e9")), "at most 65,536 are read"),
    "claims_rows.dcm": (lambda: dicom(size(65535, 65535)), "claims 65535x65535 pixels"),
    "claims_rows_few.dcm": (lambda: dicom(size(60000, 1000)), "its pixels cannot be decoded"),
    "claims_no_rows.dcm": (lambda: dicom(size(0, 40)), "DICOM without Rows"),
    "claims_strip.dcm": (lambda: dicom(size(1, 1280)), "at least 16x16"),
    "claims_j2k_voxels.dcm": (
        lambda: dicom(
            {**frames("100000"), **size(8000, 8000), **EIGHT_BITS},
            pixels=encapsulated(j2k()),
            syntax=JPEG_2000,
        ),
        r"claims [\d,]+ frames",
    ),
    "claims_enhanced_frames.dcm": (  # places to look at, and pixels for one
        lambda: dicom(per_frame(8000)),
        "its functional groups hold 32,000 items; at most .*; split it",
    ),
    "claims_enhanced_frames_open.dcm": (
        lambda: dicom(per_frame(8000, closed=False)),
        "too many elements",
    ),
    # Broken lengths
    "length_beyond_end.dcm": (
        lambda: dicom(before=element(0x00324000, b"UT", b"abcd", 0xFFFFFFF0)),
        "DICOM without pixels",
    ),
    "length_2gb_pixels.dcm": (
        lambda: dicom(pixels=element(PIXEL_DATA, b"OW", NOISE.tobytes()[:100], 0x7FFFFFFE)),
        "its pixels cannot be decoded",
    ),
    "length_odd.dcm": (
        lambda: dicom(pixels=element(PIXEL_DATA, b"OW", NOISE.tobytes()[:-1])),
        "its pixels cannot be decoded",
    ),
    "length_zero_pixels.dcm": (
        lambda: dicom(pixels=element(PIXEL_DATA, b"OW", b"")),
        "its pixels are empty",
    ),
    "sequence_never_closed.dcm": (
        lambda: dicom(before=element(0x00324000, b"SQ", b"", UNDEFINED)),
        "broken DICOM",
    ),
    "item_never_closed.dcm": (
        lambda: dicom(before=element(0x00324000, b"SQ", item(b"", UNDEFINED), UNDEFINED)),
        "broken DICOM",
    ),
    "pixels_never_closed.dcm": (
        lambda: dicom(pixels=element(PIXEL_DATA, b"OW", NOISE.tobytes(), UNDEFINED)),
        "its pixels are cut short",
    ),
    "meta_length_lies.dcm": (
        lambda: patched(dicom(syntax=None), b"UL\4\0", 4, struct.pack("<I", 0x7FFFFFFF)),
        "DICOM without TransferSyntaxUID",
    ),
    # Nesting
    "nested_1000.dcm": (lambda: dicom({0x00081140: nested(1000)}), "nested too deep"),
    "nested_50000_open.dcm": (
        lambda: dicom({0x00081140: nested(50_000, closed=False)}),
        "nested too deep",
    ),
    # Wrong types
    "vr_rows_text.dcm": (
        lambda: dicom({0x00280010: text(0x00280010, b"LO", "many")}),
        "its Rows is not a number",
    ),
    "vr_rows_two.dcm": (lambda: dicom({0x00280010: us(0x00280010, 32, 32)}), "its Rows holds"),
    "vr_rows_empty.dcm": (lambda: dicom({0x00280010: us(0x00280010)}), "DICOM without Rows"),
    "vr_rows_sequence.dcm": (
        lambda: dicom({0x00280010: element(0x00280010, b"SQ", item(b""))}),
        "its Rows is not a number",
    ),
    "vr_slope_text.dcm": (
        lambda: dicom({0x00281053: text(0x00281053, b"DS", "steep")}),
        "its RescaleSlope is not a number",
    ),
    "vr_slope_nan.dcm": (
        lambda: dicom(
            {
                0x00281052: text(0x00281052, b"DS", "0"),
                0x00281053: text(0x00281053, b"DS", "nan"),
            }
        ),
        "its RescaleSlope holds",
    ),
    "vr_slope_inf.dcm": (
        lambda: dicom(
            {
                0x00281052: text(0x00281052, b"DS", "0"),
                0x00281053: text(0x00281053, b"DS", "1e308"),
            }
        ),
        "holds NaN or infinite values",
    ),
    "bits_zero.dcm": (
        lambda: dicom({0x00280100: us(0x00280100, 0)}),
        "8 to 16-bit integers and floats are read",
    ),
    "bits_seven.dcm": (
        lambda: dicom({0x00280100: us(0x00280100, 7)}),
        "8 to 16-bit integers and floats are read",
    ),
    "bits_999.dcm": (
        lambda: dicom({0x00280100: us(0x00280100, 999)}),
        "8 to 16-bit integers and floats are read",
    ),
    "samples_65535.dcm": (
        lambda: dicom({0x00280002: us(0x00280002, 65535)}),
        "samples a pixel of MONOCHROME",
    ),
    "photometric_odd.dcm": (
        lambda: dicom({0x00280004: text(0x00280004, b"CS", "GREYISH")}),
        "an unknown photometric interpretation",
    ),
    "photometric_palette.dcm": (
        lambda: dicom({0x00280004: text(0x00280004, b"CS", "PALETTE COLOR")}),
        "colour",
    ),
    "syntax_absent.dcm": (lambda: dicom(syntax=None), "DICOM without TransferSyntaxUID"),
    "syntax_unknown.dcm": (lambda: dicom(syntax="1.2.3.4.5"), "transfer syntax"),
    "syntax_mpeg.dcm": (
        lambda: dicom(pixels=encapsulated(bytes(600)), syntax=MPEG4),
        "transfer syntax MPEG-",
    ),
    "syntax_big_endian_lie.dcm": (lambda: dicom(syntax=BIG_ENDIAN), "DICOM without pixels"),
    "bits_high.dcm": (
        lambda: dicom({0x00280101: us(0x00280101, 12)}),
        "12 stored bits of which bit 15 is the highest",
    ),
    # Who it is, where nobody looks for it: a reason must not repeat it
    "name_photometric.dcm": (
        lambda: dicom({0x00280004: text(0x00280004, b"CS", "\x1b[31mDOE^JOHN" * 99)}),
        "an unknown photometric interpretation",
    ),
    "name_syntax.dcm": (lambda: dicom(syntax="DOE^JOHN\x1b[31m"), "that is no UID is not read"),
    "name_rows.dcm": (lambda: dicom({0x00280010: text(0x00280010, b"LO", "DOE^JOHN")}), "Rows"),
    "name_slope.dcm": (lambda: dicom({0x00281053: text(0x00281053, b"DS", "DOE^JOHN")}), "Slope"),
    "name_philips.dcm": (
        lambda: dicom(
            {
                0x20050010: text(0x20050010, b"LO", "Philips MR Imaging DD 001"),
                0x2005100E: text(0x2005100E, b"LO", "DOE^JOHN"),
            }
        ),
        "its Philips scale slope is not a number",
    ),
    # Deflate (PS3.5 A.5)
    "deflate_bomb_header.dcm": (
        lambda: meta(DEFLATED) + bombs.deflate(header() + HUGE_TEXT, 1024),
        "its header is longer than",
    ),
    "deflate_bomb_pixels.dcm": (
        lambda: (
            meta(DEFLATED)
            + bombs.deflate(header() + element(PIXEL_DATA, b"OW", b"", 1024 << 20), 1024)
        ),
        "bytes that its header allows",
    ),
    "deflate_bomb_behind.dcm": (
        lambda: meta(DEFLATED) + bombs.deflate(header() + PIXELS + END_OF_ITEM, 1024),
        "bytes that its header allows",
    ),
    "deflate_garbage.dcm": (lambda: meta(DEFLATED) + NOISE.tobytes(), "broken DICOM"),
    "deflate_cut.dcm": (
        lambda: (meta(DEFLATED) + deflated(header() + PIXELS))[:-900],
        "its deflated data set is cut short",
    ),
    "deflate_nothing.dcm": (lambda: meta(DEFLATED), "its deflated data set is cut short"),
    # Compressed streams
    "rle_segments.dcm": (
        lambda: dicom(EIGHT_BITS, pixels=encapsulated(rle(b"\0\0", count=99)), syntax=RLE),
        "its pixels cannot be decoded",
    ),
    "rle_offsets.dcm": (
        lambda: dicom(
            EIGHT_BITS,
            pixels=encapsulated(struct.pack("<16I", 1, 0xFFFFFFF0, *[0] * 14) + bytes(40)),
            syntax=RLE,
        ),
        "its pixels cannot be decoded",
    ),
    "rle_short.dcm": (
        lambda: dicom(EIGHT_BITS, pixels=encapsulated(rle(b"\x81\0")), syntax=RLE),
        "its pixels cannot be decoded",
    ),
    "rle_no_fragment.dcm": (
        lambda: dicom(EIGHT_BITS, pixels=encapsulated(), syntax=RLE),
        "its pixels cannot be decoded",
    ),
    "fragment_beyond_end.dcm": (
        lambda: dicom(
            EIGHT_BITS,
            pixels=element(PIXEL_DATA, b"OB", item(b"") + item(bytes(80), 0x7FFFFFFE), UNDEFINED),
            syntax=RLE,
        ),
        "its pixels are cut short",
    ),
    "fragments_no_items.dcm": (
        lambda: dicom(
            EIGHT_BITS, pixels=element(PIXEL_DATA, b"OB", NOISE.tobytes(), UNDEFINED), syntax=RLE
        ),
        "its pixels are cut short",
    ),
    "jpeg_cut.dcm": (
        lambda: dicom(EIGHT_BITS, pixels=encapsulated(picture("JPEG")[:300]), syntax=JPEG),
        "a compressed frame that is cut short",
    ),
    "jpeg_other_size.dcm": (
        lambda: dicom(EIGHT_BITS, pixels=encapsulated(picture("JPEG", 64, 64)), syntax=JPEG),
        "the compressed frame",
    ),
    "jpeg_huge.dcm": (
        lambda: dicom(
            EIGHT_BITS,
            pixels=encapsulated(
                patched(picture("JPEG"), b"\xff\xc0", 5, struct.pack(">HH", 65500, 65500))
            ),
            syntax=JPEG,
        ),
        "the compressed frame",
    ),
    "jpeg_garbage.dcm": (
        lambda: dicom(EIGHT_BITS, pixels=encapsulated(NOISE.tobytes()), syntax=JPEG),
        "a compressed frame that is neither JPEG",
    ),
    "jpeg_lossless_cut.dcm": (
        lambda: dicom(pixels=encapsulated(jpeg_lossless(32, 40, b"")[:-2]), syntax=JPEG_LOSSLESS),
        "a compressed frame that is cut short",
    ),
    "jpeg_lossless_huge.dcm": (
        lambda: dicom(
            pixels=encapsulated(jpeg_lossless(65535, 65535, bytes(200))), syntax=JPEG_LOSSLESS
        ),
        "the compressed frame",
    ),
    "j2k_cut.dcm": (
        lambda: dicom(EIGHT_BITS, pixels=encapsulated(j2k()[:90]), syntax=JPEG_2000),
        "its pixels cannot be decoded",
    ),
    "j2k_huge.dcm": (
        lambda: dicom(
            EIGHT_BITS,
            pixels=encapsulated(
                patched(j2k(), b"\xff\x51", 6, struct.pack(">II", 0x7FFFFFFF, 0x7FFFFFFF))
            ),
            syntax=JPEG_2000,
        ),
        "the compressed frame",
    ),
    "j2k_large.dcm": (  # a gigabyte rather than exabytes: an allocation that may well succeed
        lambda: dicom(
            EIGHT_BITS,
            pixels=encapsulated(patched(j2k(), b"\xff\x51", 6, struct.pack(">II", 32768, 32768))),
            syntax=JPEG_2000,
        ),
        "the compressed frame",
    ),
    "j2k_tiles.dcm": (  # tiles of one pixel
        lambda: dicom(
            {**EIGHT_BITS, **size(8000, 8000)},
            pixels=encapsulated(
                patched(j2k(), b"\xff\x51", 6, struct.pack(">8I", 8000, 8000, 0, 0, 1, 1, 0, 0))
            ),
            syntax=JPEG_2000,
        ),
        "its pixels cannot be decoded",
    ),
    "j2k_garbage.dcm": (
        lambda: dicom(EIGHT_BITS, pixels=encapsulated(NOISE.tobytes()), syntax=JPEG_2000),
        "a compressed frame that is neither JPEG",
    ),
    "htj2k_garbage.dcm": (
        lambda: dicom(EIGHT_BITS, pixels=encapsulated(j2k()[:200]), syntax=HTJ2K),
        "its pixels cannot be decoded",
    ),
    "jpeg_ls_cut.dcm": (
        lambda: dicom(EIGHT_BITS, pixels=encapsulated(jpeg_ls(32, 40, b"")), syntax=JPEG_LS),
        "its pixels cannot be decoded",
    ),
    "jpeg_ls_huge.dcm": (
        lambda: dicom(
            EIGHT_BITS, pixels=encapsulated(jpeg_ls(65535, 65535, bytes(2000))), syntax=JPEG_LS
        ),
        "the compressed frame",
    ),
    "jpeg_ls_other_size.dcm": (
        lambda: dicom(
            EIGHT_BITS, pixels=encapsulated(jpeg_ls(64, 64, bytes(2000))), syntax=JPEG_LS
        ),
        "the compressed frame",
    ),
    # No image at all
    "letter.dcm": (lambda: b"Dear doctor,\nplease find enclosed\n" * 20, NOT_DICOM),
    "empty.dcm": (lambda: b"", "an empty file"),
    "constant.dcm": (
        lambda: dicom(pixels=element(PIXEL_DATA, b"OW", bytes(PIXELS_LEFT))),
        "constant",
    ),
}

# Odd, but not beyond use: these may be read or refused, and must do neither harm
ODD: dict[str, Callable[[], bytes]] = {
    "odd_enhanced_frames.dcm": lambda: dicom(per_frame(3400)),  # about as many as are looked at
    "odd_enhanced_frames_open.dcm": lambda: dicom(per_frame(3000, closed=False)),
    "odd_jpeg_lossless_empty.dcm": lambda: dicom(  # libjpeg makes up what the scan lacks
        pixels=encapsulated(jpeg_lossless(32, 40, b"")), syntax=JPEG_LOSSLESS
    ),
    "odd_syntax_implicit_lie.dcm": lambda: dicom(syntax=IMPLICIT),
    "odd_nested_defined.dcm": lambda: dicom({0x00081140: nested_defined(1000)}),
    "odd_unknown_vr.dcm": lambda: dicom({0x00324000: element(0x00324000, b"XX", b"abcd")}),
    "odd_length_text.dcm": lambda: dicom({0x00100020: element(0x00100020, b"LO", b"odd")}),
    "odd_charset.dcm": lambda: dicom({0x00080005: text(0x00080005, b"CS", "ISO 2022 IR 9999")}),
    "odd_order.dcm": lambda: meta(EXPLICIT) + header() + PIXELS + header(),
    "odd_many_elements.dcm": lambda: dicom(
        before=b"".join(element(0x00330000 | i % 0xFFFF, b"SH", b"") for i in range(100_000))
    ),
    "odd_many_items.dcm": lambda: dicom(
        {0x00081140: element(0x00081140, b"SQ", item(b"") * 100_000)}
    ),
    "odd_two_pixel_data.dcm": lambda: dicom(pixels=PIXELS + PIXELS),
    "odd_trailing.dcm": lambda: dicom() + NOISE.tobytes(),
    "odd_huge_string.dcm": lambda: dicom({0x00100020: element(0x00100020, b"UT", b"a" * 900_000)}),
    "odd_position_nan.dcm": lambda: dicom({0x00200032: text(0x00200032, b"DS", "nan\\inf\\1e999")}),
    "odd_slope_exponent.dcm": lambda: dicom(
        {
            0x00281052: text(0x00281052, b"DS", "1" * 4000),
            0x00281053: text(0x00281053, b"DS", "1e-300"),
        }
    ),
}
