"""What lies inside the skull: ventricles, nuclei, folded cortex, white matter, cerebellum.

The numbers below are millimetres in the frame of the head (see head.Head) for an adult brain,
read off the anatomy as an atlas shows it; only the right side is given, the left is its mirror.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastmrigan.imaging.phantom.head import CENTRE, Head
from fastmrigan.imaging.phantom.lesion import displaced, tumour_shares
from fastmrigan.imaging.phantom.shapes import Points, cover, ellipse, ellipsoid, sheet, tube
from fastmrigan.imaging.phantom.tissues import Tissue

Float32 = npt.NDArray[np.float32]

LATERAL_VENTRICLE = (  # x, y, z, radius: frontal horn, body, atrium, occipital horn
    (14.0, 33.0, 4.0, 2.2),
    (9.0, 23.0, 9.0, 3.8),
    (5.0, 6.0, 14.0, 3.6),
    (8.0, -8.0, 22.0, 4.4),
    (14.0, -25.0, 21.0, 5.0),
    (24.0, -41.0, 11.0, 6.2),
    (27.0, -54.0, 7.0, 4.2),
    (24.0, -68.0, 5.0, 2.0),
)
TEMPORAL_HORN = (
    (24.0, -41.0, 11.0, 5.0),
    (33.0, -28.0, -6.0, 2.6),
    (33.0, -10.0, -14.0, 2.0),
)
VENTRICLE_TALL = 1.7
CAUDATE = (14.5, 16.0, 9.0), (6.0, 12.0, 12.0)  # centre, half axes
THALAMUS = (11.5, -17.0, 8.0), (9.5, 14.0, 9.0)
LENTIFORM = (25.0, 1.0, 2.0), (6.5, 17.0, 10.0)
BRAINSTEM = (0.0, -25.0, -22.0), (17.0, 13.0, 22.0)
CEREBELLUM = (0.0, -62.0, -38.0), (53.0, 36.0, 30.0)
SUPRASELLAR = (0.0, 0.0, -14.0), (12.0, 8.0, 8.0)
QUADRIGEMINAL = (0.0, -41.0, -4.0), (8.0, 5.0, 8.0)
FOLIUM_MM = 4.5  # from one fissure of the cerebellum to the next


class Layers:
    """Tissues laid over one another, the first on top: each takes its share of what is left."""

    def __init__(self, left: Float32) -> None:
        self.left = left  # [P]
        self.shares = np.zeros((len(Tissue), len(left)), np.float32)  # [T, P]

    def fill(self, tissue: Tissue, share: Float32) -> None:
        filled = share * self.left
        self.shares[tissue] += filled
        self.left = self.left - filled

    def rest(self, tissue: Tissue) -> None:
        self.shares[tissue] += self.left


def brain_shares(
    head: Head, points: Float32, depth: Float32, radius: Float32, room: Float32, blur: float
) -> Float32:
    """The tissues inside the skull.

    points: [3, P] in the frame of the head; depth: [P] below the inside of the skull; radius: [P]
    as a share of the way from the middle of the head to the skull; room: [P] the share of each
    pixel that is inside the skull. Returns [T, P].
    """
    layers = Layers(room)
    pial = depth - head.subarachnoid_mm
    oedema: Float32 | None = None
    if head.tumour is not None:
        tumour, necrosis, oedema = tumour_shares(head.tumour, points, blur)
        in_brain = cover(-pial, blur)
        layers.fill(Tissue.NECROSIS, necrosis * in_brain)
        layers.fill(Tissue.TUMOUR, tumour * in_brain)
        points = displaced(head.tumour, points)
    x, y, z = points
    side = np.abs(x)
    mirrored = (side * (1.0 + head.asymmetry * np.sign(x)), y, z)

    if float(z.min()) < 0.0:
        _posterior_fossa(head, layers, (x, y, z), blur)
    _ventricles_and_nuclei(head, layers, mirrored, side, blur)

    # the fissure between the hemispheres ends at the corpus callosum; the falx stands in it
    callosum = (ellipse((x, y, z), (-4.0, 2.0), (41.0, 27.0))) * 1.1
    layers.fill(Tissue.DURA, sheet(side, 0.8, blur) * cover(8.0 - callosum, blur * 3.0))
    layers.fill(Tissue.CSF, sheet(side, head.fissure_mm, blur) * cover(-callosum, blur))
    fissure = np.maximum(side - head.fissure_mm * 0.5, -callosum)

    wander = head.slow.value(points)
    banks = 1.5 * side + 40.0 * np.clip(1.3 - 0.15 * callosum, 0.0, 1.0)
    sulcus = _sulci(head, layers, points, np.minimum(pial, banks), radius, wander, blur)
    sylvian = _sylvian(head, layers, mirrored, wander, blur)
    layers.fill(Tissue.CSF, cover(pial, blur))

    nearest = np.minimum(np.minimum(pial, fissure), np.minimum(sulcus, sylvian))
    layers.fill(Tissue.GREY_MATTER, cover(nearest - head.cortex_mm, blur))
    if oedema is not None:  # under the cortex: oedema spreads along the white matter
        layers.fill(Tissue.OEDEMA, oedema)
    layers.fill(Tissue.GREY_MATTER, np.clip(0.08 + 0.08 * wander, 0.0, 0.3))
    layers.rest(Tissue.WHITE_MATTER)
    return layers.shares


def _ventricles_and_nuclei(
    head: Head, layers: Layers, points: Points, side: Float32, blur: float
) -> None:
    """The nuclei lie over the ventricles and so dent them, as the caudate does in a real brain."""
    x, y, z = points
    third = sheet(side, 1.2 + 1.8 * head.ventricle, blur)
    layers.fill(Tissue.CSF, third * cover(ellipse(points, (-10.0, 1.0), (16.0, 11.0)), blur))
    nuclei = np.minimum(ellipsoid(points, *CAUDATE), ellipsoid(points, *THALAMUS))
    layers.fill(Tissue.DEEP_GREY, cover(nuclei, blur))
    near = np.flatnonzero((x < 42.0) & (np.abs(y + 18.0) < 65.0))
    close = (x[near], y[near], z[near])
    lowest, highest = float(z.min()), float(z.max())
    share = np.zeros_like(side)
    if highest > -8.0 and lowest < 42.0:
        distance = tube(close, LATERAL_VENTRICLE, head.ventricle, VENTRICLE_TALL)
        share[near] = cover(distance, blur)
    if lowest < 16.0:
        distance = tube(close, TEMPORAL_HORN, head.ventricle, VENTRICLE_TALL)
        share[near] = np.maximum(share[near], cover(distance, blur))
    layers.fill(Tissue.CSF, share)
    slanted = (x - 0.18 * (y - 2.0), y, z)
    layers.fill(Tissue.DEEP_GREY, cover(ellipsoid(slanted, *LENTIFORM), blur))


def _sulci(
    head: Head,
    layers: Layers,
    points: Float32,
    surface: Float32,
    radius: Float32,
    wander: Float32,
    blur: float,
) -> Float32:
    """Fills the sulci and returns the distance to the nearest one.

    A sulcus is a sheet on which the folding field is zero, down to some depth below the surface.
    The field is read at points pushed out towards the skull, which stretches its folds along the
    way in: so the sulci stand across the surface.
    """
    reach = head.sulcus_depth_mm * (1.0 + 0.45 * wander)
    near = np.flatnonzero(surface < reach + head.cortex_mm + blur)
    out = np.maximum(radius[near], 0.25)
    stretch = (0.35 + 0.65 * out) / out
    centre: Float32 = np.array(CENTRE, np.float32)[:, None]
    folded = points[:, near]
    folded -= centre
    folded *= stretch
    folded[0] += 9.0 * np.sign(points[0, near])  # the two hemispheres fold differently
    value, slope = head.folds.value_and_slope(folded)
    distance = np.abs(value) / (np.sqrt(slope * slope + 4e-4) * stretch)
    below = surface[near] - reach[near]
    narrowing = 1.25 - 0.6 * np.clip(1.0 + below / reach[near], 0.0, 1.0)
    width = head.sulcus_width_mm * narrowing
    share = np.zeros_like(surface)
    share[near] = sheet(distance, width, blur) * cover(below, blur)
    layers.fill(Tissue.CSF, share)
    nearest = np.full_like(surface, 100.0)
    nearest[near] = np.maximum(distance - width * 0.5, below)
    return nearest


def _sylvian(head: Head, layers: Layers, points: Points, wander: Float32, blur: float) -> Float32:
    """Fills the Sylvian fissure, from the side in to the insula; returns the distance to it."""
    x, y, z = points
    band = np.abs(z - 3.0 - 0.15 * y) - 16.0
    opening = np.abs(y - 4.0 - 0.5 * (z - 4.0) + 4.0 * wander)
    opening = np.maximum(np.maximum(opening, 37.0 - x), band)
    insula = np.abs(x - 38.0 + 0.007 * (y - 2.0) ** 2 + 2.5 * wander)
    insula = np.maximum(np.maximum(insula, np.abs(y - 2.0) - 21.0), band)
    distance: Float32 = np.minimum(opening, insula)
    width = head.sulcus_width_mm * 1.2
    layers.fill(Tissue.CSF, sheet(distance, width, blur))
    distance -= width * 0.5
    return distance


def _posterior_fossa(head: Head, layers: Layers, points: Points, blur: float) -> None:
    """Brainstem, cisterns and cerebellum, in slices at and below the base of the brain."""
    x, y, z = points
    low = cover(z + 3.0, 4.0)  # the brainstem ends in the thalami above
    aqueduct = np.sqrt(x * x + (y + 35.0) ** 2) - np.clip(-0.25 * z - 1.5, 0.8, 6.0)
    layers.fill(Tissue.CSF, cover(aqueduct, blur) * low)
    stem = ellipsoid(points, *BRAINSTEM)
    in_stem = cover(stem, blur) * low
    layers.fill(Tissue.GREY_MATTER, 0.35 * in_stem)
    layers.fill(Tissue.WHITE_MATTER, in_stem)

    cerebellum = ellipsoid(points, *CEREBELLUM)
    within = cover(cerebellum, blur)
    behind = (
        np.sqrt(0.3 * x * x + (y + 36.0) ** 2)
        + 1.2 * np.sin(0.22 * x)
        + 1.5 * np.sin(0.09 * x + 2.0)
    )
    folia = np.abs(np.mod(behind, FOLIUM_MM) - 0.5 * FOLIUM_MM)
    folia = sheet(folia, 0.2 * head.sulcus_width_mm, blur) * cover(8.0 - behind, 6.0)
    layers.fill(Tissue.CSF, within * folia)
    layers.fill(Tissue.WHITE_MATTER, within * cover(cerebellum + 13.0, 8.0))
    layers.fill(Tissue.GREY_MATTER, within * 0.7)
    layers.fill(Tissue.WHITE_MATTER, within)

    # the cisterns around the brainstem widen and close again on the way round it
    ripple = np.sin(0.3 * y + 50.0 * head.asymmetry) * np.cos(0.16 * x)
    gap = (0.5 + 0.7 * head.sulcus_width_mm) * (1.0 + 0.9 * ripple)
    around = np.minimum(stem - gap, np.maximum(cerebellum - 0.8 * gap, z + 8.0))
    star = ellipsoid(points, *SUPRASELLAR) + 1.6 * np.cos(5.0 * np.arctan2(x, y))
    around = np.minimum(np.minimum(around, star), ellipsoid(points, *QUADRIGEMINAL))
    layers.fill(Tissue.CSF, cover(around, blur) * low)
