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
PHANTOM_MAPS = frozenset(("tissue", "tumour_mask"))  # folders beside a phantom's contrasts


class Refused(InputRejected):
    """One file that cannot be used: its name and the reason, which make up the message."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{printable(name)}: {reason}")
        self.name, self.reason = name, reason


@dataclass
class Walk:
    """What a walk found; names are relative to its root, with forward slashes."""

    files: list[tuple[str, Path]] = field(default_factory=list)  # to be read, in natural order
    refused: list[Refused] = field(default_factory=list)  # dead links, pipes, closed folders
    ignored: Counter[str] = field(default_factory=Counter)  # by extension: not images


def walk(root: Path) -> Walk:
    """All image files under a folder (or the one file `root` is), in natural order of name.

    Tried are the extensions of known image formats and files without one (DICOM often has none,
    or ends in a number of its UID); other files are counted. Hidden files and folders are skipped,
    and so are prepared data sets, whose contact sheets are no slices. Links to files are followed,
    links to folders are not, so that no loop is ever walked. Raises UsageError for the whole output
    of `fastmrigan phantom`, whose maps and masks are no slices either.
    """
    found = Walk()
    if not root.is_dir():
        keep_regular(found, root, root.name)
        return found

    def closed(error: OSError) -> None:
        name = Path(error.filename).relative_to(root).as_posix()
        found.refused.append(Refused(name, f"a folder that cannot be read ({error.strerror})"))

    for folder, subfolders, names in os.walk(root, onerror=closed):
        here = Path(folder)
        if {"dataset.json", "slices.npy"} <= set(names):
            found.ignored["prepared data set"] += 1
            subfolders.clear()
            continue
        if "phantom.json" in names and PHANTOM_MAPS & set(subfolders):
            refuse_phantom(here, set(subfolders) - PHANTOM_MAPS)
        for name in list(subfolders):
            if name.startswith("."):
                subfolders.remove(name)
            elif (here / name).is_symlink():
                found.ignored["linked folder"] += 1
        for name in names:
            kind = suffix(name)
            if name.startswith("."):
                continue
            if kind and kind not in IMAGE_SUFFIXES and kind not in VOLUME_SUFFIXES:
                found.ignored[kind] += 1
            else:
                keep_regular(found, here / name, (here / name).relative_to(root).as_posix())
    found.files.sort(key=lambda item: natural(item[0]))
    found.refused.sort(key=lambda refused: natural(refused.name))
    return found


def refuse_phantom(folder: Path, contrasts: set[str]) -> None:
    named = " or ".join(str(folder / name) for name in sorted(contrasts)) or "one contrast"
    raise UsageError(
        f"{folder}: the output of `fastmrigan phantom`, with tissue maps and masks beside the "
        f"slices; prepare one contrast of it: {named}"
    )


def keep_regular(found: Walk, path: Path, name: str) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        found.refused.append(Refused(name, f"a link that leads nowhere ({error.strerror})"))
        return
    if stat.S_ISREG(mode):
        found.files.append((name, path))
    else:  # opening a pipe would wait for ever
        found.refused.append(Refused(name, "not a regular file"))


def suffix(name: str) -> str:
    """The extension that tells a file's kind, in lower case; "" for none, or for a number."""
    base = name.rsplit("/", 1)[-1].lower()
    if base == "dicomdir":
        return "dicomdir"
    for volume in reversed(VOLUME_SUFFIXES):
        if base.endswith(volume):
            return volume
    tail = PurePosixPath(base).suffix
    return "" if re.fullmatch(r"\.\d*", tail) else tail


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
