"""NIfTI volumes of slices whose places are known."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmrigan import NOTICE
from fastmrigan.errors import MissingDependency, UsageError
from fastmrigan.files import write_whole
from fastmrigan.imaging.geometry import background
from fastmrigan.imaging.position import SlicePosition

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's axes to NIfTI's
TOLERANCE = 0.02  # of a step, or of a pixel: how far a slice may lie off the grid
MAX_SLICES = 4096  # of a grid, blank ones included


@dataclass(frozen=True)
class Grid:
    """An even stack of slices, some of which may be missing."""

    affine: Float64  # [4, 4], RAS mm of the voxel [column, row, place]
    places: tuple[int, ...]  # [N], of the slices given, in their order
    count: int  # of places, from the first slice to the last


def grid(positions: Sequence[SlicePosition], orders: Sequence[int | None] = ()) -> Grid:
    """The even stack that N >= 1 slices lie on, the lowest along the normal in place 0.

    orders: each slice's number in its source volume. Where these agree with the places, the stack
    begins at number 0, so that the affine is that of the source even where its first slices are
    not given. Raises ValueError with the reason where the slices lie on no even stack.
    """
    first = positions[0]
    for other in positions:
        if not _parallel(first, other):
            raise ValueError("its slices differ in orientation or pixel spacing")
    along = np.array([position.along_normal for position in positions])  # mm [N]
    origins = np.array([position.origin for position in positions])  # mm [N, 3]
    lowest, highest = int(along.argmin()), int(along.argmax())
    if len(positions) == 1:
        step = first.normal * (first.thickness or 1.0)
        places = np.zeros(1, np.int64)
    else:
        gaps = np.diff(np.sort(along))
        if gaps.min() < TOLERANCE * min(first.spacing):
            raise ValueError("two of its slices lie in one place")
        usual = gaps[gaps < 1.5 * gaps.min()].mean()  # between neighbours, rounding averaged out
        last = round(float(along[highest] - along[lowest]) / float(usual))
        step = (origins[highest] - origins[lowest]) / last
        places = np.rint((along - along[lowest]) / float(first.normal @ step)).astype(np.int64)
        off = np.linalg.norm(origins - (origins[lowest] + places[:, None] * step), axis=1).max()
        if off > TOLERANCE * max(float(np.linalg.norm(step)), *first.spacing):
            raise ValueError(
                f"its slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart and lie on no even "
                "stack, which NIfTI needs"
            )
    before = _before(places, orders) if len(positions) > 1 else 0
    places = places + before
    if places.max() >= MAX_SLICES:
        raise ValueError(f"its stack would have {places.max() + 1:,} slices, nearly all blank")
    affine = np.eye(4)  # LPS
    affine[:3, 0] = np.asarray(first.row) * first.spacing[1]
    affine[:3, 1] = np.asarray(first.column) * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = origins[lowest] - before * step
    return Grid(LPS_TO_RAS @ affine, tuple(places.tolist()), int(places.max()) + 1)


def _parallel(a: SlicePosition, b: SlicePosition) -> bool:
    cosines = np.allclose((a.row, a.column), (b.row, b.column), rtol=0, atol=1e-4)
    return bool(cosines and np.allclose(a.spacing, b.spacing, rtol=1e-4, atol=0))


def _before(places: npt.NDArray[np.int64], orders: Sequence[int | None]) -> int:
    """How many slices the source has below the lowest; 0 where its numbers do not tell."""
    known = [order for order in orders if order is not None]
    if len(known) != len(places):
        return 0
    shifts = np.array(known) - places
    return max(0, int(shifts[0])) if (shifts == shifts[0]).all() else 0


def volume_bytes(
    slices: Float32,
    stack: Grid,
    *,
    blank: float,
    compress: bool = True,
    note: str = "",
) -> bytes:
    """A NIfTI-1 file: float32 [X, Y, Z], turned to the closest RAS+ orientation, millimetres.

    slices: float32 [N, H, W]; blank: the value of places without a slice; note: kept as a header
    extension of kind "comment". Raises MissingDependency where nibabel is absent.
    """
    try:
        import nibabel
    except ModuleNotFoundError as error:
        raise MissingDependency("nibabel", "dicom", "writing NIfTI") from error

    to_image: Any = nibabel.Nifti1Image  # nibabel leaves these untyped
    to_ras: Any = nibabel.as_closest_canonical
    extension: Any = nibabel.nifti1.Nifti1Extension
    volume = np.full((stack.count, *slices.shape[1:]), blank, np.float32)  # [Z, H, W]
    volume[list(stack.places)] = slices
    image = to_ras(to_image(volume.transpose(2, 1, 0), stack.affine))
    affine = image.affine
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    if not np.allclose(image.get_qform(), affine, atol=1e-3):  # sheared: quaternions cannot say it
        image.header["qform_code"] = 0
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"FastMRIGAN: synthetic, {NOTICE}".encode()[:79]
    if note:
        image.header.extensions.append(extension("comment", note.encode()))
    content: bytes = image.to_bytes()
    return gzip.compress(content, compresslevel=1, mtime=0) if compress else content


def surroundings(slices: Float32) -> float:
    """The level of the air around the heads: the median of the slices' backgrounds. [N, H, W]"""
    return float(np.median([background(x) for x in slices]))


def write_volume(
    path: Path | str,
    slices: Float32,
    positions: Sequence[SlicePosition],
    *,
    blank: float | None = None,
    note: str = "",
) -> None:
    """Writes the slices of one volume as .nii or .nii.gz; the file appears whole or not at all.

    slices: float32 [N, H, W] in any unit; positions: N, in any order along their normal. The
    affine follows from the positions alone, and voxels run to the closest RAS+ axes. Places of an
    even stack that no slice fills hold `blank`, by default the level around the heads.
    Raises UsageError where the slices lie on no even stack, MissingDependency and OSError.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise UsageError(f"{path}: a NIfTI volume's name ends in .nii or .nii.gz")
    if slices.ndim != 3 or not len(slices) or len(slices) != len(positions):
        raise UsageError(
            f"{path}: expected slices [N, H, W] and N >= 1 positions, got {list(slices.shape)} and "
            f"{len(positions)}"
        )
    try:
        stack = grid(positions)
    except ValueError as error:
        raise UsageError(f"{path}: {error}; write it as DICOM") from error
    empty = surroundings(slices) if blank is None else blank
    compress = path.name.endswith(".gz")
    write_whole(path, volume_bytes(slices, stack, blank=empty, compress=compress, note=note))
