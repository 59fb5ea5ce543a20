"""Axial slices of a 3-D NIfTI volume, and where they lie.

nibabel reads the header and knows what the affine means. The voxels are read here, because a header
is only a claim: no more is read than it claims (and what leads to a checksum), and none that the
file is too short for.
"""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import MissingDependency
from fastmrigan.imaging.mask import otsu_threshold
from fastmrigan.imaging.position import FAR_MM, VOXEL_MM, Float64, SlicePosition, Vector
from fastmrigan.imaging.readers import MAX_VOXELS, Float32, ReadImage
from fastmrigan.imaging.worker import unclocked

MAX_OFFSET = 1 << 26  # bytes of header extensions before the first voxel
DEFLATE_RATIO = 1032  # the most that deflate can shrink anything (zlib's technical notes)
IMAGE_RATIO = 200  # no image shrinks so far; label maps and bombs do
BOMB_BYTES = 1 << 26  # below this a bomb costs too little to be told from an empty image
READ_BYTES = 1 << 20  # inflated at a time; and read behind the voxels, to reach the checksum
SHEAR = 1e-4  # cosine between rows and columns from which a slice is no rectangle
FLAT = 1e-6  # of the affine's unit axes: a smaller volume is none

METRES, MICRONS = 1, 3  # of xyzt_units; everything else counts as millimetres
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

SILENT = logging.Logger("fastmrigan.imaging.nifti")  # what nibabel mends is no news to the user
SILENT.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Volume:
    """The one volume of a NIfTI file, turned to axial slices; nothing resampled."""

    stored: npt.NDArray[Any]  # [N, H, W], feet to head; row 0 front, column 0 the patient's right
    slope: float  # value = slope * stored + inter
    inter: float
    to_lps: Float64  # [4, 4], (column, row, slice, 1) to LPS in mm
    kind: str  # of the stored values, e.g. "int16"
    transform: str  # what told its place: "sform", "qform" or "none"

    def values(self) -> Iterator[Float64]:
        """Each slice in the file's own unit, float64 [H, W]."""
        for x in self.stored:
            yield x.astype(np.float64) * self.slope + self.inter


def read_nifti(path: Path) -> ReadImage:
    """All axial slices, feet to head, as a radiologist sees them: the patient's right on the left.

    The volume is turned to the closest RAS+ orientation (no resampling), scl_slope and scl_inter
    applied. Raises ValueError with the reason (not one 3-D volume, too large, broken, a bomb) and
    MissingDependency.
    """
    volume = read_volume(path, ratio=IMAGE_RATIO)
    slices = np.empty(volume.stored.shape, np.float32)  # [N, H, W]
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by name
        for z, values in enumerate(volume.values()):
            slices[z] = values
    positions = positions_of(volume)
    normal = np.cross(volume.to_lps[:3, 0], volume.to_lps[:3, 1])
    step = volume.to_lps[:3, 2] @ normal / np.linalg.norm(normal)
    tags: dict[str, str | float] = {
        "SpacingBetweenSlices": float(step),
        "NIfTITransform": volume.transform,
    }
    return ReadImage(slices, f"NIfTI {volume.kind}", volume=True, positions=positions, tags=tags)


def positions_of(volume: Volume) -> tuple[SlicePosition, ...] | None:
    """Where each slice lies; None for slices sheared to rhomboids, which DICOM cannot place."""
    to_column, to_row, to_slice, origin = volume.to_lps[:3].T  # mm, each [3]
    across, down = float(np.linalg.norm(to_column)), float(np.linalg.norm(to_row))
    if abs(to_column @ to_row) > SHEAR * across * down:
        return None
    return tuple(
        SlicePosition(
            vector(origin + z * to_slice),
            vector(to_column / across),
            vector(to_row / down),
            spacing=(down, across),
        )
        for z in range(len(volume.stored))
    )


def vector(x: Float64) -> Vector:
    first, second, third = x.tolist()
    return first, second, third


