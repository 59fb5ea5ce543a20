"""What differs from head to head: every size, place and seed, drawn once from (seed, head)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastmrigan.imaging.phantom.waves import Waves


@dataclass(frozen=True)
class Tumour:
    """An irregular mass in one hemisphere; millimetres in the frame of the head."""

    centre: tuple[float, float, float]
    radius: float
    boundary: Waves  # perturbs the surface
    irregularity: float  # share of the radius by which the surface is perturbed
    necrosis: float  # share of the radius that is necrotic, 0 for a solid mass
    oedema_mm: float  # how far oedema reaches into white matter
    oedema_shape: Waves
    texture: float  # how much of the viable part is mixed with cystic tissue
    mass_effect: float  # 0 to 0.5: how much of the tissue inside is pushed outwards


@dataclass(frozen=True)
class Head:
    """One head, in a frame of millimetres: x to the patient's left, y to the front, z up.

    The origin is near the anterior commissure of an adult head, as in Talairach's atlas.
    """

    half_axes: tuple[float, float, float]  # of the inside of the skull
    taper: float  # how much narrower the front is than the back
    boxiness: float
    scale: float  # overall size
    rotation: np.ndarray  # [3, 3] float64: how the head lies in the scanner
    shift_mm: tuple[float, float]  # in-plane
    warp: tuple[Waves, Waves, Waves]  # smooth displacement of everything
    warp_mm: float
    folds: Waves  # where it is zero, a sulcus is
    slow: Waves  # varies the depth of the sulci and the mixture of the white matter
    sulcus_depth_mm: float
    sulcus_width_mm: float
    cortex_mm: float
    subarachnoid_mm: float
    fissure_mm: float
    ventricle: float  # factor on the radius of the ventricles
    asymmetry: float
    skull_mm: tuple[float, float, float]  # inner table, marrow, outer table
    fat_mm: float
    skin_mm: float
    level_offset: float  # where between two levels the slices of a head lie, 0 to 1
    tumour: Tumour | None


CENTRE = (0.0, -17.0, 8.0)
"""The middle of the inside of the skull in the head's frame, millimetres."""


def draw_head(seed: int, number: int, with_tumour: bool) -> Head:
    """Head `number` of `seed`; the same three arguments give the same head."""
    rng = np.random.default_rng([seed, number, 1])

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    atrophy = between(0.0, 1.0) ** 1.5  # an old brain has wide sulci and wide ventricles
    half_axes = (between(63.0, 70.0), between(80.0, 90.0), between(64.0, 70.0))
    head = Head(
        half_axes=half_axes,
        taper=between(0.08, 0.17),
        boxiness=between(0.1, 0.4),
        scale=between(0.92, 1.03),
        rotation=_rotation(between(-6.0, 6.0), between(-3.0, 3.0), between(-8.0, 8.0)),
        shift_mm=(between(-4.0, 4.0), between(-3.0, 3.0)),
        warp=(
            Waves.draw(rng, 6, 75.0),
            Waves.draw(rng, 6, 75.0),
            Waves.draw(rng, 6, 75.0),
        ),
        warp_mm=between(1.5, 3.0),
        folds=Waves.draw(rng, 26, between(20.0, 25.0), 0.2),
        slow=Waves.draw(rng, 6, 38.0, 0.3),
        sulcus_depth_mm=between(13.0, 17.0),
        sulcus_width_mm=0.6 + 1.4 * atrophy + between(0.0, 0.3),
        cortex_mm=between(2.8, 3.6),
        subarachnoid_mm=0.7 + 1.8 * atrophy + between(0.0, 0.4),
        fissure_mm=1.2 + 1.4 * atrophy + between(0.0, 0.4),
        ventricle=0.8 + 0.6 * atrophy + between(-0.1, 0.25),
        asymmetry=between(-0.08, 0.08),
        skull_mm=(between(1.4, 2.2), between(1.8, 4.0), between(1.4, 2.2)),
        fat_mm=between(2.0, 5.0),
        skin_mm=between(1.6, 2.4),
        level_offset=between(0.0, 1.0),
        tumour=_draw_tumour(rng, half_axes) if with_tumour else None,
    )
    return head


def _rotation(pitch: float, roll: float, yaw: float) -> np.ndarray:
    """Degrees about x (nodding), y (leaning) and z (turning); returns [3, 3]."""
    angles = np.radians([pitch, roll, yaw])
    cp, cr, cy = np.cos(angles)
    sp, sr, sy = np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _draw_tumour(rng: np.random.Generator, half_axes: tuple[float, float, float]) -> Tumour:
    radius = float(rng.uniform(9.0, 25.0))
    side = float(rng.choice([-1.0, 1.0]))
    # a direction and a depth in the half ball of one hemisphere, kept off the skull and midline
    angle = float(rng.uniform(0.0, np.pi))
    reach = float(rng.uniform(0.35, 0.66))
    x = side * max(half_axes[0] * reach * np.sin(angle), radius * 0.55 + 4.0)
    y = CENTRE[1] + half_axes[1] * reach * np.cos(angle)
    z = float(rng.uniform(0.55 * radius - 2.0, 44.0))
    solid = rng.uniform() < 0.4
    return Tumour(
        centre=(float(x), float(y), z),
        radius=radius,
        boundary=Waves.draw(rng, 12, 1.5 * radius, 0.3),
        irregularity=float(rng.uniform(0.04, 0.2)),
        necrosis=0.0 if solid else float(rng.uniform(0.35, 0.8)),
        oedema_mm=float(rng.choice([0.0, 1.0, 1.0, 1.0]) * rng.uniform(6.0, 26.0)),
        oedema_shape=Waves.draw(rng, 8, 40.0, 0.3),
        texture=float(rng.uniform(0.0, 0.5)),
        mass_effect=float(rng.uniform(0.1, 0.45)),
    )
