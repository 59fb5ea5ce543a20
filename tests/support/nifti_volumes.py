"""NIfTI volumes that lie askew, with their axes kept in any order and direction."""

import itertools

import nibabel
import numpy as np

CODES = [
    "".join(letters)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*order)
]  # all 48


def oblique(spacing: tuple[float, float, float], degrees: float = 20) -> np.ndarray:
    """Voxel to RAS: turned by `degrees` about the axis x = y = z (Rodrigues), then moved. [4, 4]"""
    axis = np.ones(3) / np.sqrt(3)
    cross = np.cross(np.eye(3), axis)
    angle = np.radians(degrees)
    turn = np.eye(3) - np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = (-31.5, 12.25, 7.125)
    return affine


def turned(image: nibabel.Nifti1Image, code: str) -> nibabel.Nifti1Image:
    """The same volume with its axes kept in another order and direction."""
    ornt = nibabel.orientations
    return image.as_reoriented(
        ornt.ornt_transform(ornt.io_orientation(image.affine), ornt.axcodes2ornt(code))
    )
