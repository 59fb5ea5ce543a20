"""What is trained, by the name a recipe gives it: networks, optimisers, and how a step is made."""

from __future__ import annotations

from typing import Any

from fastmrigan.training.systems.base import Batch, Clock, Rows, System
from fastmrigan.training.systems.cyclegan import CycleGan
from fastmrigan.training.systems.gan import Gan
from fastmrigan.training.systems.pix2pix import Pix2Pix
from fastmrigan.training.systems.progan import Progan
from fastmrigan.training.systems.style_pair import StylePairGan

SYSTEMS: dict[str, type[System]] = {
    "cyclegan": CycleGan,
    "gan": Gan,
    "pix2pix": Pix2Pix,
    "progan": Progan,
    "style-transfer-gan": StylePairGan,
}

__all__ = ["SYSTEMS", "Batch", "Clock", "Rows", "System", "system_of"]


def system_of(recipe: Any) -> type[System]:
    """The class that trains `recipe`."""
    return SYSTEMS[recipe.system]
