"""What the worker processes of `prepare` do: one function, so that one pool serves all of it.

Each kind of work looks at one file (and its twin and label map) and knows nothing of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.pairs import Job
from fastmrigan.imaging.readers import ReadImage, read
from fastmrigan.imaging.squares import SliceName, Squares, square
from fastmrigan.imaging.walker import Refused, is_dicom, printable

if TYPE_CHECKING:
    from fastmrigan.imaging.dicom.header import DicomHeader

SECONDS = 2.0  # of processor time, for any file
SECONDS_A_MIB = 1.0  # for each MiB of a larger one: a volume of 200 slices packs into 3
HEADER_SECONDS_A_MIB = 0.5  # enhanced frames take 0.1, and pixels are not looked at


def work(kind: str, size: int, *args: Any) -> Any:
    """Does one kind of work; size: bytes of the files it reads, for `patience`."""
    return KINDS[kind](*args)


def patience(kind: str, size: int, *args: Any) -> float:
    """Seconds of processor time that `work` may take with the same arguments."""
    a_mib = HEADER_SECONDS_A_MIB if kind == "header" else SECONDS_A_MIB
    return max(SECONDS, a_mib * size / 2**20)


def header(path: Path, name: str) -> DicomHeader | None:
    """The header of a DICOM file; None where the file is something else. Raises Refused."""
    from fastmrigan.imaging.dicom.header import read_header
    from fastmrigan.imaging.dicom.series import check_stacks

    if not is_dicom(path):
        return None
    try:
        found = read_header(path)
        check_stacks(found)
        return found
    except ValueError as error:
        raise Refused(name, printable(str(error))) from error


def frames(path: Path, name: str, convert_rgb: bool) -> ReadImage:
    """All slices of one file of a series; the file may be constant. Raises Refused."""
    if not is_dicom(path):
        return read(path, name)
    from fastmrigan.imaging.dicom import read_dicom

    try:
        image = read_dicom(path, convert_rgb=convert_rgb)
        if not np.isfinite(image.slices).all():
            raise ValueError("holds NaN or infinite values")
    except ValueError as error:
        raise Refused(name, printable(str(error))) from error
    except MemoryError as error:
        raise Refused(name, "needs more memory to decode than there is") from error
    return image


def square_file(job: Job, options: PrepareOptions) -> Squares:
    """A picture or a NIfTI volume, its twin and its label map, down to squares. Raises Refused."""
    image = read(job.path, job.name)
    twin, labels = None, None
    if job.twin is not None:
        name, path = job.twin
        try:
            twin = name, frames(path, name, options.rgb == "convert")
        except Refused as error:
            raise Refused(job.name, f"its twin {error}") from error
    if job.label_map is not None:
        from fastmrigan.imaging.label_map import read_label_map

        name, path = job.label_map
        try:
            labels = read_label_map(path, image)
        except (ValueError, OSError) as error:
            raise Refused(job.name, f"its label map {printable(name)}: {error}") from error
    count = len(image.slices)
    names = [SliceName(job.name, z if image.volume else None) for z in range(count)]
    return square(image, names, options, twin=twin, labels=labels)


KINDS: dict[str, Callable[..., Any]] = {
    "header": header,
    "frames": frames,
    "square": square_file,
}
