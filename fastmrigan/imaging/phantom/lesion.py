"""The tumour of a head: its tissues, its oedema, and how it pushes the brain aside."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastmrigan.imaging.phantom.head import Tumour
from fastmrigan.imaging.phantom.shapes import cover

Float32 = npt.NDArray[np.float32]


def tumour_shares(tumour: Tumour, points: Float32, blur: float) -> tuple[Float32, Float32, Float32]:
    """The shares of tumour, necrosis and oedema, each [P], before what lies over it is taken off.

    points: [3, P] in the frame of the head. Necrosis lies over tumour, tumour over oedema.
    """
    offset = points - np.array(tumour.centre, np.float32)[:, None]
    bumps = tumour.boundary.value(points)
    distance = np.sqrt(np.einsum("cp,cp->p", offset, offset))
    distance -= tumour.radius * (1.0 + tumour.irregularity * bumps)
    whole = cover(distance, blur)
    necrosis = tumour.texture * np.clip(0.5 + 0.5 * bumps, 0.0, 1.0) * whole  # cysts
    if tumour.necrosis > 0.0:
        rim = tumour.radius * (1.0 - tumour.necrosis)
        necrosis = np.maximum(necrosis, cover(distance + rim, blur))
    if tumour.oedema_mm == 0.0:
        return whole, necrosis, np.zeros_like(whole)
    reach = tumour.oedema_mm * (1.0 + 0.5 * tumour.oedema_shape.value(points))
    return whole, necrosis, cover(distance - reach, blur + 5.0)


def displaced(tumour: Tumour, points: Float32) -> Float32:
    """Where the tissue now at each point lay before the tumour pushed it outwards: [3, P]."""
    centre = np.array(tumour.centre, np.float32)[:, None]
    offset = points - centre
    squared = np.einsum("cp,cp->p", offset, offset)
    width = 1.5 * tumour.radius
    source: Float32 = offset * (1.0 - tumour.mass_effect * np.exp(squared * (-0.5 / width**2)))
    source += centre
    return source
