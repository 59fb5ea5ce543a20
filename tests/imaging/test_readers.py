"""Every picture format and pixel type, and the files that must be refused by name and reason."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastmrigan.imaging.readers import BAND, read
from fastmrigan.imaging.walker import Refused

RAMP8 = np.arange(20 * 24, dtype=np.uint32).reshape(20, 24).astype(np.uint8)  # [H, W]
RAMP16 = (np.arange(20 * 24, dtype=np.uint32).reshape(20, 24) * 136).astype(np.uint16)


def grey_of(rgb: np.ndarray) -> np.ndarray:
    """The reference luminance, ITU-R BT.601."""
    return rgb.astype(np.float64) @ (0.299, 0.587, 0.114)


def test_a_transparent_value_of_16_bits_is_black(tmp_path: Path) -> None:
    clear = int(RAMP16[3, 4])
    Image.fromarray(RAMP16).save(tmp_path / "a.png", transparency=clear)
    expected = np.where(clear == RAMP16, 0, RAMP16)
    np.testing.assert_array_equal(read(tmp_path / "a.png", "a.png").slices[0], expected)


@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("a.png", RAMP8, RAMP8),
        ("a.png", RAMP16, RAMP16),
        ("a.tif", RAMP8, RAMP8),
        ("a.tiff", RAMP16, RAMP16),
        ("a.tif", RAMP16.astype(np.int32) - 500, RAMP16.astype(np.int32) - 500),
        ("a.tif", (RAMP16 / 7).astype(np.float32), (RAMP16 / 7).astype(np.float32)),
        ("a.png", np.dstack([RAMP8] * 3), RAMP8),
        ("a", RAMP8, RAMP8),
        ("1.2.840.17", RAMP8, RAMP8),
    ],
    ids=["L", "I;16", "tiff-L", "tiff-I;16", "tiff-I", "tiff-F", "RGB", "bare", "uid"],
)
def test_lossless_formats_keep_every_value(
    tmp_path: Path, name: str, pixels: np.ndarray, expected: np.ndarray
) -> None:
    kind = "TIFF" if ".tif" in name else "PNG"
    Image.fromarray(pixels).save(tmp_path / name, format=kind)
    image = read(tmp_path / name, name)
    assert image.mode.startswith(kind)
    assert image.slices.dtype == np.float32
    np.testing.assert_array_equal(image.slices, expected[None].astype(np.float32))


def test_big_endian_tiff_of_16_bits(tmp_path: Path) -> None:
    Image.frombytes("I;16B", (24, 20), RAMP16.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read(tmp_path / "a.tif", "a.tif").slices[0], RAMP16)


def test_tint_becomes_luminance(tmp_path: Path) -> None:
    rgb = np.dstack([RAMP8, RAMP8 // 2, RAMP8 // 3])
    Image.fromarray(rgb).save(tmp_path / "tint.png")
    np.testing.assert_allclose(
        read(tmp_path / "tint.png", "tint.png").slices[0], grey_of(rgb), atol=0.51
    )


def test_transparency_lies_on_black(tmp_path: Path) -> None:
    alpha = np.zeros_like(RAMP8)
    alpha[:, 12:] = 255
    Image.fromarray(np.dstack([RAMP8, RAMP8, RAMP8, alpha])).save(tmp_path / "a.png")
    got = read(tmp_path / "a.png", "a.png").slices[0]
    np.testing.assert_array_equal(got, np.where(alpha > 0, RAMP8, 0))


def test_palette_and_its_transparent_entry(tmp_path: Path) -> None:
    image = Image.fromarray(RAMP8 % 4, mode=None).convert("L")
    image = image.convert("P")
    image.putpalette([200, 200, 200, 10, 10, 10, 20, 20, 20, 30, 30, 30])
    image.save(tmp_path / "a.png", transparency=0)
    got = read(tmp_path / "a.png", "a.png")
    assert got.mode == "PNG P"
    np.testing.assert_array_equal(got.slices[0], (RAMP8 % 4) * 10.0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
@pytest.mark.parametrize("height", [BAND - 1, BAND, BAND + 1, 3 * BAND + 5])
def test_bands_of_rows_leave_no_seam(tmp_path: Path, mode: str, height: int) -> None:
    noise = np.random.default_rng(4).integers(0, 256, (height, 24, 4), dtype=np.uint8)
    image = Image.fromarray(noise)
    image = (image if "A" in mode else image.convert("RGB")).convert(mode)
    image.save(tmp_path / "a.png")
    black = Image.new("RGBA", image.size, "black")
    want = Image.alpha_composite(black, image.convert("RGBA")).convert("RGB").convert("L")
    np.testing.assert_array_equal(read(tmp_path / "a.png", "a.png").slices[0], np.asarray(want))


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(RAMP8).save(tmp_path / "really.png")
    os.replace(tmp_path / "really.png", tmp_path / "named.jpg")
    assert read(tmp_path / "named.jpg", "named.jpg").mode == "PNG L"


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size and whose data is a stub."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def encoded(pixels: np.ndarray, kind: str = "PNG", **how: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind, **how)
    return buffer.getvalue()


NOISE8 = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
PAGES = {"save_all": True, "append_images": [Image.fromarray(RAMP8)]}

HOSTILE = {
    "truncated.png": (encoded(NOISE8)[:2000], r"a broken image \(.*truncated"),
    "truncated.jpg": (encoded(NOISE8, "JPEG")[:1500], r"a broken image \(.*truncated"),
    "truncated.tif": (encoded(NOISE8, "TIFF")[:2000], "a broken image|not enough image data"),
    "letter.png": (b"Dear doctor,\nplease find enclosed\n" * 20, "not a PNG, JPEG, TIFF, DICOM"),
    "letter.dcm": (b"Dear doctor,\nplease find enclosed\n" * 20, "not a DICOM file"),
    "letter.nii": (b"Dear doctor,\nplease find enclosed\n" * 20, "not a NIfTI file"),
    "letter.nii.gz": (b"Dear doctor,\nplease find enclosed\n" * 20, "not a NIfTI file"),
    "empty.png": (b"", "an empty file"),
    "dot.png": (encoded(RAMP8[:1, :1]), "1x1 pixels; at least 16x16 are needed"),
    "strip.png": (encoded(np.tile(RAMP8, (8, 1))[:, :15]), "15x160 pixels; at least 16x16"),
    "black.png": (encoded(RAMP8 * 0), "constant: every pixel is 0"),
    "bomb.png": (png_claiming(65535, 65535), "bomb|claims 65535x65535 pixels"),
    "big.png": (png_claiming(9000, 9000), "claims 9000x9000 pixels; at most 67,108,864 are read"),
    "pages.tif": (encoded(RAMP8, "TIFF", **PAGES), "holds several pages; one image a file is read"),
    "crc.png": (encoded(NOISE8)[:40] + b"\0" + encoded(NOISE8)[41:], "a broken image|not a PNG"),
    "nan.tif": (encoded(np.full((20, 20), np.nan, np.float32), "TIFF"), "holds NaN or infinite"),
    "white.tif": (
        encoded(RAMP16, "TIFF", tiffinfo={262: 0}),
        "a TIFF of more than 8 bits whose zero is white",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_name_and_reason(tmp_path: Path, name: str) -> None:
    data, reason = HOSTILE[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Refused, match=reason) as caught:
        read(tmp_path / name, name)
    assert str(caught.value).startswith(f"{name}: ")
    assert "\n" not in str(caught.value)


def test_hostile_files_leave_the_good_ones_beside_them(tmp_path: Path, fastmrigan) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name, (data, _) in HOSTILE.items():
        (source / name).write_bytes(data)
    for i in range(3):
        Image.fromarray(np.roll(NOISE8, i * 7)).save(source / f"good{i}.png")
    done = fastmrigan("prepare", source, "--out", tmp_path / "out", "--size", 32)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "prepared 3 slices of 32x32" in done.stdout
    assert f"refused {len(HOSTILE)} files" in done.stdout
    lines = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    assert {json.loads(line)["name"] for line in lines} == set(HOSTILE)
