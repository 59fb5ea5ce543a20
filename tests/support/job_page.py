"""What a reader sees of a job's page."""

from __future__ import annotations

import re
from html import unescape


def text_of(html: str) -> str:
    """What a reader sees, in one line."""
    body = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def rows_of(html: str, heading: str) -> list[list[str]]:
    """The cells of the first table behind a heading."""
    table = html[html.index(f">{heading}<") :].split("<tbody>")[1].split("</tbody>")[0]
    cells = (re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("</tr>")[:-1])
    return [[unescape(cell).replace("\xa0", " ") for cell in row] for row in cells]
