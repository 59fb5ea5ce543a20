"""Signed distances in millimetres, negative inside, and the share of a pixel they fill."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Triple = tuple[float, float, float]
Points = tuple[Float32, Float32, Float32]  # x, y, z, each [P]


def cover(distance: Float32, blur: float) -> Float32:
    """The share of a pixel of width `blur` on the inside of an edge `distance` away: [P]."""
    share = distance * (-1.0 / blur)
    share += 0.5
    np.maximum(share, 0.0, out=share)  # with its minimum, quicker than clip on short arrays
    np.minimum(share, 1.0, out=share)
    return share


def sheet(distance: Float32, width: Float32 | float, blur: float) -> Float32:
    """The share of a pixel filled by a sheet of `width`; `distance` to its middle, unsigned.

    A sheet thinner than the pixel keeps its true share, so sulci survive coarse grids.
    """
    half = width * 0.5
    return cover(distance - half, blur) - cover(distance + half, blur)


def ellipsoid(points: Points, centre: Triple, radii: Triple) -> Float32:
    """An approximate signed distance to an ellipsoid: exact on the surface, good near it."""
    level = np.full_like(points[0], -1.0)
    steepness = np.full_like(points[0], 1e-8)
    for value, middle, radius in zip(points, centre, radii, strict=True):
        share = (value - middle) * (1.0 / radius)
        level += share * share
        share *= 1.0 / radius
        steepness += share * share
    level *= 0.5 / np.sqrt(steepness)
    return level


def ellipse(points: Points, centre: tuple[float, float], radii: tuple[float, float]) -> Float32:
    """The distance to an ellipse in the plane of y and z, whatever x is: exact along its axes."""
    _, y, z = points
    along, up = (y - centre[0]) * (1.0 / radii[0]), (z - centre[1]) * (1.0 / radii[1])
    distance: Float32 = (np.sqrt(along * along + up * up) - 1.0) * min(radii)
    return distance


def tube(points: Points, nodes: tuple[tuple[float, ...], ...], grow: float, tall: float) -> Float32:
    """The distance to a chain of capsules through `nodes` (x, y, z, radius): [P].

    Radii are multiplied by `grow`; in height the tube is `tall` times its width.
    """
    table: Float32 = np.array(nodes, np.float32)
    table[:, 2] /= tall
    table[:, 3] *= grow
    x0, y0, z0, r0 = table[:-1].T[:, :, None]  # each [S, 1]
    dx, dy, dz, dr = (table[1:] - table[:-1]).T[:, :, None]
    px, py, pz = points[0] - x0, points[1] - y0, points[2] * (1.0 / tall) - z0  # each [S, P]
    along = (px * dx + py * dy + pz * dz) / (dx * dx + dy * dy + dz * dz)
    np.maximum(along, 0.0, out=along)
    np.minimum(along, 1.0, out=along)
    px -= along * dx
    py -= along * dy
    pz -= along * dz
    px *= px
    py *= py
    pz *= pz
    px += py
    px += pz
    distance = np.sqrt(px, out=px)
    distance -= r0 + along * dr
    nearest: Float32 = distance.min(axis=0)
    return nearest
