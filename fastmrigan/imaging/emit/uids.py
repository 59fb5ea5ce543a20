"""Names for files that nobody registers: the same parts give the same name on every machine."""

from __future__ import annotations

import hashlib

UID_LENGTH = 44  # characters of every `uid`: an even number, so that DICOM never pads one


def digest(*parts: object) -> bytes:
    """sha256 of `parts` as text, kept apart."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).digest()


def uid(*parts: object) -> str:
    """A DICOM unique identifier of UID_LENGTH characters, made of `parts`.

    2.25. and the decimal number of a UUID (PS3.5 B.2), whose bits are those of `digest` but for
    seven: six say version 8, "made its own way" (RFC 9562), and the highest is 1, so that the
    number always has 39 digits.
    """
    number = int.from_bytes(digest(*parts)[:16], "big")
    number = number & ~(0xF << 76) | 8 << 76  # version
    number = number & ~(0b11 << 62) | 0b10 << 62  # variant
    return f"2.25.{number | 1 << 127}"


def short_name(*parts: object) -> str:
    """16 hex digits made of `parts`."""
    return digest(*parts)[:8].hex()
