"""The sum of a file's words: as one integer of Python a word gives it, and what it finds."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from fastmrigan.runtime.sum64 import PIECE, sum64

SIZES = (0, 1, 7, 8, 9, 4096, PIECE - 8, PIECE - 1, PIECE, PIECE + 1, PIECE + 9, 3 * PIECE + 5)


def reference(data: bytes) -> str:
    words = (int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8))
    return f"{sum(words) % 2**64:016x}"


def random_bytes(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("content", [random_bytes, lambda size: b"\xff" * size], ids=["any", "ff"])
def test_is_the_sum_of_words(tmp_path: Path, size, content):
    data = content(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb") as file:
        assert sum64(file, size) == reference(data)
    assert sum64(BytesIO(data), size) == reference(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "0000000000000000"),
        (b"\x01", "0000000000000001"),
        (b"\x01\x02\x03\x04\x05\x06\x07\x08", "0807060504030201"),
        (b"\x00" * 7 + b"\x80" + b"\x00" * 7 + b"\x80", "0000000000000000"),  # 2^63 + 2^63
        (b"\xff" * 8 + b"\x02", "0000000000000001"),
    ],
)
def test_by_hand(data, expected):
    assert sum64(BytesIO(data), len(data)) == expected


@pytest.mark.parametrize(("size", "counted"), [(0, 0), (5, 5), (PIECE, PIECE), (PIECE + 20, None)])
def test_reads_so_many_bytes_or_what_there_is(size, counted):
    data = random_bytes(PIECE + 11)
    assert sum64(BytesIO(data), size) == reference(data[:counted])


def test_every_other_value_of_every_byte_of_a_word_changes_it():
    word = random_bytes(8)
    sums = {reference(word)}
    for place in range(8):
        for change in range(1, 256):
            other = bytearray(word)
            other[place] ^= change
            sums.add(sum64(BytesIO(bytes(other)), 8))
    assert len(sums) == 1 + 8 * 255
