"""The pictures of a report, each with its PNG inside: sheets, difference maps, nearest slices."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
import numpy.typing as npt

from fastmrigan.imaging.contact_sheet import contact_sheet
from fastmrigan.imaging.quantise import to_uint8
from fastmrigan.metrics.nearest import Nearest
from fastmrigan.metrics.paired import METRICS, REGIONS, PairResult
from fastmrigan.metrics.slice_sets import SliceSet
from fastmrigan.metrics.sources import Changes
from fastmrigan.pages.page import figure, picture

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

SPAN = 0.5  # a difference at which its colour is at its brightest; slices span 2


def sheets(real: SliceSet, made: SliceSet, seed: int) -> str:
    """Equally many slices of both sides, drawn at random, side by side."""
    height = max(real.slices.shape[1:])
    columns = 8 if height <= 96 else 6 if height <= 160 else 4
    count = min(columns**2, len(real.slices), len(made.slices))
    draws = np.random.default_rng(seed)
    figures = []
    for name, side in (("real", real), ("synthetic", made)):
        chosen = np.sort(draws.choice(len(side.slices), count, replace=False))
        sheet = contact_sheet(side.slices[chosen], columns=columns)
        figures.append(
            figure(
                picture(sheet, f"{count} {name} slices"),
                f"{name}: {count} slices drawn at random, none picked by hand",
            )
        )
    return f'<div class="pair">{"".join(figures)}</div>'


def difference_maps(result: PairResult) -> str:
    """The best, the median and the worst pair: source, translation, target, difference."""
    pairs = result.pairs
    metric, _, region = result.ranked_by.partition("_")
    measure = f"{METRICS[metric][0]} {REGIONS['_' + region if region else '']}"
    rows = []
    for name, i in result.shown.items():
        made, truth = pairs.made[i], pairs.truth[i]
        score = result.scores["translation"][result.ranked_by][i]
        panels = {
            "source": to_uint8(pairs.source[i]),
            "translation": to_uint8(made),
            "true target": to_uint8(truth),
            "difference": signed(made - truth),
        }
        where = f"Slice {pairs.index[i]} of the dataset ({pairs.split[i]})"
        rows.append(in_a_row(f"{name} pair", f"{where}, {escape(measure)} {score:.3f}.", panels))
    return (
        f'<p class="soft">By {escape(measure)}, of {len(result.judged):,} pairs. Difference: '
        "translation less target; red is too bright, blue too dark, black is right, full colour "
        f"{SPAN:g} or more of the 2 that slices span.</p>{''.join(rows)}"
    )


def change_maps(changes: Changes) -> str:
    """The least, the median and the most changed slice: source, translation, difference."""
    rows = []
    for name, i in changes.shown.items():
        source, made = changes.sources[i], changes.made[i]
        panels = {
            "source": to_uint8(source),
            "translation": to_uint8(made),
            "difference": signed(made - source),
        }
        told = f"SSIM to its source {changes.ssim[i]:.3f}."
        rows.append(in_a_row(f"{name} slice", told, panels))
    return (
        '<p class="soft">Difference: translation less source; red is brighter, blue darker, black '
        f"unchanged, full colour {SPAN:g} or more of the 2 that slices span.</p>{''.join(rows)}"
    )


def in_a_row(title: str, told: str, panels: Mapping[str, UInt8]) -> str:
    """Pictures beside each other, each under its name."""
    figures = "".join(
        figure(picture(panel, f"{title}: {what}"), what) for what, panel in panels.items()
    )
    return f'<h3>{title}</h3><p class="soft">{told}</p><div class="panels">{figures}</div>'


def signed(difference: Float32) -> UInt8:
    """[H, W] to uint8 [H, W, 3]: red above 0, blue below, black at 0, full at SPAN."""
    share = (difference / SPAN).clip(-1, 1)
    strength = np.abs(share)
    red = np.where(share > 0, strength, 0.25 * strength)
    blue = np.where(share < 0, strength, 0.15 * strength)
    colour = np.stack([red, 0.45 * strength, blue], axis=-1)  # [H, W, 3]
    bytes_: UInt8 = np.rint(255 * colour).astype(np.uint8)
    return bytes_


def neighbours(found: Nearest, real: SliceSet, made: SliceSet) -> str:
    """Synthetic slices, each beside the real one most like it."""
    figures = []
    for i, j, mirrored, caption in zip(
        found.made, found.real, found.mirrored, found.captions, strict=True
    ):
        other = real.slices[j][:, ::-1] if mirrored else real.slices[j]
        pair = np.stack([made.slices[i], other])
        sheet = picture(contact_sheet(pair, columns=2), f"synthetic slice {i} and a real one")
        figures.append(figure(sheet, escape(caption)))
    parts = [
        ("Most like a training slice", figures[: found.suspects]),
        ("Drawn at random", figures[found.suspects :]),
    ]
    shown = [
        (f"<h3>{title}</h3>" if found.suspects else "")
        + f'<div class="neighbours">{"".join(part)}</div>'
        for title, part in parts
        if part
    ]
    return f'<p class="soft">{escape(found.text)}</p>{"".join(shown)}'
