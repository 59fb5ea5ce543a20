"""A page of sections, and what several pages have in them. Texts are HTML unless said otherwise."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources

import numpy as np
import numpy.typing as npt
from PIL import Image


def whole_page(title: str, sections: Iterable[str], style: str = "") -> str:
    """An HTML document of these sections, its style inside; `style` is CSS of this page alone."""
    common = (resources.files("fastmrigan.pages") / "page.css").read_text(encoding="utf-8")
    body = "\n".join(sections).replace(" %", "&nbsp;%")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{common}{style}</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )


def settings_table(rows: Mapping[str, object]) -> str:
    """A row a setting; plain texts."""
    cells = "".join(
        f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>\n"
        for key, value in rows.items()
    )
    return f'<table class="settings"><tbody>\n{cells}</tbody></table>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of plain texts, the first of each its name; on a narrow page a row becomes a block in
    which each value stands behind what `head` calls it."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(
        f'<tr><td class="name">{escape(name)}</td>'
        + "".join(
            f'<td data-name="{escape(title, quote=True)}">{escape(value)}</td>'
            for title, value in zip(head[1:], values, strict=True)
        )
        + "</tr>\n"
        for name, *values in rows
    )
    return (
        f'<table class="measures"><thead><tr>{titles}</tr></thead><tbody>\n{body}</tbody></table>'
    )


def tiles(boxes: Iterable[tuple[str, str]]) -> str:
    """The figures to see first: (value, what it is), plain texts."""
    body = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(text)}</span></div>'
        for value, text in boxes
    )
    return f'<div class="tiles">{body}</div>'


def soft(text: str) -> str:
    """A plain line in grey; nothing where there is nothing to say."""
    return f'<p class="soft">{escape(text)}</p>' if text else ""


def figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{caption}</figcaption></figure>"


def picture(pixels: npt.NDArray[np.uint8], description: str) -> str:
    """uint8 [H, W] or [H, W, 3] as an <img> that carries its own PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    height, width = pixels.shape[:2]
    return (
        f'<img alt="{escape(description, quote=True)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{data}">'
    )
