"""Archives that lead outside, unpack to gigabytes or hold what is no plain file."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable

import bombs
import hostile_pictures

PICTURE = hostile_pictures.encoded(hostile_pictures.NOISE)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def zip_link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def zip_overlapping(count: int) -> bytes:
    """Many entries of a table of contents that all lead to one and the same member."""
    plain = zipped({"a.png": bytes(1 << 20)})
    directory = plain.index(b"PK\1\2")
    entry = plain[directory : plain.index(b"PK\5\6")]
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(entry) * count, directory, 0)
    return plain[:directory] + entry * count + end


def zip_encrypted() -> bytes:
    """The bit that says so, in both headers."""
    data = bytearray(zipped({"secret.png": PICTURE}))
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + offset] |= 1
    return bytes(data)


def zip_lying_size() -> bytes:
    """Says ten bytes, and inflates to a hundred MiB."""
    data = bytearray(bombs.zipped("liar.png", 100))
    for mark, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<I", data, data.index(mark) + offset, 10)
    return bytes(data)


def tarred(*entries: tuple[str, bytes | None, bytes, str]) -> bytes:
    """A tar of (name, content, type, link target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content, kind, target in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            info.size = len(content) if content is not None else 0
            archive.addfile(info, io.BytesIO(content) if content is not None else None)
    return buffer.getvalue()


def plain(name: str, content: bytes = PICTURE) -> tuple[str, bytes, bytes, str]:
    return name, content, tarfile.REGTYPE, ""


def tar_sparse() -> bytes:
    """An old GNU sparse file: 512 bytes that claim to be eight GiB."""
    block = bytearray(tarred(plain("sparse.png", bytes(512)))[:512])
    block[156:157] = b"S"
    block[257:265] = b"ustar  \0"
    struct.pack_into("12s12s", block, 386, b"%011o\0" % 0, b"%011o\0" % 512)
    block[483:495] = b"%011o\0" % (1 << 32)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(512) + bytes(1024)


def tar_long_header() -> bytes:
    """A pax header that claims a hundred MiB."""
    block = bytearray(tarred(plain("a.png", b""))[:512])
    block[156:157] = tarfile.XHDTYPE
    block[124:136] = b"%011o\0" % (100 << 20)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(20_000)


def tar_size_negative() -> bytes:
    block = bytearray(tarred(plain("a.png", bytes(512)))[:512])
    block[124:136] = b"\xff" * 11 + b"\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return (bytes(block) + bytes(512)) * 3 + bytes(1024)


def tar_head(name: str, count: int) -> bytes:
    """The header of a member of `count` MiB."""
    info = tarfile.TarInfo(name)
    info.size = count << 20
    return info.tobuf()


def tar_bomb(name: str, pack: Callable[[bytes], bytes]) -> bytes:
    """A tar of one member of 400 MiB, in packed streams one behind the other."""
    return pack(tar_head(name, 400)) + pack(bytes(40 << 20)) * 10


# name: (maker, the name of the member refused ("" for the archive), what the reason must say)
HOSTILE: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "slip.zip": (lambda: zipped({"../../slip.png": PICTURE}), "../../slip.png", "leads out of"),
    "slip_hidden.zip": (
        lambda: zipped({"a/../../../slip.cfg": PICTURE}),
        "a/../../../slip.cfg",
        "leads out of",
    ),
    "slip_windows.zip": (
        lambda: zipped({"..\\..\\slip.png": PICTURE}),
        "..\\..\\slip.png",
        "leads out of",
    ),
    "absolute.zip": (lambda: zipped({"/tmp/abs.png": PICTURE}), "/tmp/abs.png", "absolute path"),
    "drive.zip": (lambda: zipped({"C:/abs.png": PICTURE}), "C:/abs.png", "absolute path"),
    "link.zip": (zip_link, "link.png", "a link"),
    "encrypted.zip": (zip_encrypted, "secret.png", "encrypted"),
    "nested.zip": (
        lambda: zipped({"inner.zip": zipped({"a.png": PICTURE})}),
        "inner.zip",
        "an archive within an archive",
    ),
    "method.zip": (
        lambda: zipped({"a.png": PICTURE}, zipfile.ZIP_LZMA),
        "a.png",
        "zip's method 14",
    ),
    "bomb.zip": (lambda: bombs.zipped("bomb.png", 1000), "", "unpacks to more than"),
    "overlapping.zip": (lambda: zip_overlapping(2000), "", "share their bytes"),
    "lying_size.zip": (zip_lying_size, "liar.png", "broken archive"),
    "crc.zip": (
        lambda: zipped({"a.png": PICTURE}, zipfile.ZIP_STORED).replace(
            PICTURE[60:70], bytes(10), 1
        ),
        "a.png",
        "broken archive",
    ),
    "cut.zip": (lambda: zipped({"a.png": PICTURE})[:-30], "", "broken archive"),
    "directory.zip": (
        lambda: zipped({"a.png": PICTURE})[:-12] + struct.pack("<HIIH", 1, 0xFFFFFFF0, 0, 0),
        "",
        "broken archive",
    ),
    "garbage.zip": (lambda: PICTURE, "", "broken archive"),
    "empty.zip": (lambda: b"", "", "broken archive"),
    "long_name.zip": (lambda: zipped({"9" * 60_000: PICTURE}), "9" * 1024, "60,000 characters"),
    "absolute.tar": (lambda: tarred(plain("/tmp/abs.png")), "/tmp/abs.png", "absolute path"),
    "slip.tar": (lambda: tarred(plain("../slip.png")), "../slip.png", "leads out of"),
    "symlink.tar": (
        lambda: tarred(("link.png", None, tarfile.SYMTYPE, "/etc/passwd")),
        "link.png",
        "a link",
    ),
    "hardlink.tar": (
        lambda: tarred(("link.png", None, tarfile.LNKTYPE, "../../outside.png")),
        "link.png",
        "a link",
    ),
    "device.tar": (lambda: tarred(("null.png", None, tarfile.CHRTYPE, "")), "null.png", "a device"),
    "fifo.tar": (lambda: tarred(("pipe.png", None, tarfile.FIFOTYPE, "")), "pipe.png", "a pipe"),
    "sparse.tar": (tar_sparse, "sparse.png", "a sparse file"),
    "cut.tar": (lambda: tarred(plain("a.png"))[:700], "a.png", "cut short|broken archive"),
    "header.tar": (tar_long_header, "", "a header that claims"),
    "negative.tar": (tar_size_negative, "", "broken archive"),
    "middle.tar": (
        lambda: tarred(plain("a.cfg"))[: 512 + 1536] + b"garbage " * 200,
        "",
        "goes on with what is no header",
    ),
    "garbage.tar": (lambda: PICTURE * 3, "", "broken archive"),
    "bomb.tar.gz": (
        lambda: bombs.gzipped(tar_head("bomb.png", 400), 400),
        "",
        "unpacks to more than",
    ),
    "bomb.tgz": (  # of a member that nobody asked for
        lambda: bombs.gzipped(tar_head("bomb.cfg", 400), 400),
        "",
        "unpacks to more than",
    ),
    "bomb.tar.bz2": (lambda: tar_bomb("bomb.png", bz2.compress), "", "unpacks to more than"),
    "bomb.tar.xz": (
        lambda: tar_bomb("bomb.png", lambda x: lzma.compress(x, preset=0)),
        "",
        "unpacks to more than",
    ),
    "cut.tar.gz": (lambda: gzip.compress(tarred(plain("a.png")))[:600], "a.png", "broken archive"),
    "garbage.tar.xz": (lambda: PICTURE, "", "broken archive"),
    "bomb.dcm.gz": (lambda: bombs.gzipped(b"", 1000), "", "unpacks to more than"),
    "garbage.dcm.gz": (lambda: PICTURE, "garbage.dcm", "broken archive"),
    "cut.png.gz": (lambda: gzip.compress(PICTURE)[:-200], "cut.png", "broken archive"),
}

GOOD: dict[str, tuple[Callable[[], bytes], dict[str, bytes]]] = {
    "good.zip": (
        lambda: zipped(
            {
                "a/1.png": PICTURE,
                "a/.hidden.png": b"x",
                "__MACOSX/._1.png": b"x",
                "README.md": b"x",
                "IM0001": PICTURE[::-1],
            }
        ),
        {"a/1.png": PICTURE, "IM0001": PICTURE[::-1]},
    ),
    "good.tar": (
        lambda: tarred(plain("b/2.png"), ("b", None, tarfile.DIRTYPE, ""), plain("3.txt")),
        {"b/2.png": PICTURE},
    ),
    "good.tar.gz": (lambda: gzip.compress(tarred(plain("4.png"))), {"4.png": PICTURE}),
    "good.tgz": (lambda: gzip.compress(tarred(plain("5.png"))), {"5.png": PICTURE}),
    "good.tar.xz": (lambda: lzma.compress(tarred(plain("6.png"))), {"6.png": PICTURE}),
    "good.tar.bz2": (lambda: bz2.compress(tarred(plain("7.png"))), {"7.png": PICTURE}),
    "good.png.gz": (lambda: gzip.compress(PICTURE), {"good.png": PICTURE}),
}
