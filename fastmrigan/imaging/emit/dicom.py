"""DICOM series, quickly: pydicom encodes the data set once, each file splices its values in.

Of two files of a series ten elements differ. `SeriesWriter` has pydicom write one file, cuts it
at those elements and puts each slice's own values between the pieces, each with its length in
front. Values therefore keep their natural length and nothing is padded but to an even length, as
pydicom does: the bytes are those that pydicom writes for the same data set.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError
from fastmrigan.files import sync_folder, write_synced
from fastmrigan.imaging.emit.header import SeriesHeader, ds, series_dataset
from fastmrigan.imaging.position import SlicePosition, Vector

if TYPE_CHECKING:
    from pydicom import Dataset

UInt16 = npt.NDArray[np.uint16]

TOP = 65535  # the highest stored value
PREAMBLE = 132  # bytes before the first element of a file
# What slices of a series differ in, besides the pixels; by tag, as they stand in a file.
VARYING = (
    "SOPInstanceUID",
    "InstanceNumber",
    "ImagePositionPatient",
    "SliceLocation",
    "ImageComments",
    "WindowCenter",
    "WindowWidth",
    "RescaleIntercept",
    "RescaleSlope",
)
MAX_COMMENT = 10240  # characters of a long text, LT


@dataclass(frozen=True)
class SliceHeader:
    """What one file says of its slice."""

    key: str | int  # names the slice within the run; its identifier is made of it
    number: int  # InstanceNumber, from 1
    origin: Vector  # mm, the centre of pixel [0, 0] in the patient: ImagePositionPatient
    scale: tuple[float, float] = (0.0, float(TOP))  # what stored 0 and 65535 stand for
    comment: str = ""  # ImageComments, in ASCII


class SeriesWriter:
    """Encodes the slices of one series, one file each, in any order.

    Raises UsageError where the header cannot stand in a DICOM file, MissingDependency where
    pydicom is absent.
    """

    def __init__(self, header: SeriesHeader) -> None:
        self.header = header
        self._common = series_dataset(header)
        self._normal = [float(cosine) for cosine in header.geometry.normal]
        blank = np.zeros(header.size, np.uint16)
        self._pieces = _cut(file_bytes(self.dataset(SliceHeader("", 1, (0.0, 0.0, 0.0)), blank)))

    def encode(self, slice: SliceHeader, pixels: UInt16) -> bytes:
        """One DICOM file, explicit VR little endian.

        pixels: uint16 [H, W] of the header's size; a stored v stands for
        scale[0] + v / 65535 * (scale[1] - scale[0]). Raises UsageError.
        """
        return b"".join(self.parts(slice, pixels))

    def parts(self, slice: SliceHeader, pixels: UInt16) -> tuple[bytes, memoryview]:
        """The same file as what stands before the pixels, and the pixels, not copied."""
        self._check(slice, pixels)
        values = [_short(value) for value in self._values(slice).values()]
        stored = np.ascontiguousarray(pixels, "<u2").data.cast("B")
        values = [values[0], *values, struct.pack("<I", stored.nbytes)]  # first in the file meta
        pieces = [part for pair in zip(self._pieces, values, strict=True) for part in pair]
        return b"".join(pieces), stored

    def dataset(self, slice: SliceHeader, pixels: UInt16) -> Dataset:
        """The same file as pydicom's data set; `file_bytes` of it equals `encode`."""
        self._check(slice, pixels)
        data = deepcopy(self._common)
        for keyword, value in self._values(slice).items():
            setattr(data, keyword, value)
        data.PixelData = np.ascontiguousarray(pixels, "<u2").tobytes()
        return data

    def _values(self, slice: SliceHeader) -> dict[str, str]:
        """VARYING to this slice's values, as they are written."""
        low, high = slice.scale
        along = math.fsum(n * x for n, x in zip(self._normal, slice.origin, strict=True))
        values = (
            self.header.uid("instance", slice.key),
            str(slice.number),
            "\\".join([ds(mm) for mm in slice.origin]),
            ds(round(along, 4)),
            slice.comment,
            ds((low + high) / 2),
            ds(high - low),
            ds(low),
            ds((high - low) / TOP),
        )
        return dict(zip(VARYING, values, strict=True))

    def _check(self, slice: SliceHeader, pixels: UInt16) -> None:
        low, high = slice.scale
        if pixels.shape != self.header.size or pixels.dtype != np.uint16:
            wrong = (
                "pixels",
                f"uint16 {list(self.header.size)}",
                f"{pixels.dtype} {[*pixels.shape]}",
            )
        elif not 0 <= slice.number < 2**31:
            wrong = "number", "0 to 2^31 - 1", f"{slice.number}"
        elif not all(map(math.isfinite, slice.origin)):
            wrong = "origin", "finite", f"{slice.origin}"
        elif not (math.isfinite(high - low) and low < high):
            wrong = "scale", "finite, low < high", f"{slice.scale}"
        elif len(slice.comment) > MAX_COMMENT or not slice.comment.isascii():
            wrong = "comment", f"at most {MAX_COMMENT:,} ASCII characters", repr(slice.comment[:40])
        else:
            return
        name, expected, got = wrong
        raise UsageError(f"DICOM slice {slice.key}: {name}: expected {expected}, got {got}")


def file_bytes(data: Dataset) -> bytes:
    """A data set as pydicom writes it to a file."""
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_series(
    folder: Path,
    header: SeriesHeader,
    pixels: UInt16,
    positions: Sequence[SlicePosition],
    *,
    scale: tuple[float, float] = (0.0, float(TOP)),
) -> list[Path]:
    """Writes a series as folder/000001.dcm …, every file on the disk at return; the paths.

    pixels: uint16 [N, H, W]; positions: N, whose origins are used (the rest is the header's).
    The folder may exist; files of these names are replaced. Raises UsageError, MissingDependency
    and OSError.
    """
    if len(pixels) != len(positions):
        raise UsageError(f"{folder}: {len(pixels)} slices, but {len(positions)} positions")
    writer = SeriesWriter(header)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (stored, position) in enumerate(zip(pixels, positions, strict=True), start=1):
        key = f"{header.series}/{number}"
        paths.append(folder / f"{number:06}.dcm")
        content = writer.encode(SliceHeader(key, number, position.origin, scale), stored)
        write_synced(paths[-1], content)
    sync_folder(folder)
    return paths


def _cut(content: bytes) -> list[bytes]:
    """A file's bytes before, between and behind the lengths and values of what varies."""
    from pydicom.dataelem import RawDataElement
    from pydicom.filereader import data_element_generator
    from pydicom.tag import Tag

    holes = {Tag(name) for name in ("MediaStorageSOPInstanceUID", *VARYING, "PixelData")}
    pieces, start = [], 0
    # Both the file meta information and the data set are explicit VR little endian
    body = io.BytesIO(content[PREAMBLE:])
    for element in data_element_generator(body, is_implicit_VR=False, is_little_endian=True):
        if element.tag in holes and isinstance(element, RawDataElement):
            value = PREAMBLE + element.value_tell
            pieces.append(content[start : value - (4 if element.VR == "OW" else 2)])
            start = value + element.length
    if start != len(content) or len(pieces) != len(holes):
        raise AssertionError("pydicom wrote a file of another shape than was asked for")
    return pieces


def _short(value: str) -> bytes:
    """A value of a VR with a 16-bit length, behind that length; padded to an even one."""
    content = value.encode("ascii")
    content += b" " * (len(content) % 2)
    return struct.pack("<H", len(content)) + content
