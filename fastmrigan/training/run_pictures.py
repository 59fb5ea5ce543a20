"""The sample grids of a run folder as figures of its page, within a budget of bytes."""

from __future__ import annotations

import base64
import functools
import io
import math
import re
from html import escape
from pathlib import Path

from PIL import Image

NEWEST_BYTES = 1_100_000  # of the newest grids' data URIs together
EARLIER_BYTES = 500_000  # of the earlier ones'; with both the page stays under 2 MB
EARLIER = 24  # thumbnails, at most
THUMBNAIL = 240  # pixels, the longer side


def grids(folder: Path, missing: list[str]) -> str:
    """The newest sample grids large, earlier ones as thumbnails."""
    by_step: dict[int, list[Path]] = {}
    for path in sorted(folder.glob("*.png")):
        found = re.match(r"step_(\d{1,15})", path.name)
        if found is not None:
            by_step.setdefault(int(found[1]), []).append(path)
    if not by_step:
        missing.append("samples/ holds no grid yet.")
        return '<p class="soft">No grid has been written yet.</p>'
    *earlier, newest = sorted(by_step)
    stride = 1  # doubled as the run grows, so that the thumbnails of the last page serve again
    while -(-len(earlier) // stride) > EARLIER:
        stride *= 2
    unreadable: list[str] = []
    large, small = [], []
    for path in by_step[newest]:
        figure = large_picture(path, NEWEST_BYTES // len(by_step[newest]))
        if figure is None:
            unreadable.append(path.name)
        else:
            large.append(figure)
    room = EARLIER_BYTES
    for step in earlier[::stride]:
        path = by_step[step][0]
        data = thumbnail(path, mtime_ns(path))
        if data is None:
            unreadable.append(path.name)
        elif len(data) <= room:
            room -= len(data)
            small.append(
                f'<figure><img alt="{escape(path.stem, quote=True)}" src="{data}">'
                f"<figcaption>step {step:,}</figcaption></figure>"
            )
    if unreadable:
        missing.append(f"samples/: unreadable: {', '.join(unreadable)}.")
    shown = f'<div class="newest">{"".join(large)}</div>'
    if not earlier:
        return shown
    return (
        f'{shown}<p class="soft">{len(small)} of {len(earlier)} earlier grids, reduced.</p>'
        f'<div class="thumbs">{"".join(small)}</div>'
    )


def large_picture(path: Path, room: int) -> str | None:
    """A figure of a grid, reduced by 2, 3, … where its data URI exceeds `room` bytes."""
    picture = opened(path)
    if picture is None:
        return None
    # A picture reduced f times takes at least 1/f² of its bytes: smaller factors cannot fit.
    first = max(1, math.isqrt(path.stat().st_size * 4 // 3 // room))
    for factor in range(first, first + 32):
        data = data_uri(picture.reduce(factor), "PNG")
        if len(data) <= room:
            break
    reduced = f", reduced {factor} times" if factor > 1 else ""
    step = re.sub(r"\D.*", "", path.stem.removeprefix("step_"))
    ending = path.stem.removeprefix(f"step_{step}").strip("_")
    caption = f"step {int(step):,}{f', {ending}' if ending else ''}: {path.name}{reduced}"
    return (
        f'<figure><img alt="{escape(path.stem, quote=True)}" src="{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


@functools.lru_cache(maxsize=2 * EARLIER)
def thumbnail(path: Path, mtime_ns: int) -> str | None:
    """A small JPEG of a grid as a data URI; None where it cannot be read."""
    picture = opened(path)
    if picture is None:
        return None
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return data_uri(picture, "JPEG")


def mtime_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # gone since it was listed
        return 0


def opened(path: Path) -> Image.Image | None:
    """A grid as 8-bit grey or RGB; None where it cannot be read."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def data_uri(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{encoded}"
