"""Which files of a folder are images, in one fixed order, and which cannot even be opened."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fastmrigan.errors import InputRejected, UsageError

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ".ima"))
VOLUME_SUFFIXES = (".nii", ".nii.gz")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
ARCHIVE_SUFFIXES = frozenset((".zip", ".gz", *TAR_SUFFIXES))
DICOMDIR = "dicomdir"  # what `suffix` calls the directory file of a DICOM medium
COMPOUND_SUFFIXES = (".nii.gz", ".tar.gz", ".tar.xz", ".tar.bz2")
OTHER_SUFFIXES = frozenset(  # told of files that are passed over
    (
        *(".bmp", ".bval", ".bvec", ".csv", ".db", ".doc", ".docx", ".gif", ".htm", ".html"),
        *(".ini", ".jp2", ".json", ".log", ".mat", ".md", ".mha", ".mhd", ".mp4", ".npy", ".npz"),
        *(".nrrd", ".pdf", ".py", ".raw", ".rtf", ".tsv", ".txt", ".xls", ".xlsx", ".xml"),
        *(".yaml", ".yml"),
    )
)
PHANTOM_MAPS = frozenset(("tissue", "tumour_mask"))  # folders beside a phantom's contrasts


class Refused(InputRejected):
    """One file that cannot be used: its name and the reason, which make up the message."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{printable(name)}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[type[Refused], tuple[str, str]]:
        return Refused, (self.name, self.reason)  # it comes back from worker processes


@dataclass
class Walk:
    """What a walk found; names are relative to its root, with forward slashes."""

    files: list[tuple[str, Path]] = field(default_factory=list)  # to be read, in natural order
    archives: list[tuple[str, Path]] = field(default_factory=list)  # to be opened, DICOMDIR too
    refused: list[Refused] = field(default_factory=list)  # dead links, pipes, closed folders
    ignored: Counter[str] = field(default_factory=Counter)  # by `kind_told`: not images


def walk(root: Path) -> Walk:
    """All image files under a folder (or the one file `root` is), in natural order of name.

    Tried are the extensions of known image formats, files without one (DICOM often has none, or
    ends in a number of its UID) and DICOM under any other name. Archives, a `.gz` over an image
    and DICOMDIR files are listed apart: `archives` opens them, and the files a DICOMDIR names may
    be among `files` already. Other files are counted. Hidden files and folders are skipped, and so
    are prepared data sets, whose contact sheets are no slices, and the contact sheet beside
    generated ones. Links to files are followed, links to folders are not, so that no loop is ever
    walked. Raises UsageError for the whole output of `fastmrigan phantom`, whose maps and masks are
    no slices either.
    """
    found = Walk()
    if not root.is_dir():
        keep_regular(found, root, root.name, found.archives if is_archive(root.name) else None)
        return found
    folders = [(root, "")]  # still to be walked, with what the names in them begin with
    while folders:
        folder, prefix = folders.pop()
        try:
            with os.scandir(folder) as listing:
                entries = list(listing)
        except OSError as error:
            reason = f"a folder that cannot be read ({error.strerror})"
            found.refused.append(Refused(prefix[:-1] or ".", reason))
            continue
        names = {entry.name for entry in entries}
        if {"dataset.json", "slices.npy"} <= names:
            found.ignored["prepared data set"] += 1
            continue
        subfolders = {entry.name for entry in entries if is_folder(entry)}
        if "phantom.json" in names and PHANTOM_MAPS & subfolders:
            refuse_phantom(folder, subfolders - PHANTOM_MAPS)
        for entry in entries:
            path, name = folder / entry.name, prefix + entry.name
            if entry.name.startswith("."):
                continue
            if entry.name == "contact_sheet.png" and "run.json" in names:
                found.ignored["contact sheet of generated slices"] += 1
                continue
            if entry.name not in subfolders:
                sort_in(found, path, name)
            elif entry.is_symlink():
                found.ignored["linked folder"] += 1
            else:
                folders.append((path, name + "/"))
    found.files.sort(key=lambda item: natural(item[0]))
    found.archives.sort(key=lambda item: natural(item[0]))
    found.refused.sort(key=lambda refused: natural(refused.name))
    return found


