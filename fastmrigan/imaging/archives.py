"""Images out of archives: nothing lands outside the folder it is sent to.

A member is written under a number of ours, whatever its own name says, and only if it is a plain
file of image kind. What an archive may unpack to is bounded by what it weighs.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO, cast

from fastmrigan.imaging.dicomdir import dicomdir_files
from fastmrigan.imaging.walker import (
    DICOMDIR,
    TAR_SUFFIXES,
    Refused,
    is_archive,
    is_image,
    printable,
    suffix,
)

__all__ = ["dicomdir_files", "open_archive"]

MAX_MEMBERS = 50_000
MAX_RATIO = 100  # bytes unpacked a byte packed; DICOM and NIfTI reach 10, images of zeros 500
ALWAYS = 64 << 20  # bytes that any archive may unpack to, whatever its ratio
MAX_DIRECTORY = 8 << 20  # bytes of a zip file's table of contents
MAX_HEADER = 16 << 10  # bytes of one header of a tar, with a long name and extended attributes
MAX_NAME = 1024  # characters
CHUNK = 1 << 20
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile cannot bound the others


class Unusable(Exception):
    """Why a member, or the rest of an archive, cannot be used."""


class TooMuch(Unusable):
    """The archive unpacks to more than it may."""


@dataclass(frozen=True)
class Member:
    """One entry of an archive."""

    name: str  # as the archive has it
    refusal: str | None  # why its kind is not taken: a link, a device, encrypted
    content: Callable[[], Iterator[bytes]]  # to be used before the next member is asked for


def open_archive(path: Path, scratch: Path) -> Iterator[tuple[str, Path] | Refused]:
    """Writes the images of an archive into `scratch` one by one, as they are asked for.

    path: .zip, .tar, .tar.gz, .tgz, .tar.xz, .txz, .tar.bz2, .tbz2, or .gz over one image.
    Yields (the member's own name without "./", file), of a .gz (its name without .gz, file): the
    file is the caller's to remove. Yields Refused, by the member's name, for links, devices, what
    is encrypted or broken, archives within, and names that lead outside. Other members are passed
    over, but for DICOM under whatever name. Raises Refused, by the archive's file name, where it is
    broken, unpacks to more than 100 times its bytes (and 64 MiB) or has more than 50,000 members;
    OSError where `scratch` cannot be written.
    """
    with closing(members_of(path)) as members:
        for number in range(1, MAX_MEMBERS + 2):
            try:
                member = next(members, None)
            except Exception as error:  # zipfile and tarfile raise nearly anything
                raise Refused(path.name, reason_of(error)) from error
            if member is None:
                return
            if number > MAX_MEMBERS:
                raise Refused(path.name, f"holds more than {MAX_MEMBERS:,} members; unpack it")
            name = "/".join(part for part in member.name.split("/") if part not in ("", "."))
            kind = suffix(name)
            refusal = member.refusal or misplaced(member.name)
            if refusal is None and is_archive(name) and kind != DICOMDIR:
                refusal = "an archive within an archive; unpack it"
            if refusal is not None:
                yield Refused(member.name[:MAX_NAME], refusal)
                continue
            if is_hidden(name):
                continue
            target = scratch / f"{number:06}{kind if is_image(kind) else '.dcm'}"
            try:
                content = member.content() if is_image(kind) else if_dicom(member.content())
                if content is None:
                    continue
                write(content, target)
            except TooMuch as error:
                target.unlink(missing_ok=True)
                raise Refused(path.name, str(error)) from error
            except Unusable as error:
                target.unlink(missing_ok=True)
                yield Refused(name, str(error))
            else:
                yield name, target


def members_of(path: Path) -> Generator[Member, None, None]:
    kind = suffix(path.name)
    limit = max(ALWAYS, MAX_RATIO * path.stat().st_size)
    if kind == ".zip":
        yield from zip_members(path, limit)
    elif kind in TAR_SUFFIXES:
        yield from tar_members(path, kind, limit)
    elif kind == ".gz":
        with gzip.open(path) as file:
            stream = Forward(cast(BinaryIO, file), limit)
            yield Member(path.name[: -len(kind)], None, stream.chunks)
    else:
        raise Unusable(f"not an archive that is opened: {', '.join(('.zip', *TAR_SUFFIXES))}, .gz")


def if_dicom(content: Iterator[bytes]) -> Iterator[bytes] | None:
    """The content of a member of any other name where it is DICOM; None where not, or broken."""
    try:
        first = next(content, b"")
    except TooMuch:
        raise
    except Exception:  # zipfile and tarfile raise nearly anything
        return None
    return chain([first], content) if first[128:132] == b"DICM" else None


def write(content: Iterator[bytes], target: Path) -> None:
    """Writes a member; what is wrong with it is raised as Unusable, what the disk says is not."""
    with target.open("wb") as file:
        while True:
            try:
                chunk = next(content, None)
            except Exception as error:
                if isinstance(error, Unusable):
                    raise
                raise Unusable(reason_of(error)) from error
            if chunk is None:
                return
            file.write(chunk)


def reason_of(error: Exception) -> str:
    if isinstance(error, Unusable):
        return str(error)
    text = printable(" ".join(str(error).split()))[:160]
    return f"a broken archive ({type(error).__name__}{': ' if text else ''}{text})"


def misplaced(name: str) -> str | None:
    """Why a member's name is not taken, if it is not."""
    if len(name) > MAX_NAME:
        return f"a name of {len(name):,} characters"
    if name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name):
        return "an absolute path in an archive"
    if ".." in re.split(r"[/\\]", name):
        return "a path that leads out of its archive"
    return None


