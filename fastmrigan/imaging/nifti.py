"""Axial slices of a 3-D NIfTI volume through nibabel."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fastmrigan.errors import MissingDependency
from fastmrigan.imaging.mask import otsu_threshold
from fastmrigan.imaging.readers import MAX_VOXELS, Float32, ReadImage


def read_nifti(path: Path) -> ReadImage:
    """All axial slices, feet to head, as a radiologist sees them: the patient's right on the left.

    The volume is turned to the closest RAS+ orientation (no resampling), scl_slope and scl_inter
    applied. Raises ValueError with the reason (not 3-D, too large, broken) and MissingDependency.
    """
    try:
        import nibabel
        from nibabel.spatialimages import SpatialImage
    except ModuleNotFoundError as error:
        raise MissingDependency("nibabel", "dicom", f"reading NIfTI ({path.name})") from error

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd header fields that nibabel puts right
        try:
            image = nibabel.load(path)
            if not isinstance(image, SpatialImage):
                raise ValueError("not a NIfTI volume")
            shape, kind = image.shape, image.get_data_dtype()
            if len(shape) != 3:
                raise ValueError(f"a NIfTI file of shape {shape}; 3-D volumes are read")
            if kind.fields or kind.kind not in "iuf":
                raise ValueError(f"a NIfTI file of type {kind}; integers and floats are read")
            if np.prod(shape, dtype=np.float64) > MAX_VOXELS:
                raise ValueError(f"claims {shape} voxels; at most {MAX_VOXELS:,} are read")
            to_ras: Any = nibabel.as_closest_canonical  # nibabel leaves it untyped
            volume: Float32 = to_ras(image).get_fdata(caching="unchanged", dtype=np.float32)
        except (ValueError, MemoryError):
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"a broken NIfTI file ({type(error).__name__}: {reason})") from error
    # volume [X, Y, Z] runs to the right, to the front and up
    slices = volume[::-1, ::-1, :].transpose(2, 1, 0)  # [Z, H, W]: row 0 front, column 0 right
    return ReadImage(np.ascontiguousarray(slices), f"NIfTI {kind}", volume=True)


def brain_shares(slices: Float32) -> Float32:
    """The share of each slice above the whole volume's Otsu threshold. [N, H, W] to [N]"""
    bright = slices > otsu_threshold(slices)
    shares: Float32 = bright.mean(axis=(1, 2), dtype=np.float32)
    return shares
