"""Label maps (segmentations) carried to the slices of the volume they were drawn on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastmrigan.imaging.nifti import Volume, read_volume
from fastmrigan.imaging.position import Float64, SlicePosition
from fastmrigan.imaging.readers import ReadImage

UInt8 = npt.NDArray[np.uint8]

TOLERANCE = 0.1  # of a voxel: affines kept as float32 or as quaternions agree far better


def read_label_map(path: Path, like: ReadImage) -> UInt8:
    """The label of every pixel of `like`, whatever order its file keeps its voxels in.

    path: a 3-D NIfTI file of whole numbers 0 to 255 on the grid of `like`, which may come from
    NIfTI or from DICOM. Voxels are matched by where they lie in the patient; nothing is resampled.
    Returns uint8 [N, H, W], as like.slices. Raises ValueError with the reason (another grid, other
    values, what `read_nifti` refuses) and MissingDependency.
    """
    if like.positions is None:
        raise ValueError("a label map for slices of unknown position, which it cannot be laid on")
    volume = read_volume(path)
    labels = whole_numbers(volume)  # [Z, Y, X], as displayed
    if labels.size != like.slices.size:
        raise ValueError(
            f"a label map of {sizes(labels.shape)} voxels, slices of {sizes(like.slices.shape)}; "
            "both must lie on one grid"
        )
    laid = np.empty(like.slices.shape, np.uint8)
    from_lps = np.linalg.inv(volume.to_lps)  # to (column, row, slice, 1)
    for n, position in enumerate(like.positions):
        laid[n] = labels[voxels_of(from_lps @ to_lps(position), laid.shape[1:], labels.shape)]
    return laid


def whole_numbers(volume: Volume) -> UInt8:
    """The volume's values as labels, uint8 [Z, H, W]. Raises ValueError for any other number."""
    labels = np.empty(volume.stored.shape, np.uint8)
    for z, values in enumerate(volume.values()):
        right = (values >= 0) & (values <= 255) & (values == np.rint(values))  # NaN is not
        if not right.all():
            wrong = float(values[~right][0])
            raise ValueError(f"holds {wrong:g}; labels are whole numbers from 0 to 255")
        labels[z] = values
    return labels


def to_lps(position: SlicePosition) -> Float64:
    """(column, row, 1) of a slice to LPS in mm, float64 [4, 3] (PS3.3 C.7.6.2.1.1)."""
    down, across = position.spacing
    matrix = np.zeros((4, 3))
    matrix[:3, 0] = np.multiply(position.row, across)
    matrix[:3, 1] = np.multiply(position.column, down)
    matrix[:3, 2], matrix[3, 2] = position.origin, 1.0
    return matrix


def voxels_of(
    to_voxel: Float64, size: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.intp], ...]:
    """Which voxel each pixel of a slice is: three index arrays, each [H, W].

    to_voxel: [4, 3], (column, row, 1) to (column, row, slice, 1) of a volume of `shape` [Z, Y, X].
    Raises ValueError where pixels fall between the voxels or outside them.
    """
    height, width = size
    exact = np.rint(to_voxel)  # on one grid, all its numbers are whole
    corners = np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1], [1] * 4])
    beside = float(np.abs((to_voxel - exact) @ corners).max())
    if not beside <= TOLERANCE:
        raise ValueError(f"a label map on another grid: {beside:.2g} voxels beside the slices' own")
    reached = (exact @ corners)[:3]  # [3, 4]
    if reached.min() < 0 or (reached.max(axis=1) >= shape[::-1]).any():
        raise ValueError("a label map on another grid: the slices reach beyond it")
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))  # each [H, W]
    whole = exact.astype(np.intp)
    x, y, z = (whole[i, 0] * columns + whole[i, 1] * rows + whole[i, 2] for i in range(3))
    return z, y, x


def sizes(shape: tuple[int, ...]) -> str:
    return "x".join(str(length) for length in shape[::-1])