def is_hidden(name: str) -> bool:
    """Hidden files, and the twins in which macOS keeps its attributes."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


class ModestFile(io.FileIO):
    """A file for zipfile, which would read a table of contents of any length."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size - self.tell())
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > MAX_DIRECTORY:
            raise Unusable(f"a zip file with {wanted:,} bytes of contents to list; unpack it")
        return super().read(wanted)


def zip_members(path: Path, limit: int) -> Iterator[Member]:
    with ModestFile(path) as file, zipfile.ZipFile(file) as archive:
        spent = 0

        def content(info: zipfile.ZipInfo) -> Iterator[bytes]:
            nonlocal spent
            with archive.open(info) as member:
                while chunk := member.read(CHUNK):
                    spent += len(chunk)
                    check_spent(spent, limit)
                    yield chunk

        members = sorted(archive.infolist(), key=lambda info: info.header_offset)
        for info, following in pairwise(members):
            if info.header_offset + info.compress_size > following.header_offset:
                raise Unusable("a zip bomb (members that share their bytes)")
        for info in members:
            if info.is_dir():
                continue
            refusal = None
            if stat.S_ISLNK(info.external_attr >> 16):
                refusal = "a link in an archive"
            elif info.flag_bits & 1:
                refusal = "encrypted in its archive; unpack it"
            elif info.compress_type not in ZIP_METHODS:
                refusal = f"packed by zip's method {info.compress_type}; unpack it"
            yield Member(info.filename, refusal, partial(content, info))


class Forward:
    """Unpacked bytes that are read once, from front to end, and only so many of them."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self.file, self.limit = file, limit
        self.position = 0
        self.last = b""  # what was read last

    def take(self, size: int) -> bytes:
        """Up to `size` bytes, fewer at the end. Raises TooMuch."""
        self.last = self.file.read(size)
        self.position += len(self.last)
        check_spent(self.position, self.limit)
        return self.last

    def chunks(self, size: int | None = None) -> Iterator[bytes]:
        """The next `size` bytes, or all. Raises Unusable where they are not there."""
        left = size
        while left is None or left > 0:
            chunk = self.take(CHUNK if left is None else min(CHUNK, left))
            if left is not None:
                left -= len(chunk)
            if chunk:
                yield chunk
            elif left is None:
                return
            else:
                raise Unusable("cut short in its archive")

    # What tarfile asks of a file
    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self.position:
            raise Unusable("a broken archive (a header that leads back)")
        while self.position < offset and self.take(min(CHUNK, offset - self.position)):
            pass
        return self.position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise Unusable(f"a broken archive (a header that claims {size:,} bytes)")
        return self.take(size)


def check_spent(spent: int, limit: int) -> None:
    if spent > limit:
        raise TooMuch(f"unpacks to more than {limit >> 20:,} MiB, {MAX_RATIO} times its size")


def tar_members(path: Path, kind: str, limit: int) -> Iterator[Member]:
    with unpacked(path, kind) as file:
        stream = Forward(file, limit)

        def content(entry: tarfile.TarInfo) -> Iterator[bytes]:
            stream.seek(entry.offset_data)
            yield from stream.chunks(entry.size)

        with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r:") as archive:
            kept: list[tarfile.TarInfo] = getattr(archive, "members", [])
            while (entry := archive.next()) is not None:
                kept.clear()  # or all of them stay in memory
                if entry.size < 0:
                    raise Unusable("a broken archive (a member of negative size)")
                if entry.isdir():
                    continue
                refusal = None
                if entry.issym() or entry.islnk():
                    refusal = "a link in an archive"
                elif not entry.isreg():
                    refusal = "a device or a pipe in an archive"
                elif entry.issparse():
                    refusal = "a sparse file in an archive; unpack it"
                yield Member(entry.name, refusal, partial(content, entry))
            # tarfile takes a header that it cannot read for the end
            if stream.last.strip(b"\0"):
                raise Unusable("a broken archive (it goes on with what is no header)")


def unpacked(path: Path, kind: str) -> BinaryIO:
    """The plain tar in a file, inflated as it is read."""
    if kind in (".tar.gz", ".tgz"):
        return cast(BinaryIO, gzip.open(path))
    if kind in (".tar.xz", ".txz"):
        return cast(BinaryIO, lzma.open(path))
    if kind in (".tar.bz2", ".tbz2"):
        return cast(BinaryIO, bz2.open(path))
    return path.open("rb")
