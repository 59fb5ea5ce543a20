"""What there is to send: the DICOM files of a folder and the .dcm members of its tar shards.

Only the head of each file is read, in bounded pieces: what C-STORE must name (SOP class, SOP
instance, transfer syntax), where the data set begins, and whether the file says that it is
synthetic or de-identified. The data set itself is sent as it lies in the file, never decoded.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from fastmrigan.imaging.send.head import (
    LARGEST_HEAD,
    PREAMBLE,
    PREFIX,
    UNDEFINED,
    full_head,
    plain_head,
)
from fastmrigan.imaging.walker import Refused, kind_told, natural, suffix, why_closed

DICOM_SUFFIXES = frozenset((".dcm", ".dicom", ".ima"))
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"  # Media Storage Directory: a DICOMDIR is no instance
SHARDS = "shard-*.tar"

# How much of a file is read until its head is understood: what nearly every file needs, then what
# a head may hold at most.
HEADS = (16 << 10, LARGEST_HEAD)

FRAGMENT, DELIMITER = 0xE000FFFE, 0xE0DDFFFE  # tags as they lie in little endian
UID_FORM = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True)
class Item:
    """One instance to send: `size` bytes of `path` from `offset` on are its data set."""

    name: str  # relative to the source; a member's name follows that of its shard
    path: Path
    offset: int  # of the data set, behind the file meta information
    size: int  # bytes of the data set
    sop_class: str
    sop_instance: str
    syntax: str  # UID of the transfer syntax
    marked: bool  # SyntheticData or PatientIdentityRemoved is YES

    @property
    def context(self) -> tuple[str, str]:
        """The presentation context it needs: abstract and transfer syntax."""
        return self.sop_class, self.syntax

    def read(self) -> bytes:
        """Its data set, encoded as in the file. Raises Refused."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise Refused(self.name, f"cannot be read ({error.strerror})") from error
        if len(content) != self.size:
            raise Refused(self.name, "has become shorter since it was looked at")
        return content + b"\0" * (self.size % 2)  # a deflated one may be odd: PS3.5 section A.5


@dataclass
class Found:
    """What a source holds."""

    items: list[Item] = field(default_factory=list)  # in natural order of name
    refused: list[Refused] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)  # by kind: not DICOM


def files(root: Path, found: Found) -> list[tuple[str, Path]]:
    """The regular files under a folder (or the one file `root` is), in natural order of name.

    Hidden files and folders are skipped; links to files are followed, links to folders are not, so
    that no loop is walked. What cannot be looked at is refused in `found`.
    """
    if not root.is_dir():
        return [(root.name, root)]

    def closed(error: OSError) -> None:
        name = Path(error.filename).relative_to(root).as_posix()
        found.refused.append(Refused(name, f"a folder that cannot be read ({error.strerror})"))

    kept = []
    for folder, subfolders, names in os.walk(root, onerror=closed):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for file in names:
            path = Path(folder, file)
            name = path.relative_to(root).as_posix()
            if file.startswith("."):
                continue
            try:
                regular = stat.S_ISREG(path.stat().st_mode)
            except OSError as error:
                found.refused.append(Refused(name, why_closed(path, error)))
                continue
            if regular:
                kept.append((name, path))
            else:  # opening a pipe would wait for ever
                found.refused.append(Refused(name, "not a regular file"))
    return sorted(kept, key=lambda pair: natural(pair[0]))


def look(name: str, path: Path, found: Found) -> None:
    """Adds to `found` what one file is: an instance, a shard of them, refused or ignored.

    Raises MissingDependency where pydicom is absent.
    """
    try:
        shard = fnmatch(path.name, SHARDS)
        for part in members(name, path) if shard else [(name, 0, path.stat().st_size)]:
            try:
                keep(path, *part, found)
            except Refused as refused:  # the shard's other members go
                found.refused.append(refused)
    except Refused as refused:
        found.refused.append(refused)
    except OSError as error:
        found.refused.append(Refused(name, f"cannot be read ({error.strerror})"))


def members(name: str, path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, offset, bytes) of each .dcm member of a tar that is not compressed.

    Raises Refused where the archive is damaged, after the members before the damage.
    """
    try:
        end = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.offset_data + member.size > end:
                    raise EOFError("it ends within a member")
                if member.isreg() and suffix(member.name) in DICOM_SUFFIXES:
                    yield f"{name}/{member.name}", member.offset_data, member.size
    except (tarfile.TarError, ValueError, EOFError, MemoryError) as error:
        raise Refused(name, f"not a whole tar archive ({error})") from error


def keep(path: Path, name: str, offset: int, size: int, found: Found) -> None:
    with path.open("rb") as file:
        for limit in HEADS:
            file.seek(offset)
            head = file.read(min(limit, size))
            if head[PREAMBLE : PREAMBLE + len(PREFIX)] != PREFIX:
                if suffix(name) in DICOM_SUFFIXES:
                    raise Refused(name, "not a DICOM file (no DICM prefix at byte 128)")
                found.ignored[kind_told(name)] += 1
                return
            item = parse(name, path, offset, size, head)
            if item is not None:
                break
        else:
            raise Refused(name, f"its header is longer than {HEADS[-1] >> 20} MiB")
    if item.sop_class == DIRECTORY_CLASS:
        found.ignored["DICOMDIR"] += 1
    else:
        found.items.append(item)


def parse(name: str, path: Path, offset: int, size: int, head: bytes) -> Item | None:
    """The item whose file's first bytes `head` are; None where they do not reach far enough.

    Raises Refused, MissingDependency.
    """
    known = plain_head(head) or full_head(name, head, size)
    if known is None:
        return None
    for uid, what in ((known.sop_class, "SOP class"), (known.sop_instance, "SOP instance")):
        if not UID_FORM.fullmatch(uid):
            raise Refused(name, f"names no {what} that could be sent")
    length = size - known.data
    if not known.deflated:
        if known.claimed == UNDEFINED:
            there = delimited(path, offset + known.pixels, offset + size)
        else:  # a copy that was cut short has a whole header, and a peer would store it as it is
            there = known.pixels + known.claimed <= size
        if length % 2 or not there:
            raise Refused(name, "is not whole: it ends before its last element does")
    uids = known.sop_class, known.sop_instance, known.syntax
    return Item(name, path, offset + known.data, length, *uids, known.marked)


def delimited(path: Path, at: int, end: int) -> bool:
    """Whether the fragments that begin `at` a byte of a file have their delimiter before `end`."""
    with path.open("rb") as file:
        while at + 8 <= end:
            file.seek(at)
            tag, length = (int.from_bytes(file.read(4), "little") for _ in range(2))
            if tag != FRAGMENT:
                return bool(tag == DELIMITER)
            at += 8 + length
    return False
