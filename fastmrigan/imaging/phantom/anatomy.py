"""Cuts one plane through a head: which tissues fill each pixel, and by how much."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastmrigan.imaging.phantom.brain import Layers, brain_shares
from fastmrigan.imaging.phantom.head import CENTRE, Head
from fastmrigan.imaging.phantom.shapes import cover
from fastmrigan.imaging.phantom.tissues import Tissue
from fastmrigan.imaging.phantom.waves import Waves

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

SMALLEST_BLUR_MM = 0.9  # edges of real tissue are no sharper
HULL_WARP = 0.3  # the skull is smoother than the brain: it takes this share of the warp


class Cut(NamedTuple):
    """The part of a plane that the head fills; what is left of the plane is air."""

    pixels: npt.NDArray[np.intp]  # [P], indices into the flattened plane
    shares: Float32  # [T, P], indexed by Tissue, between 0 and 1, summing to 1 over T


def cut(head: Head, level_mm: float, size: int, pixel_mm: float) -> Cut:
    """The share of each pixel that each tissue fills, in the axial plane at `level_mm`.

    Row 0 is the front of the head, column 0 the patient's right (radiological convention).
    """
    blur = max(1.1 * pixel_mm / head.scale, SMALLEST_BLUR_MM)
    rigid, bent = _plane(head, level_mm, size, pixel_mm)
    depth, radius = _depth(head, rigid + (bent - rigid) * HULL_WARP)
    thickness = sum(head.skull_mm) + head.fat_mm + head.skin_mm
    # pixels in the order: brain alone, brain and skull, skull and scalp
    within, without = depth > -0.5 * blur, depth < 0.5 * blur
    brain = np.flatnonzero(~without)
    both = np.flatnonzero(within & without)
    around = np.flatnonzero(~within & (depth > -1.7 * thickness - blur))
    pixels = np.concatenate([brain, both, around])
    rigid, bent, depth, radius = rigid[:, pixels], bent[:, pixels], depth[pixels], radius[pixels]
    inner, outer = slice(0, len(brain) + len(both)), slice(len(brain), None)

    shares = np.zeros((len(Tissue), len(pixels)), np.float32)
    shares[:, outer] = _skull_and_scalp(head, rigid[:, outer], depth[outer], blur)
    if len(brain) + len(both):
        room = cover(-depth[inner], blur)
        shares[:, inner] += brain_shares(
            head, bent[:, inner], depth[inner], radius[inner], room, blur
        )
    shares[Tissue.AIR] = np.maximum(1.0 - shares[1:].sum(axis=0), 0.0)
    return Cut(pixels, shares)


def _plane(head: Head, level_mm: float, size: int, pixel_mm: float) -> tuple[Float32, Float32]:
    """The pixel centres in the frame of the head, and where the warp moves them: [3, H * W]."""
    step = np.arange(size, dtype=np.float64) - (size - 1) / 2.0
    across = (step * pixel_mm - head.shift_mm[0]) / head.scale  # [W]
    down = (-step * pixel_mm - head.shift_mm[1]) / head.scale  # [H]
    origin = np.array([CENTRE[0], CENTRE[1], level_mm])
    right, front = head.rotation[:, 0], head.rotation[:, 1]
    points = np.empty((3, size, size), np.float32)
    for axis in range(3):
        points[axis] = (origin[axis] + front[axis] * down)[:, None] + right[axis] * across
    bent = points + _warp(head.warp, origin, right, front, across, down) * head.warp_mm
    return points.reshape(3, -1), bent.reshape(3, -1)


def _warp(
    waves: tuple[Waves, Waves, Waves],
    origin: Float64,
    right: Float64,
    front: Float64,
    across: Float64,
    down: Float64,
) -> Float32:
    """Three fields on the plane: a plane wave on a grid is a product of a row and a column.

    Returns [3, H, W], of unit variance.
    """
    k = np.stack([one.k for one in waves])  # [3, M, 3]
    phase = np.stack([one.phase for one in waves])  # [3, M]
    columns = np.exp(1j * ((k @ right)[:, :, None] * across))  # [3, M, W]
    start = (k @ origin + phase)[:, None, :]
    rows = np.exp(1j * ((k @ front)[:, None, :] * down[:, None] + start))  # [3, H, M]
    real = rows.real.astype(np.float32) @ columns.real.astype(np.float32)
    imaginary = rows.imag.astype(np.float32) @ columns.imag.astype(np.float32)
    return np.asarray((real - imaginary) * np.float32(waves[0].scale))


def _depth(head: Head, points: Float32) -> tuple[Float32, Float32]:
    """How far inside the skull each point lies, negative outside, and its relative radius.

    The inside of the skull is an ellipsoid, narrower in front and squarer than an ellipse.
    Returns [P] millimetres and [P], 1 on the skull.
    """
    a, b, c = (1.0 / axis for axis in head.half_axes)
    ey = (points[1] - CENTRE[1]) * b
    ex = points[0] * a * (1.0 + head.taper * ey)
    ez = (points[2] - CENTRE[2]) * c
    xx, yy, zz = ex * ex, ey * ey, ez * ez
    radius = np.sqrt(np.maximum(xx + yy + zz - head.boxiness * xx * yy, 1e-3))
    slope = np.sqrt(xx * (a * a) + yy * (b * b) + zz * (c * c)) + 1e-4
    return (1.0 - radius) * radius / slope, radius


def _skull_and_scalp(head: Head, points: Float32, depth: Float32, blur: float) -> Float32:
    """Bone, marrow, temporal muscle, fat and skin, from the inside out: [T, P]."""
    x, y, z = points
    layers = Layers(1.0 - cover(-depth, blur))
    # the temporal muscle lies low on the sides, where the bone is thin
    muscle = np.clip(1.0 - ((y - 12.0) / 34.0) ** 2, 0.0, 1.0)
    muscle *= np.clip((26.0 - z) / 30.0, 0.0, 1.0) * np.clip(np.abs(x) / 30.0 - 1.0, 0.0, 1.0)
    thin = 1.0 - 0.5 * muscle
    back = 1.0 + 0.4 * np.clip(-(y + 60.0) / 40.0, 0.0, 1.0)
    inner, marrow, outer = head.skull_mm
    edge = -depth
    for tissue, thickness in (
        (Tissue.BONE, inner * thin),
        (Tissue.MARROW, marrow * thin * back),
        (Tissue.BONE, outer * thin),
        (Tissue.MUSCLE, 7.0 * muscle),
        (Tissue.FAT, head.fat_mm * back),
        (Tissue.SKIN, head.skin_mm),
    ):
        edge = edge - thickness
        layers.fill(tissue, cover(edge, blur))
    return layers.shares
