"""Compressed zeros, quickly made: the deflate stream of one MiB, as often as wanted."""

from __future__ import annotations

import struct
import zlib

MIB = bytes(1 << 20)
CHECKED = 100  # MiB up to which a stream ends in its true checksum: longer ones are never read out


def deflate(head: bytes, count: int) -> bytes:
    """A raw deflate stream of `head` and `count` MiB of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(MIB) + packer.flush(zlib.Z_FULL_FLUSH)  # needs nothing before it
    return first + block * count + packer.flush()


def zlibbed(count: int) -> bytes:
    """A zlib stream of `count` MiB of zeros."""
    checksum = 1
    for _ in range(count if count <= CHECKED else 0):
        checksum = zlib.adler32(MIB, checksum)
    return b"\x78\x9c" + deflate(b"", count) + struct.pack(">I", checksum)


def gzipped(head: bytes, count: int) -> bytes:
    """A gzip file of `head` and `count` MiB of zeros."""
    checksum = zlib.crc32(head)
    for _ in range(count if count <= CHECKED else 0):
        checksum = zlib.crc32(MIB, checksum)
    end = struct.pack("<II", checksum, (len(head) + count * len(MIB)) & 0xFFFFFFFF)
    return b"\x1f\x8b\x08" + bytes(7) + deflate(head, count) + end


def zipped(name: str, count: int) -> bytes:
    """A zip file of one member, `count` MiB of zeros."""
    content, path = deflate(b"", count), name.encode()
    facts = struct.pack(
        "<HHHHIIIHH", 0, 8, 0, 0x21, 0, len(content), count * len(MIB), len(path), 0
    )
    local = b"PK\3\4" + struct.pack("<H", 20) + facts + path + content
    entry = b"PK\1\2" + struct.pack("<HH", 20, 20) + facts + bytes(14) + path
    return (
        local + entry + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(local), 0)
    )
