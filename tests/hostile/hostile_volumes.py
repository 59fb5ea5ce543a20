"""NIfTI files whose headers lie, whose voxels are no numbers, or which inflate to gigabytes."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable

import bombs
import numpy as np

SHAPE = (24, 20, 18)  # [X, Y, Z]
NOISE = np.random.default_rng(9).integers(0, 4000, SHAPE, dtype=np.int16)
INT16, FLOAT32, COMPLEX64, RGB24 = 4, 16, 32, 128


def header(
    *,
    dim: tuple[int, ...] = (3, *SHAPE, 1, 1, 1, 1),
    datatype: int = INT16,
    bitpix: int = 16,
    pixdim: tuple[float, ...] = (1.0, 2.0, 2.0, 2.0, 0, 0, 0, 0),
    offset: float = 352.0,
    slope: float = 1.0,
    inter: float = 0.0,
    sform: int = 1,
    affine: tuple[float, ...] = (2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0),
    magic: bytes = b"n+1\0",
) -> bytes:
    """A NIfTI-1 header of 348 bytes, little-endian."""
    head = bytearray(348)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, *dim)
    struct.pack_into("<2h", head, 70, datatype, bitpix)
    struct.pack_into("<8f", head, 76, *pixdim)
    struct.pack_into("<3f", head, 108, offset, slope, inter)
    head[123] = 2  # millimetres
    struct.pack_into("<2h", head, 252, 0, sform)
    struct.pack_into("<12f", head, 280, *affine)
    head[344:348] = magic
    return bytes(head)


def nifti(
    data: bytes = NOISE.tobytes(order="F"), extension: bytes = bytes(4), **how: object
) -> bytes:
    return header(**how) + extension + data  # type: ignore[arg-type]


def floats(value: float) -> bytes:
    voxels = NOISE.astype(np.float32)
    voxels[3:6, 4, 5] = value
    return nifti(voxels.tobytes(order="F"), datatype=FLOAT32, bitpix=32)


GOOD = {
    "good.nii": nifti,
    "good.nii.gz": lambda: gzip.compress(nifti(), mtime=0),
}

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "nan.nii": (lambda: floats(np.nan), "NaN or infinite"),
    "inf.nii": (lambda: floats(np.inf), "NaN or infinite"),
    "slope_huge.nii": (lambda: nifti(slope=3e38), "NaN or infinite"),
    "dims_huge.nii": (lambda: nifti(dim=(3, 32767, 32767, 32767, 1, 1, 1, 1)), "claims"),
    "dims_large.nii": (lambda: nifti(dim=(3, 600, 600, 600, 1, 1, 1, 1)), "truncated: claims"),
    "dims_negative.nii": (
        lambda: nifti(dim=(3, -24, 20, 18, 1, 1, 1, 1)),
        "every axis has at least one voxel",
    ),
    "dims_zero.nii": (
        lambda: nifti(dim=(3, 24, 0, 18, 1, 1, 1, 1)),
        "every axis has at least one voxel",
    ),
    "dims_99.nii": (lambda: nifti(dim=(99, *SHAPE, 1, 1, 1, 1)), "a NIfTI file that claims"),
    "dims_4d.nii": (lambda: nifti(dim=(4, 24, 20, 9, 2, 1, 1, 1)), "one is read: split them"),
    "dims_4d_huge.nii": (lambda: nifti(dim=(7, *[32767] * 7)), "one is read: split them"),
    "offset_beyond.nii": (lambda: nifti(offset=1e9), "claims that its voxels begin at byte"),
    "offset_negative.nii": (lambda: nifti(offset=-352.0), "claims that its voxels begin at byte -"),
    "offset_nan.nii": (lambda: nifti(offset=np.nan), "claims that its voxels begin at byte nan"),
    "datatype_unknown.nii": (lambda: nifti(datatype=12345), "a NIfTI file of datatype"),
    "datatype_complex.nii": (lambda: nifti(datatype=COMPLEX64, bitpix=64), "complex64"),
    "datatype_rgb.nii": (lambda: nifti(datatype=RGB24, bitpix=24), "integers and floats are read"),
    "affine_nan.nii": (
        lambda: nifti(affine=(np.nan,) * 12),
        "its sform makes voxels of nan x nan x nan mm",
    ),
    "affine_flat.nii": (lambda: nifti(affine=(0.0,) * 12), "its sform makes voxels of"),
    "cut_header.nii": (lambda: nifti()[:200], "no NIfTI mark in its header"),
    "cut_mark.nii": (lambda: nifti()[:347], "no NIfTI mark in its header"),
    "cut_voxels.nii": (lambda: nifti()[:9000], "truncated: claims"),
    "cut.nii.gz": (lambda: gzip.compress(nifti(), mtime=0)[:6000], "a truncated gzip file"),
    "bomb.nii.gz": (
        lambda: bombs.gzipped(header(dim=(3, 1000, 1000, 500, 1, 1, 1, 1)) + bytes(4), 1000),
        "claims",
    ),
    "bomb_below_the_cap.nii.gz": (  # 268 million voxels in half a MiB
        lambda: bombs.gzipped(header(dim=(3, 1024, 512, 512, 1, 1, 1, 1)) + bytes(4), 512),
        "no image shrinks so far",
    ),
    "bomb_header.nii.gz": (lambda: bombs.gzipped(b"", 1000), "no NIfTI mark in its header"),
    "garbage.nii.gz": (lambda: NOISE.tobytes(), "no NIfTI mark in its header"),
    "letter.nii": (
        lambda: b"Dear doctor,\nplease find enclosed\n" * 20,
        "no NIfTI mark in its header",
    ),
    "letter.nii.gz": (
        lambda: b"Dear doctor,\nplease find enclosed\n" * 20,
        "no NIfTI mark in its header",
    ),
    "empty.nii": (lambda: b"", "an empty file"),
    "constant.nii": (lambda: nifti(bytes(NOISE.nbytes)), "constant"),
}

ODD: dict[str, Callable[[], bytes]] = {  # a slope that is no number counts as none
    "odd_slope_nan.nii": lambda: nifti(slope=np.nan, inter=np.inf),
    "odd_slope_inf.nii": lambda: nifti(slope=np.inf),
    "odd_bomb_behind.nii.gz": lambda: bombs.gzipped(nifti(), 900),
    "odd_extension.nii": lambda: nifti(extension=b"\1\0\0\0" + struct.pack("<ii", 0x7FFFFFF0, 6)),
}
