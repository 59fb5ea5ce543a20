"""Where a slice lies in the patient, in DICOM's coordinates: LPS, millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Vector = tuple[float, float, float]

PLANES = ("sagittal", "coronal", "axial")  # whose normal is the x, y and z axis
OBLIQUE_DEGREES = 30.0  # a slice tilted further than this from every plane is "oblique"
VOXEL_MM = (1e-3, 1e3)  # sides that a voxel can have
FAR_MM = 1e6  # from the coordinates' origin: nobody lies there


@dataclass(frozen=True)
class SlicePosition:
    """x runs to the patient's left, y to the back, z to the head (PS3.3 C.7.6.2)."""

    origin: Vector  # mm, the centre of pixel [0, 0]: ImagePositionPatient
    row: Vector  # unit vector along a row, to the next column: ImageOrientationPatient[:3]
    column: Vector  # unit vector down a column, to the next row: ImageOrientationPatient[3:]
    spacing: tuple[float, float]  # mm between rows, mm between columns: PixelSpacing
    thickness: float | None = None  # mm: SliceThickness

    @property
    def normal(self) -> Float64:
        """float64 [3], row x column: slices of a series are ordered along it."""
        return np.cross(self.row, self.column)

    @property
    def along_normal(self) -> float:
        """mm from the coordinates' origin along the normal."""
        return float(self.normal @ np.asarray(self.origin))

    @property
    def plane(self) -> str:
        """The nearest of PLANES, or "oblique"."""
        tilt = np.degrees(np.arccos(np.minimum(np.abs(self.normal), 1.0)))  # [3]
        nearest = int(np.argmin(tilt))
        return PLANES[nearest] if tilt[nearest] <= OBLIQUE_DEGREES else "oblique"