def read_volume(path: Path, *, ratio: int = DEFLATE_RATIO) -> Volume:
    """The volume of a .nii or .nii.gz file (NIfTI-1 or 2, either byte order).

    ratio: how far a large file may be compressed before it counts as a bomb. Raises as `read_nifti`
    does.
    """
    try:
        with unclocked():
            import nibabel
    except ModuleNotFoundError as error:
        raise MissingDependency("nibabel", "dicom", f"reading NIfTI ({path.name})") from error

    try:
        with np.errstate(all="ignore"), opened(path) as (stream, packed):
            header, shape, kind = read_header(stream)
            size = int(np.prod(shape, dtype=np.float64)) * kind.itemsize
            offset = int(header["vox_offset"])
            check_claim(path.stat().st_size, offset + size, packed=packed, ratio=ratio)
            affine, transform = affine_of(header)  # [4, 4], RAS, mm
            slope, inter = header.get_slope_inter()
            stream.seek(offset)
            stored = take(stream, size).view(kind).reshape(shape, order="F")
            if packed and len(stream.read(READ_BYTES)) == READ_BYTES:
                raise ValueError(f"inflates to far more than the {offset + size:,} bytes it claims")
    except (ValueError, MemoryError):
        raise
    except EOFError as error:
        raise ValueError("a truncated gzip file; copy it again") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"a damaged gzip file ({error}); copy it again") from error
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from error
    except Exception as error:  # nibabel's own, of fields that contradict each other
        reason = " ".join(str(error).split())
        raise ValueError(f"a broken NIfTI file ({type(error).__name__}: {reason})") from error

    orientations: Any = nibabel.orientations  # nibabel leaves it untyped
    turn = orientations.io_orientation(affine)
    ras = orientations.apply_orientation(stored, turn)  # [X, Y, Z]: right, front, up
    x, y, _ = ras.shape
    flips = np.array([[-1.0, 0, 0, x - 1], [0, -1, 0, y - 1], [0, 0, 1, 0], [0, 0, 0, 1]])
    return Volume(
        stored=ras[::-1, ::-1].transpose(2, 1, 0),
        slope=1.0 if slope is None else slope,
        inter=0.0 if inter is None else inter,
        to_lps=RAS_TO_LPS @ affine @ orientations.inv_ornt_aff(turn, shape) @ flips,
        kind=kind.name,
        transform=transform,
    )


