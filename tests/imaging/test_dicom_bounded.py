"""Files that claim or hide more than they are: refused for a reason, at little cost."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from dicom_files import STORED, dicom, mr
from pydicom.uid import RLELossless

from fastmrigan.imaging.dicom import bounded, open_bounded, read_dicom, read_header

DEFLATED = "1.2.840.10008.1.2.1.99"
MEMORY = 200 << 20  # bytes that any of these may take

Write = Callable[[Path], None]


def element(group: int, number: int, kind: bytes, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    head = struct.pack("<HH", group, number) + kind
    if kind in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return head + struct.pack("<HI", 0, size) + value
    return head + struct.pack("<H", size) + value


def head_and_body(path: Path) -> tuple[bytes, bytes]:
    """A file up to its data set, and the data set (from group 0008)."""
    dicom(path)
    data = path.read_bytes()
    at = data.index(struct.pack("<HH", 8, 0x16))
    return data[:at], data[at:]


def with_elements(path: Path, *, before_pixels: bytes) -> None:
    dicom(path)
    data = path.read_bytes()
    at = data.index(struct.pack("<HH", 0x7FE0, 0x10))
    path.write_bytes(data[:at] + before_pixels + data[at:])


def deflate(path: Path, *parts: bytes) -> None:
    """Writes a deflated file whose data set is the parts, deflated as they come."""
    dicom(path, syntax=DEFLATED)
    head, _ = head_and_body(path.with_suffix(".plain"))
    head = head.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    head = head.replace(b"UI\x14\x001.2.840.10008.1.2.1.99", b"UI\x16\x001.2.840.10008.1.2.1.99")
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    with path.open("wb") as file:
        file.write(head)
        for part in parts:
            file.write(packer.compress(part))
        file.write(packer.flush())


def deflated_private_element(path: Path) -> None:
    deflate(path, element(9, 0x1001, b"OB", b"", 1 << 30), *[bytes(1 << 20)] * 256)


def deflated_beyond_the_header(path: Path) -> None:
    _, body = head_and_body(path)
    deflate(path, body, *[bytes(1 << 20)] * 64)


def deflated_cut_short(path: Path) -> None:
    dicom(path, syntax=DEFLATED)
    path.write_bytes(path.read_bytes()[:-40])


def rle_of_65535(path: Path) -> None:
    made = mr(STORED)
    made.compress(RLELossless)
    made.Rows = made.Columns = 65535
    made.save_as(path, enforce_file_format=True)


def nested(path: Path, depth: int = 1000) -> None:
    start = element(9, 0x1001, b"SQ", b"", 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    with_elements(path, before_pixels=start * depth)


def empty_items(path: Path) -> None:
    item, end = struct.pack("<HHI", 0xFFFE, 0xE000, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    items = item * 20_000 + end
    with_elements(path, before_pixels=element(0x40, 0x275, b"SQ", items, 0xFFFFFFFF))


def sparse_private_element(path: Path) -> None:
    """4 GB that the disk does not hold."""
    with_elements(path, before_pixels=element(9, 0x1001, b"OB", b"", 0xFFFFFFF0))
    data = path.read_bytes()
    with path.open("wb") as file:
        file.write(data[: data.index(b"OB\0\0\xf0\xff\xff\xff") + 8])
        file.truncate(1 << 32)


def sparse_pixels(path: Path) -> None:
    dicom(path)
    with path.open("r+b") as file:
        file.truncate(1 << 32)


def wrong_length(path: Path) -> None:
    """An element that claims 4 GB of a small file."""
    with_elements(path, before_pixels=element(9, 0x1001, b"OB", b"abcd", 0xFFFFFFF0))


def words(path: Path) -> None:
    path.write_bytes(b"Dear doctor,\nplease find enclosed\n" * 20)


def many_values(path: Path) -> None:
    dicom(path, RescaleIntercept="0")
    data = path.read_bytes()
    old = element(0x28, 0x1052, b"DS", b"0 ")
    assert old in data
    path.write_bytes(data.replace(old, element(0x28, 0x1052, b"UT", b"1\\" * 200_000)))


CASES: dict[str, tuple[Write, str]] = {
    "deflated private element": (deflated_private_element, "its header is longer than 64 MiB"),
    "deflated pixels": (
        deflated_beyond_the_header,
        "inflates to more than .* its header allows",
    ),
    "deflated cut": (deflated_cut_short, "its deflated data set is cut short"),
    "RLE of 65535x65535": (rle_of_65535, "claims 65535x65535 pixels"),
    "nested 1000 deep": (nested, "its sequences are nested too deep"),
    "sparse private element": (sparse_private_element, "its header is longer than 64 MiB"),
    "sparse pixels": (sparse_pixels, "bytes follow a header that announces 960 bytes of pixels"),
    "wrong length": (wrong_length, "DICOM without pixels"),
    "words": (words, "not a DICOM file"),
    "many values": (many_values, "its RescaleIntercept takes 400,000 bytes"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_at_a_bounded_cost(tmp_path: Path, name: str) -> None:
    write, reason = CASES[name]
    write(tmp_path / "a.dcm")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=reason) as caught:
            read_dicom(tmp_path / "a.dcm")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < MEMORY


def test_elements_and_items_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_items(tmp_path / "a.dcm")
    assert len(open_bounded(tmp_path / "a.dcm").RequestAttributesSequence) == 20_000  # are few
    monkeypatch.setattr(bounded, "READS", 10_000)
    with pytest.raises(ValueError, match=r"^its header takes more than 13,\d{3} reads"):
        read_dicom(tmp_path / "a.dcm")


def test_a_deflated_image_is_read_whole(tmp_path: Path) -> None:
    dicom(tmp_path / "a.dcm", syntax=DEFLATED)
    assert read_dicom(tmp_path / "a.dcm").slices[0, -1, -1] == 479
    assert read_header(tmp_path / "a.dcm").columns == 24


@pytest.mark.parametrize("cut", range(0, 1400, 37))
def test_truncated_anywhere(tmp_path: Path, cut: int) -> None:
    dicom(tmp_path / "a.dcm")
    data = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(data[: len(data) * cut // 1400])
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        read_dicom(tmp_path / "a.dcm")


def test_a_closed_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^cannot be read \(No such file or directory\)$"):
        read_header(tmp_path / "absent.dcm")
    with pytest.raises(ValueError, match=r"^cannot be read \(Is a directory\)$"):
        open_bounded(tmp_path)
