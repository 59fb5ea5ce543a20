"""DICOM files that claim what they do not hold: no library would write them."""

from __future__ import annotations

import struct
from collections.abc import Callable

import bombs
import numpy as np
from dicom_bytes import (
    BIG_ENDIAN,
    DEFLATED,
    EIGHT_BITS,
    END_OF_ITEM,
    EXPLICIT,
    HTJ2K,
    HUGE_TEXT,
    IMPLICIT,
    JPEG,
    JPEG_2000,
    JPEG_LOSSLESS,
    JPEG_LS,
    MPEG4,
    NOISE,
    PIXEL_DATA,
    PIXELS,
    RLE,
    UNDEFINED,
    deflated,
    dicom,
    element,
    encapsulated,
    frames,
    header,
    item,
    j2k,
    jpeg_lossless,
    jpeg_ls,
    meta,
    nested,
    nested_defined,
    patched,
    per_frame,
    picture,
    rle,
    rle_literal,
    size,
    text,
    us,
)

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