@contextmanager
def opened(path: Path) -> Iterator[tuple[BufferedIOBase, bool]]:
    """The file's content, and whether it is gzipped: its first bytes tell, not its name."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=file) as inflated:
                yield inflated, True
        else:
            yield file, False


def read_header(stream: BufferedIOBase) -> tuple[Any, tuple[int, int, int], np.dtype[Any]]:
    """nibabel's header, mended as nibabel mends it; the shape [X, Y, Z] and the voxels' type."""
    import nibabel

    block = stream.read(nibabel.Nifti2Header.sizeof_hdr)
    kind_of_header: Any
    if block[344:348] == b"n+1\0":
        kind_of_header = nibabel.Nifti1Header
    elif block[4:8] == b"n+2\0":
        kind_of_header = nibabel.Nifti2Header
    elif block[344:348] == b"ni1\0" or block[4:8] == b"ni2\0":
        raise ValueError("a NIfTI header whose voxels lie in another file; join them into one .nii")
    else:
        raise ValueError("not a NIfTI file (no NIfTI mark in its header)")
    if len(block) < kind_of_header.sizeof_hdr:
        raise ValueError(f"a NIfTI header cut off after {len(block)} bytes; copy the file again")
    header: Any = kind_of_header(block[: kind_of_header.sizeof_hdr], check=False)
    shape = checked_shape(header)
    code = int(header["datatype"])
    try:
        kind = header.get_data_dtype()
    except KeyError as error:
        raise ValueError(f"a NIfTI file of datatype {code}, which no standard knows") from error
    if kind.fields or kind.kind not in "iuf" or kind.itemsize > 8:
        raise ValueError(f"a NIfTI file of type {kind}; integers and floats are read")
    check_offset(header)
    header.check_fix(logger=SILENT)
    return header, shape, kind


def checked_shape(header: Any) -> tuple[int, int, int]:
    """[X, Y, Z] of the one volume. Raises ValueError for none, several or too large a claim."""
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise ValueError(f"a NIfTI file that claims {axes} axes; 1 to 7 are possible")
    shape = tuple(int(length) for length in header.get_data_shape())
    if any(length < 1 for length in shape):
        raise ValueError(f"a NIfTI file of shape {shape}; every axis has at least one voxel")
    volumes = int(np.prod(shape[3:], dtype=np.float64))
    if volumes > 1:
        raise ValueError(
            f"a NIfTI file of shape {shape}, which is {volumes} volumes; one is read: split them"
        )
    if len(shape) < 3:
        raise ValueError(f"a NIfTI file of shape {shape}; 3-D volumes are read")
    x, y, z = shape[:3]
    if x * y * z > MAX_VOXELS:
        raise ValueError(f"claims {(x, y, z)} voxels; at most {MAX_VOXELS:,} are read")
    return x, y, z


def check_offset(header: Any) -> None:
    """Raises ValueError where the voxels begin at no byte where they can."""
    offset = float(header["vox_offset"])  # NIfTI-1 keeps it as a float
    if not header.single_vox_offset <= offset <= MAX_OFFSET or offset != int(offset):
        raise ValueError(
            f"claims that its voxels begin at byte {offset:g}; {header.single_vox_offset} to "
            f"{MAX_OFFSET:,} are possible"
        )


def check_claim(size: int, claim: int, *, packed: bool, ratio: int) -> None:
    """Raises ValueError where a file of `size` bytes cannot hold the claim, or is a bomb."""
    if claim > size * (DEFLATE_RATIO if packed else 1):
        kind = "gzip file" if packed else "file"
        raise ValueError(f"truncated: claims {claim:,} bytes, which a {kind} of {size:,} lacks")
    if packed and claim > BOMB_BYTES and claim > size * ratio:
        raise ValueError(
            f"a decompression bomb ({size:,} bytes claim to be {claim:,}; no image shrinks so far)"
        )


def affine_of(header: Any) -> tuple[Float64, str]:
    """Voxel to RAS in mm, [4, 4], and which transform told. Raises ValueError where it is none."""
    coded = (name for name in ("sform", "qform") if header[f"{name}_code"] != 0)
    transform = next(coded, "none")
    affine = np.array(header.get_best_affine(), dtype=np.float64)
    affine[:3] *= {METRES: 1e3, MICRONS: 1e-3}.get(int(header["xyzt_units"]) % 8, 1.0)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)  # mm, [3]
    if not (VOXEL_MM[0] <= lengths.min() and lengths.max() <= VOXEL_MM[1]):  # NaN is neither
        size = " x ".join(f"{length:.3g}" for length in lengths)
        raise ValueError(f"its {transform} makes voxels of {size} mm, which nobody scans")
    flat = abs(np.linalg.det(affine[:3, :3] / lengths)) < FLAT
    if flat or not np.abs(affine[:3, 3]).max() <= FAR_MM:
        fact = "flat" if flat else "far outside any scanner"
        raise ValueError(f"its {transform} makes a volume that is {fact}")
    return affine, transform


def take(stream: BufferedIOBase, size: int) -> npt.NDArray[np.uint8]:
    """The next `size` bytes. Raises ValueError where the stream ends before."""
    content = np.empty(size, np.uint8)  # pages that are never filled cost nothing
    view, filled = content.data, 0
    while filled < size:
        count = stream.readinto(view[filled : filled + READ_BYTES])
        if not count:
            raise ValueError(f"truncated: claims {size:,} bytes of voxels and holds {filled:,}")
        filled += count
    return content


def brain_shares(slices: Float32) -> Float32:
    """The share of each slice above the whole volume's Otsu threshold. [N, H, W] to [N]"""
    bright = slices > otsu_threshold(slices)
    shares: Float32 = bright.mean(axis=(1, 2), dtype=np.float32)
    return shares
