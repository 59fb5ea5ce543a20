"""Which files the directory of a DICOM medium names (PS3.3 F, PS3.10 8)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from fastmrigan.imaging.walker import Refused, printable

if TYPE_CHECKING:
    from pydicom import Dataset


def dicomdir_files(path: Path) -> list[Path]:
    """The image files that a DICOMDIR names (PS3.3 F.3), in its order, whether they exist or not.

    Names are found whatever their case, as media are written in capitals and mounted otherwise.
    Raises Refused, by its file name, for a DICOMDIR that is broken or names a file outside its
    folder, and MissingDependency where pydicom is absent.
    """
    from fastmrigan.imaging.dicom.bounded import open_bounded, plain_reasons

    try:
        with plain_reasons():
            records = open_bounded(path).get("DirectoryRecordSequence") or []
            named = [record.get("ReferencedFileID") for record in records if is_picture(record)]
    except (ValueError, MemoryError) as error:
        raise Refused(path.name, printable(" ".join(str(error).split()))) from error
    listings: dict[Path, dict[str, str]] = {}
    files = []
    for parts in named:
        components = [parts] if isinstance(parts, str) else list(parts or ())
        if not components:
            continue
        if any(part in ("", ".", "..") or re.search(r"[/\\\0]", part) for part in components):
            raise Refused(path.name, f"names a file outside its folder: {shown(components)}")
        file = path.parent
        try:
            for part in components:
                file /= spelled(file, part, listings)
            inside = file.resolve().is_relative_to(path.parent.resolve())
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, links in a circle
            raise Refused(path.name, f"names what is no file: {shown(components)}") from error
        if not inside:
            raise Refused(path.name, f"names a link out of its folder: {shown(components)}")
        files.append(file)
    return files


def shown(components: list[str]) -> str:
    return printable("/".join(components))[:160]


def is_picture(record: Dataset) -> bool:
    """Whether a record of a DICOMDIR is of an image rather than a patient, a report, a plan."""
    return bool(record.get("DirectoryRecordType") == "IMAGE")


def spelled(folder: Path, name: str, listings: dict[Path, dict[str, str]]) -> str:
    """How a folder itself writes `name`; `name` where it has no such entry."""
    if folder not in listings:
        try:
            listings[folder] = {entry.name.lower(): entry.name for entry in folder.iterdir()}
        except OSError:
            listings[folder] = {}
    return name if (folder / name).exists() else listings[folder].get(name.lower(), name)
