"""PNG, JPEG and TIFF files that are bombs, are cut short or claim what they do not hold."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import bombs
import numpy as np
from PIL import Image

NOISE = np.random.default_rng(8).integers(0, 256, (32, 40), dtype=np.uint8)  # [H, W]


def encoded(pixels: np.ndarray, kind: str = "PNG", **how: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind, **how)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes, length: int | None = None) -> bytes:
    body = kind + data
    count = len(data) if length is None else length
    return struct.pack(">I", count) + body + struct.pack(">I", zlib.crc32(body))


def ihdr(width: int, height: int, depth: int = 8, colour: int = 0, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def rows(width: int, height: int) -> bytes:
    """Image data of a grey 8-bit PNG, a ramp so that it is not constant."""
    line = b"\0" + bytes(range(256)) * (width // 256 + 1)
    return zlib.compress(line[: width + 1] * height, 1)


def tiff(
    entries: dict[int, tuple[int, int, bytes]], *, next_at: int = 0, data: bytes = b""
) -> bytes:
    """A little-endian TIFF of one page: {tag: (type, count, value or offset in 4 bytes)}."""
    body = b"".join(
        struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
        for tag, (kind, count, value) in sorted(entries.items())
    )
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    return head + body + struct.pack("<I", next_at) + data


def long(value: int) -> tuple[int, int, bytes]:
    return 4, 1, struct.pack("<I", value)


def page(width: int = 40, height: int = 32, **changes: tuple[int, int, bytes]) -> dict:
    """The entries of a grey 8-bit page whose only strip starts at byte 200."""
    entries = {
        256: long(width),
        257: long(height),
        258: long(8),
        259: long(1),
        262: long(1),
        273: long(200),
        277: long(1),
        278: long(height),
        279: long(width * height),
    }
    return entries | {int(tag[1:]): value for tag, value in changes.items()}


def at_200(file: bytes, data: bytes) -> bytes:
    return file.ljust(200, b"\0") + data


def chain(count: int) -> bytes:
    """A TIFF of `count` pages that all show the same strip."""
    entries = page()
    size = 2 + 12 * len(entries) + 4
    body = b"".join(
        struct.pack("<HHI", tag, kind, number) + value
        for tag, (kind, number, value) in entries.items()
    )
    pages = [
        struct.pack("<H", len(entries)) + body + struct.pack("<I", 8 + (i + 1) * size)
        for i in range(count)
    ]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(pages) + struct.pack("<H", 0) + bytes(4)


def scans_bomb(side: int, count: int) -> bytes:
    """A progressive JPEG that repeats a scan of 30 bytes, each a pass over the whole picture."""
    blank = encoded(np.zeros((side, side), np.uint8), "JPEG", progressive=True)
    first = blank.index(b"\xff\xda")
    tables = blank.index(
        b"\xff\xc4", first
    )  # of the second scan, in which every block ends at once
    scan = blank[tables : blank.index(b"\xff\xc4", tables + 2)]
    return blank[:tables] + scan * count + blank[tables:]


GOOD = {
    "good.png": lambda: encoded(NOISE),
    "good.jpg": lambda: encoded(NOISE, "JPEG"),
    "good.tif": lambda: encoded(NOISE.astype(np.uint16) * 200, "TIFF"),
    "good_deflated.tif": lambda: encoded(NOISE, "TIFF", compression="tiff_adobe_deflate"),
}

BROKEN = "a broken image|not a PNG, JPEG, TIFF|not enough image data|truncated"
BOMB = "bomb|claims"

# name: (maker, what the reason must say)
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    # PNG
    "empty.png": (lambda: b"", "an empty file"),
    "letter.png": (lambda: b"Dear doctor,\nplease find enclosed\n" * 20, "not a PNG, JPEG"),
    "png_cut_header.png": (lambda: encoded(NOISE)[:20], BROKEN),
    "png_cut_data.png": (lambda: encoded(NOISE)[:700], BROKEN),
    "png_ihdr_huge.png": (
        lambda: png(ihdr(0x7FFFFFFF, 0x7FFFFFFF), chunk(b"IDAT", bombs.zlibbed(1))),
        BOMB,
    ),
    "png_ihdr_65535.png": (lambda: png(ihdr(65535, 65535), chunk(b"IDAT", bombs.zlibbed(1))), BOMB),
    "png_ihdr_wide.png": (lambda: png(ihdr(2**31 - 1, 16), chunk(b"IDAT", bombs.zlibbed(1))), BOMB),
    "png_ihdr_zero.png": (lambda: png(ihdr(0, 0), chunk(b"IDAT", bombs.zlibbed(1))), ""),
    "png_at_the_cap.png": (  # 67 million pixels in 80 KiB, all black
        lambda: png(ihdr(8192, 8192), chunk(b"IDAT", bombs.zlibbed(65))),
        "constant",
    ),
    "png_at_the_cap_rgba.png": (
        lambda: png(ihdr(8192, 8192, 16, 6), chunk(b"IDAT", bombs.zlibbed(513))),
        "",
    ),
    "png_ztxt_bomb.png": (
        lambda: png(
            ihdr(40, 32),
            chunk(b"zTXt", b"a\0\0" + bombs.zlibbed(900)),
            chunk(b"IDAT", rows(40, 32)),
        ),
        "",
    ),
    "png_many_ztxt.png": (
        lambda: png(
            ihdr(40, 32),
            chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20), 9)) * 900,
            chunk(b"IDAT", rows(40, 32)),
        ),
        "",
    ),
    "png_iccp_bomb.png": (
        lambda: png(
            ihdr(40, 32),
            chunk(b"iCCP", b"a\0\0" + bombs.zlibbed(900)),
            chunk(b"IDAT", zlib.compress(b"\0")),
        ),
        "",
    ),
    "png_idat_bomb.png": (
        lambda: png(ihdr(40, 32), chunk(b"IDAT", bombs.zlibbed(1000))),
        "constant|" + BROKEN,
    ),
    "png_idat_none.png": (lambda: png(ihdr(40, 32)), BROKEN),
    "png_chunk_length.png": (
        lambda: png(ihdr(40, 32), chunk(b"IDAT", rows(40, 32), 0x7FFFFFFF)),
        BROKEN + "|needs more memory",
    ),
    "png_crc.png": (lambda: encoded(NOISE)[:29] + b"\0\0\0\0" + encoded(NOISE)[33:], BROKEN),
    "png_depth_3.png": (lambda: png(ihdr(40, 32, 3), chunk(b"IDAT", rows(40, 32))), BROKEN),
    "png_palette_none.png": (
        lambda: png(ihdr(40, 32, 8, 3), chunk(b"IDAT", rows(40, 32)[:60])),
        "",
    ),
    "png_frames.png": (
        lambda: png(
            ihdr(40, 32),
            chunk(b"acTL", struct.pack(">II", 0x7FFFFFFF, 0)),
            chunk(b"IDAT", rows(40, 32)),
        ),
        "several pages",
    ),
    # JPEG
    "jpeg_cut_header.jpg": (lambda: encoded(NOISE, "JPEG")[:100], BROKEN),
    "jpeg_cut_data.jpg": (lambda: encoded(NOISE, "JPEG")[:-300], BROKEN),
    "jpeg_bomb.jpg": (
        lambda: encoded(NOISE, "JPEG").replace(
            b"\x08" + struct.pack(">HH", 32, 40), b"\x08" + struct.pack(">HH", 65500, 65500)
        ),
        BOMB,
    ),
    "jpeg_scans.jpg": (lambda: scans_bomb(4096, 64_000), "takes more than 10 s"),
    "jpeg_no_image.jpg": (lambda: b"\xff\xd8\xff\xd9" + bytes(400), BROKEN),
    # TIFF
    "tiff_cut.tif": (lambda: encoded(NOISE, "TIFF")[:600], BROKEN),
    "tiff_65535.tif": (lambda: at_200(tiff(page(65535, 65535)), bytes(100)), BOMB),
    "tiff_rows_absurd.tif": (
        lambda: at_200(
            tiff(page(t278=long(0xFFFFFFFF), t279=long(0xFFFFFFFF))), NOISE.tobytes()[:200]
        ),
        "",
    ),
    "tiff_strip_beyond.tif": (
        lambda: at_200(tiff(page(t273=long(0xFFFFFFF0))), NOISE.tobytes()),
        "",
    ),
    "tiff_strips_2gb.tif": (
        lambda: at_200(
            tiff(page(t273=(4, 0x7FFFFFFF, struct.pack("<I", 200)), t278=long(1))), NOISE.tobytes()
        ),
        "",
    ),
    "tiff_tag_4gb.tif": (
        lambda: at_200(
            tiff(page(t270=(2, 0xFFFFFFFF, struct.pack("<I", 100)), t273=long(0xFFFF))),
            NOISE.tobytes(),
        ),
        "",
    ),
    "tiff_ifd_beyond.tif": (lambda: b"II*\0" + struct.pack("<I", 0xFFFFFFF0) + bytes(100), ""),
    "tiff_ifd_none.tif": (lambda: b"II*\0" + bytes(4), ""),
    "tiff_chain.tif": (lambda: chain(8000), "several pages|a broken image"),
    "tiff_nan.tif": (
        lambda: encoded(np.full((20, 20), np.nan, np.float32), "TIFF"),
        "NaN or infinite",
    ),
    "tiff_inf.tif": (
        lambda: encoded(np.where(NOISE > 9, np.inf, NOISE).astype(np.float32), "TIFF"),
        "NaN or infinite",
    ),
    "tiff_deflate_bomb.tif": (
        lambda: at_200(
            tiff(page(8000, 8000, t259=long(8), t279=long(len(bombs.zlibbed(900))))),
            bombs.zlibbed(900),
        ),
        "constant|broken",
    ),
    "tiff_deflate_garbage.tif": (
        lambda: at_200(tiff(page(t259=long(8), t279=long(1280))), NOISE.tobytes()),
        "broken",
    ),
    "tiff_big_garbage.tif": (lambda: b"II+\0\x08\0\0\0" + b"\xff" * 400, ""),
    # Not read
    "script.png": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>" * 9, "not a PNG, JPEG"),
}

# These may be read or refused, and must do neither harm
ODD: dict[str, Callable[[], bytes]] = {
    "odd_taller.jpg": lambda: encoded(NOISE, "JPEG").replace(  # libjpeg fills the rest with grey
        b"\x08" + struct.pack(">HH", 32, 40), b"\x08" + struct.pack(">HH", 4000, 40)
    ),
    "odd_ifd_loop.tif": lambda: at_200(tiff(page(), next_at=8), NOISE.tobytes()),
    "odd_interlaced.png": lambda: png(ihdr(40, 32, interlace=1), chunk(b"IDAT", rows(60, 40))),
    "odd_exif.jpg": lambda: encoded(
        NOISE, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 60
    ),
    "odd_trailing.png": lambda: encoded(NOISE) + bytes(500_000),
}
