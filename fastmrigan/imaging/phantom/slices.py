"""Phantom slices by number: which head and level slice i shows, and its signals and maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import floor

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError
from fastmrigan.imaging.phantom.anatomy import cut
from fastmrigan.imaging.phantom.head import Head, draw_head
from fastmrigan.imaging.phantom.noise import CT_NOISE_HU, bias_field, gaussian, rician
from fastmrigan.imaging.phantom.signal import CONTRASTS, signal_row
from fastmrigan.imaging.phantom.tissues import Tissue

Float32 = npt.NDArray[np.float32]

FIELD_OF_VIEW_MM = 224.0
MIN_SIZE, MAX_SIZE = 32, 1024
NORMAL_SLICES = 8  # a head without tumour gives this many, from its base to near its top
TUMOUR_SLICES = 6  # a head with tumour gives this many, all through the tumour
LOWEST_MM, HIGHEST_MM = -20.0, 58.0

head_of = lru_cache(maxsize=64)(draw_head)


@dataclass(frozen=True)
class PhantomSettings:
    """Everything a phantom slice depends on besides its number."""

    size: int  # pixels a side, 32 to 1024; the field of view is always 224 mm
    contrasts: tuple[str, ...] = ("t2",)  # any of t1, t2, pd, flair, ct
    tumour: float = 0.5  # the fraction of slices that show a tumour, 0 to 1
    seed: int = 0
    noise: float = 0.02  # sigma of the Rician noise, in units of the signal; in CT 200 HU times it
    bias: float = 0.2  # full range of the multiplicative bias field of MR

    def __post_init__(self) -> None:
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            raise UsageError(
                f"phantom: size is {self.size}, expected {MIN_SIZE} to {MAX_SIZE} pixels a side"
            )
        if not self.contrasts:
            raise UsageError(f"phantom: no contrast given, expected any of {', '.join(CONTRASTS)}")
        for contrast in self.contrasts:
            if contrast not in CONTRASTS:
                raise UsageError(
                    f"phantom: unknown contrast {contrast!r}, expected any of "
                    + ", ".join(CONTRASTS)
                )
        if len(set(self.contrasts)) < len(self.contrasts):
            raise UsageError(
                f"phantom: a contrast is named twice in {','.join(self.contrasts)}; name each once"
            )
        if not 0.0 <= self.tumour <= 1.0:
            raise UsageError(f"phantom: tumour is {self.tumour}, expected a fraction from 0 to 1")
        if self.seed < 0:
            raise UsageError(f"phantom: seed is {self.seed}, expected 0 or more")
        if not 0.0 <= self.noise <= 1.0:
            raise UsageError(f"phantom: noise is {self.noise}, expected 0 to 1")
        if not 0.0 <= self.bias < 2.0:
            raise UsageError(f"phantom: bias is {self.bias}, expected 0 to below 2")

    @property
    def pixel_mm(self) -> float:
        return FIELD_OF_VIEW_MM / self.size


@dataclass(frozen=True)
class PhantomBatch:
    """Consecutive phantom slices."""

    signals: dict[str, Float32]  # contrast: [N, H, W]; MR in [0, 1], ct in Hounsfield units
    tissue: npt.NDArray[np.uint8]  # [N, H, W], values of Tissue: what fills most of each pixel
    tumour_mask: npt.NDArray[np.bool_]  # [N, H, W]: tumour or necrosis fills half of the pixel
    index: npt.NDArray[np.int64]  # [N]
    head: npt.NDArray[np.int64]  # [N]: even numbers are without tumour, odd ones with
    slice: npt.NDArray[np.int64]  # [N]: the number of the slice within its head
    level_mm: Float32  # [N]: height above the anterior commissure
    label: tuple[str, ...]  # [N]: "tumour" or "normal"
    pixel_mm: float

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Place:
    """Where slice i lies."""

    head: int
    slice: int
    with_tumour: bool


def place(index: int, tumour: float) -> Place:
    """Which slice of which head slice `index` is; the first N hold round(N * tumour) tumours.

    Tumour and normal slices are spread evenly through each other, each kind running through its
    own heads: 0, 2, 4, ... without tumour, 1, 3, 5, ... with.
    """
    before = floor(index * tumour + 0.5)
    if floor((index + 1) * tumour + 0.5) > before:
        head, number = divmod(before, TUMOUR_SLICES)
        return Place(2 * head + 1, number, True)
    head, number = divmod(index - before, NORMAL_SLICES)
    return Place(2 * head, number, False)


def level_of(head: Head, number: int) -> float:
    """The height of slice `number` of a head, millimetres above the anterior commissure."""
    if head.tumour is not None:
        share = (number + 0.5) / TUMOUR_SLICES * 2.0 - 1.0
        return head.tumour.centre[2] + 0.65 * head.tumour.radius * share
    spacing = (HIGHEST_MM - LOWEST_MM) / NORMAL_SLICES
    return LOWEST_MM + (number + head.level_offset) * spacing


def phantom_batches(
    count: int, settings: PhantomSettings, *, start: int = 0, batch: int = 64
) -> Iterator[PhantomBatch]:
    """Slices start .. start + count - 1 in order, at most `batch` at a time.

    Slice i depends on `settings` and i alone, not on how the slices are batched.
    """
    if count <= 0:
        raise UsageError(f"phantom: count is {count}, expected 1 or more")
    if start < 0 or batch <= 0:
        raise UsageError(f"phantom: start is {start} and batch {batch}, expected >= 0 and >= 1")
    return (
        _batch(range(first, min(first + batch, start + count)), settings)
        for first in range(start, start + count, batch)
    )


def phantom_slices(
    count: int,
    size: int,
    contrasts: tuple[str, ...] = ("t2",),
    tumour: float = 0.5,
    seed: int = 0,
    *,
    noise: float = 0.02,
    bias: float = 0.2,
    start: int = 0,
) -> PhantomBatch:
    """`count` phantom slices of `size` x `size` pixels in one batch; see PhantomSettings.

    Raises UsageError for a setting out of range.
    """
    settings = PhantomSettings(size, tuple(contrasts), tumour, seed, noise, bias)
    return next(phantom_batches(count, settings, start=start, batch=max(count, 1)))


def _batch(indices: range, settings: PhantomSettings) -> PhantomBatch:
    size = settings.size
    shape = (len(indices), size, size)
    signals = {contrast: np.empty(shape, np.float32) for contrast in settings.contrasts}
    tissue = np.full((len(indices), size * size), Tissue.AIR, np.uint8)
    mask = np.zeros((len(indices), size * size), np.bool_)
    places = [place(index, settings.tumour) for index in indices]
    levels = np.empty(len(indices), np.float32)
    for n, (index, where) in enumerate(zip(indices, places, strict=True)):
        head = head_of(settings.seed, where.head, where.with_tumour)
        levels[n] = level = level_of(head, where.slice)
        pixels, shares = cut(head, level, size, settings.pixel_mm)  # [P], [T, P]
        tissue[n, pixels] = shares.argmax(axis=0)
        if where.with_tumour:
            mask[n, pixels] = _tumour_mask(shares)
        for contrast, signal in signals.items():
            of_tissue = signal_row(contrast)  # [T]
            clean = np.full(size * size, of_tissue[Tissue.AIR], np.float32)
            clean[pixels] = of_tissue @ shares
            signal[n] = _scan(clean.reshape(size, size), contrast, index, where.head, settings)
    return PhantomBatch(
        signals=signals,
        tissue=tissue.reshape(shape),
        tumour_mask=mask.reshape(shape),
        index=np.array(indices, np.int64),
        head=np.array([where.head for where in places], np.int64),
        slice=np.array([where.slice for where in places], np.int64),
        level_mm=levels,
        label=tuple("tumour" if where.with_tumour else "normal" for where in places),
        pixel_mm=settings.pixel_mm,
    )


def _tumour_mask(shares: Float32) -> npt.NDArray[np.bool_]:
    tumour = shares[Tissue.TUMOUR] + shares[Tissue.NECROSIS]
    # a small tumour on a coarse grid may fill no pixel by half: then its fullest pixel counts
    return np.asarray(tumour >= min(0.5, float(tumour.max())))


def _scan(
    clean: Float32, contrast: str, index: int, head: int, settings: PhantomSettings
) -> Float32:
    """Adds the bias field of the head and the noise of the slice."""
    code = CONTRASTS.index(contrast)
    rng = np.random.default_rng([settings.seed, index, 2, code])
    if contrast == "ct":
        return gaussian(clean, settings.noise * CT_NOISE_HU, rng) if settings.noise else clean
    if settings.bias:
        clean = clean * _bias_of(settings.seed, head, code, settings.size, settings.bias)
    noisy = rician(clean, settings.noise, rng) if settings.noise else clean
    return np.clip(noisy, 0.0, 1.0)


@lru_cache(maxsize=64)
def _bias_of(seed: int, head: int, contrast: int, size: int, strength: float) -> Float32:
    return bias_field(size, strength, np.random.default_rng([seed, head, 3, contrast]))
