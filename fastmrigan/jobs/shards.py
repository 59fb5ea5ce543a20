"""Shards on the disk: how one gets there for good, and how they are read again.

A job of `count` slices is cut into shards of `size` slices; shard k holds slices k * size up to
(k + 1) * size (`plan`); `formats` makes their bytes. A shard appears under its final name only once
it is whole and on the disk, so the final names in a folder are the manifest of what is done.
"""

from __future__ import annotations

import errno
import io
import json
import os
import secrets
import shutil
import tarfile
import zipfile
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastmrigan.errors import DiskFull, InputRejected, MissingDependency, UsageError
from fastmrigan.files import TMP, sync_folder
from fastmrigan.imaging.walker import natural
from fastmrigan.jobs import receipts
from fastmrigan.jobs.formats import FORMATS, Format
from fastmrigan.jobs.plan import Content, Origin, Plan, Shard, Slices, Sources
from fastmrigan.progress import counted

if TYPE_CHECKING:
    from pydicom import FileDataset

__all__ = [
    "FORMATS",
    "Content",
    "Format",
    "Origin",
    "Plan",
    "Shard",
    "Slices",
    "Sources",
    "commit",
    "in_order",
    "own_dicom",
    "read_slices",
    "remove",
]


def commit(folder: Path, fmt: Format, content: Content, origin: Origin) -> None:
    """Puts a shard on the disk for good: written and fsynced aside, renamed, its folder fsynced.

    Its receipt is on the disk before it takes its name, so that every shard that has one has both.
    A shard of an `entire` format that lacks slices has a receipt alone, without files.
    """
    final = folder / fmt.name(content.shard)
    if fmt.entire and len(content.indices) < content.shard.count:
        receipts.write(folder, final.name, {}, content)
        return
    # Nobody else's name, be it on another machine: where a process is held for dead and its shard
    # made again, both may write it. The next run clears up what is left.
    aside = final.with_name(f"{final.name}.{secrets.token_hex(8)}{TMP}")
    try:
        digests = fmt.write(aside, content, origin)
        receipts.write(folder, final.name, digests, content)
        _take_name(aside, final)
    except (OSError, DiskFull):
        with suppress(OSError):  # of a disk that takes nothing any more: the first error is told
            remove(aside)  # a full disk needs its space back
        raise
    sync_folder(folder)


