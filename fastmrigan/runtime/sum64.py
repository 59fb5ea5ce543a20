"""The sum of a file's 64-bit words: a flipped byte is found about as fast as memory is read."""

from __future__ import annotations

from io import BufferedIOBase

PIECE = 1 << 18  # bytes: nearly twice as fast as pieces beyond a core's own cache


def sum64(file: BufferedIOBase, size: int) -> str:
    """The sum of `size` bytes from where `file` stands, in 16 hexadecimal digits: little-endian
    words of 64 bits, the last one filled up with zeros, modulo 2^64.

    Whatever changes within one word changes it for certain. Two words that change places do not,
    nor whatever else is made to keep it: it is no sha256. The file is read through one piece of
    memory. What it has beyond `size` is left; where it ends before, the sum is of what is there.
    """
    import numpy as np  # here: the facts of a model or an engine are read without it

    piece = bytearray(PIECE)
    words = np.frombuffer(piece, "<u8")
    total = 0
    for first in range(0, size, PIECE):
        wanted = min(PIECE, size - first)
        got = file.readinto(memoryview(piece)[:wanted])
        piece[got:] = bytes(PIECE - got)
        total += int(words.sum())  # modulo 2^64 as well
    return f"{total % 2**64:016x}"