def is_folder(entry: os.DirEntry[str]) -> bool:
    """True for a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def sort_in(found: Walk, path: Path, name: str) -> None:
    """Puts one file where it belongs."""
    kind = suffix(name)
    if is_archive(name):
        keep_regular(found, path, name, found.archives)
    elif is_image(kind) or is_dicom(path):
        keep_regular(found, path, name)
    else:
        found.ignored[kind_told(name)] += 1


def is_dicom(path: Path) -> bool:
    """By the mark at byte 128 (PS3.10 7.1), whatever the name; False for what cannot be opened."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_image(kind: str) -> bool:
    """Whether files with this extension are tried."""
    return not kind or kind in IMAGE_SUFFIXES or kind in VOLUME_SUFFIXES


def is_archive(name: str) -> bool:
    """Whether `archives` opens a file of this name: of other `.gz` files nothing is expected."""
    kind = suffix(name)
    if kind == ".gz":
        return is_image(suffix(name[: -len(kind)]))
    return kind in ARCHIVE_SUFFIXES or kind == DICOMDIR


def refuse_phantom(folder: Path, contrasts: set[str]) -> None:
    named = " or ".join(str(folder / name) for name in sorted(contrasts)) or "one contrast"
    raise UsageError(
        f"{folder}: the output of `fastmrigan phantom`, with tissue maps and masks beside the "
        f"slices; prepare one contrast of it: {named}"
    )


def keep_regular(
    found: Walk,
    path: Path,
    name: str,
    kept: list[tuple[str, Path]] | None = None,
    absent: str | None = None,
) -> None:
    """Adds a regular file to `kept` (by default found.files), or refuses what it is instead.

    absent: what to say where there is no such file, and the name comes from no folder.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        found.refused.append(Refused(name, why_closed(path, error, absent)))
        return
    if stat.S_ISREG(mode):
        (found.files if kept is None else kept).append((name, path))
    else:  # opening a pipe would wait for ever
        found.refused.append(Refused(name, "not a regular file"))


def why_closed(path: Path, error: OSError, absent: str | None = None) -> str:
    """Why a file cannot be looked at."""
    if os.path.islink(path):  # noqa: PTH114 (is_symlink raises for a name that is too long)
        return f"a link that leads nowhere ({error.strerror})"
    if absent is not None and isinstance(error, FileNotFoundError | NotADirectoryError):
        return absent
    return f"cannot be read ({error.strerror})"


def suffix(name: str) -> str:
    """The extension that tells a file's kind, in lower case; "" for none, or for a number."""
    base = name.rsplit("/", 1)[-1].lower()
    if base == DICOMDIR:
        return DICOMDIR
    for compound in COMPOUND_SUFFIXES:
        if base.endswith(compound):
            return compound
    tail = PurePosixPath(base).suffix
    return "" if re.fullmatch(r"\.\d*", tail) else tail


def kind_told(name: str) -> str:
    """What is said of a file that is passed over: a known extension, and of others nothing.

    What follows the dot may be a word of the name, and a person's: "scan.smith".
    """
    kind = suffix(name)
    if not kind:
        return "without extension"
    known = kind == DICOMDIR or kind in IMAGE_SUFFIXES | ARCHIVE_SUFFIXES | OTHER_SUFFIXES
    return kind if known or kind in VOLUME_SUFFIXES else "other"


def stem(name: str) -> str:
    """The relative name without its extension: what registered twins share."""
    return name[: len(name) - len(suffix(name))]


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key that puts "slice 2" before "slice 10"."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def printable(name: str) -> str:
    """A file name made safe for one line of a terminal or a log."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