def _take_name(aside: Path, final: Path) -> None:
    try:
        os.replace(aside, final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        remove(aside)  # a folder is not replaced: it is there already, of the same bytes


def remove(path: Path) -> None:
    """Removes a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


DAMAGE = (tarfile.TarError, zipfile.BadZipFile, ValueError, EOFError, KeyError, OSError)


def read_slices(folder: str | Path) -> Iterator[tuple[int, Slices]]:
    """Every slice of a finished job: (index, uint8 or uint16 [H, W]), by index; none is passed
    over but those that the job left out and says so (`receipts`).

    DICOM gives the stored values, at the source's size where slices were translated.
    Raises UsageError where the folder holds no shard or lacks some, or NIfTI volumes;
    InputRejected where a shard is damaged, MissingDependency for DICOM without pydicom.
    """
    folder = Path(folder)
    left_out = receipts.left_out(folder)
    expected = 0
    for index, x in _read_all(folder):
        while expected in left_out:
            expected += 1
        if index != expected:
            raise UsageError(
                f"{folder}: slice {expected:,} is missing; finish the job: the command that began "
                "it goes on from there"
            )
        if x.ndim != 2 or x.dtype not in (np.uint8, np.uint16):
            raise InputRejected(
                f"{folder}: slice {index} is {x.dtype} {list(x.shape)}, not uint8 or uint16 "
                "[H, W]; make its shard again"
            )
        yield index, x
        expected += 1
    while expected in left_out:
        expected += 1
    count = _planned(folder)
    if count is not None and expected != count:
        raise UsageError(
            f"{folder}: holds {expected:,} of {counted(count, 'slice')}; finish the job: the "
            "command that began it goes on from there"
        )


def _planned(folder: Path) -> int | None:
    """How many slices run.json promises; None without one."""
    path = folder / "run.json"
    try:
        return int(json.loads(path.read_text())["count"]) if path.exists() else None
    except (ValueError, TypeError, KeyError) as error:
        raise InputRejected(f"{path}: not a job's run.json ({error!r}); make it again") from error


def _read_all(folder: Path) -> Iterator[tuple[int, Slices]]:
    shards = in_order(p for p in folder.glob("shard-*") if p.suffix in (".tar", ".npz", ""))
    if not shards:
        if any(folder.glob("series-*.nii.gz")):
            raise UsageError(
                f"{folder}: holds NIfTI volumes, in units of their sources; translate again with "
                "--format shard, png, npz or dicom"
            )
        raise UsageError(f"{folder}: holds no shards; make some with `fastmrigan synth`")
    for path in shards:
        yield from read_shard(path)


def read_shard(path: Path, wanted: Container[int] | None = None) -> Iterator[tuple[int, Slices]]:
    """The slices of one shard, (index, [H, W]), in its order; where `wanted` is given, those alone,
    and little is read of the others. No NIfTI volume. Raises InputRejected where it is damaged."""
    reader = {".tar": _read_tar, ".npz": _read_npz, "": _read_folder}[path.suffix]
    try:
        yield from reader(path, wanted)
    except DAMAGE as error:
        raise InputRejected(f"{path}: not a whole shard ({error}); make it again") from error


def _is(wanted: Container[int] | None, index: str) -> bool:
    return wanted is None or int(index) in wanted


def in_order(paths: Iterable[Path]) -> list[Path]:
    """By the numbers in their names, however many digits those have."""
    return sorted(paths, key=lambda path: natural(path.name))


def _read_tar(path: Path, wanted: Container[int] | None) -> Iterator[tuple[int, Slices]]:
    with tarfile.open(path) as tar:
        for member in tar:
            stem, _, extension = member.name.rpartition(".")
            if extension not in ("npy", "dcm") or not _is(wanted, stem):
                continue
            file = tar.extractfile(member)
            if file is None:
                raise ValueError(f"{member.name} is not a file")
            content = io.BytesIO(file.read())
            if extension == "npy":
                yield int(stem), np.load(content, allow_pickle=False)
            else:
                yield int(stem), _stored(content)


def _read_npz(path: Path, wanted: Container[int] | None) -> Iterator[tuple[int, Slices]]:
    # The file is opened here, because np.load leaves it open when the archive is damaged.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        for index, x in zip(arrays["index"].tolist(), arrays["slices"], strict=True):
            if wanted is None or index in wanted:
                yield index, x


def _read_folder(path: Path, wanted: Container[int] | None) -> Iterator[tuple[int, Slices]]:
    from PIL import Image

    for file in in_order(path.iterdir()):
        if file.suffix not in (".png", ".dcm") or not _is(wanted, file.stem):
            continue
        if file.suffix == ".png":
            with Image.open(file) as image:
                yield int(file.stem), np.asarray(image)
        else:
            yield int(file.stem), _stored(io.BytesIO(file.read_bytes()))


def own_dicom(content: io.BytesIO, *, pixels: bool = True) -> FileDataset:
    """One of our own DICOM files. Raises ValueError where it is none, and MissingDependency."""
    try:
        import pydicom
    except ModuleNotFoundError as error:
        raise MissingDependency("pydicom", "dicom", "reading DICOM") from error
    from fastmrigan.imaging.dicom.bounded import plain_reasons

    with plain_reasons():
        return pydicom.dcmread(content, stop_before_pixels=not pixels)


def _stored(content: io.BytesIO) -> Slices:
    """The stored values of one of our own DICOM files, [H, W]."""
    from fastmrigan.imaging.dicom.bounded import plain_reasons

    with plain_reasons():
        stored: Slices = own_dicom(content).pixel_array
    return stored
