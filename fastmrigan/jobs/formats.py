"""The output formats of a job: what a shard of each is called and how its bytes are made."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastmrigan.errors import MissingDependency
from fastmrigan.files import sync_folder, write_synced
from fastmrigan.jobs.formats_dicom import dicom_files
from fastmrigan.jobs.formats_nifti import series_volume
from fastmrigan.jobs.plan import Content, Origin, Part, Parts, Shard, Slices

# sha256 of each file that a shard consists of, under what follows the shard's name: "" of a file,
# /NAME of one in a folder
Digests = dict[str, str]
LARGE, BLOCK, AHEAD = 1 << 16, 1 << 20, 1 << 23  # bytes


def tar_parts(files: Iterable[tuple[int, Parts]], extension: str, origin: Origin) -> Iterator[Part]:
    """The bytes, in pieces, of a WebDataset-compatible tar: <index>.json and <index><extension>.

    files: (index, content in parts) of each slice. The bytes depend on the arguments alone (zero
    mtimes, no owner).
    """
    encode = json.JSONEncoder(sort_keys=True).encode
    for index, content in files:
        note = encode(origin.record(index)).encode()
        yield from _member(f"{index:09}.json", note)
        yield from _member(f"{index:09}{extension}", *content)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(name: str, *content: Part) -> tuple[Part, ...]:
    size = sum(map(len, content))
    before, after, total = _member_header(size)
    named = name.encode("ascii")
    header = b"%s%s%06o%s" % (named.ljust(100, b"\0"), before, total + sum(named), after)
    return header, *content, bytes(-size % tarfile.BLOCKSIZE)


@functools.lru_cache(maxsize=64)
def _member_header(size: int) -> tuple[bytes, bytes, int]:
    """The header of a nameless member of `size` bytes: what stands between name and checksum, what
    behind the checksum's digits, and their sum, to which the name's own bytes are added.

    tarfile takes 14 microseconds a header, and two of them a slice were a fifth of a fast job.
    """
    info = tarfile.TarInfo()
    info.size = size
    header = info.tobuf(tarfile.USTAR_FORMAT)
    checksum = slice(148, 154)  # six octal digits over the whole header
    return header[100 : checksum.start], header[checksum.stop :], int(header[checksum], 8)


def _npy_header(slices: Slices) -> bytes:
    empty = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        empty,
        {
            "descr": np.lib.format.dtype_to_descr(slices.dtype),
            "fortran_order": False,
            "shape": slices.shape[1:],
        },
    )
    return empty.getvalue()


def _write_parts(path: Path, parts: Iterable[Part]) -> Digests:
    """Writes a file piece by piece, never whole in memory, and waits until it is on the disk."""
    digest = hashlib.sha256()
    written = told = 0
    with path.open("wb") as file:  # buffered: a bare write may end early on a full disk, unsaid
        for block in _blocks(parts):
            digest.update(block)
            file.write(block)
            written += len(block)
            if written - told >= AHEAD:  # the disk works while the rest is made
                _begin_to_write(file.fileno())
                told = written
        file.flush()
        os.fsync(file.fileno())
    return {"": digest.hexdigest()}


def _blocks(parts: Iterable[Part]) -> Iterator[Part]:
    """The same bytes in larger pieces: a system call a part took a third of the time, and a copy of
    a part that is large itself a tenth."""
    waiting, size = list[Part](), 0
    for part in parts:
        if len(part) >= LARGE:
            yield b"".join(waiting)
            yield part
            waiting, size = [], 0
            continue
        waiting.append(part)
        size += len(part)
        if size >= BLOCK:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _write_one(path: Path, content: bytes) -> Digests:
    write_synced(path, content)
    return {"": hashlib.sha256(content).hexdigest()}


def _write_folder(path: Path, files: Iterable[tuple[str, bytes]]) -> Digests:
    """A folder of files by name, each on the disk once this returns.

    All are written and the system is told to begin before the first is waited for: to wait for each
    before the next one is written took several times as long.
    """
    path.mkdir()
    digests: Digests = {}
    for name, content in files:
        (path / name).write_bytes(content)
        digests[f"/{name}"] = hashlib.sha256(content).hexdigest()
    for wait in (_begin_to_write, os.fsync):
        for name in digests:
            with (path / name[1:]).open("rb") as opened:
                wait(opened.fileno())
    sync_folder(path)
    return digests


def _begin_to_write(descriptor: int) -> None:
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def write_tar(path: Path, content: Content, origin: Origin) -> Digests:
    """A tar of <index>.npy, each [H, W] in C order, and <index>.json."""
    header = _npy_header(content.slices)
    arrays = (
        (index, (header, x.tobytes()))
        for index, x in zip(content.indices, content.slices, strict=True)
    )
    return _write_parts(path, tar_parts(arrays, ".npy", origin))


def write_npz(path: Path, content: Content, origin: Origin) -> Digests:
    """One .npz: slices [n, H, W], index int64 [n], and what else `Origin` says."""
    buffer = io.BytesIO()
    np.savez(buffer, slices=content.slices, **origin.arrays(content.indices))
    return _write_one(path, buffer.getvalue())


def write_png(path: Path, content: Content, origin: Origin) -> Digests:
    """A folder of <index>.png, greyscale of the slices' own depth, labelled in a text chunk."""
    return _write_folder(path, _png_files(content, origin))


def _png_files(content: Content, origin: Origin) -> Iterator[tuple[str, bytes]]:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    for index, x in zip(content.indices, content.slices, strict=True):
        label = PngInfo()
        label.add_text("fastmrigan", json.dumps(origin.record(index), sort_keys=True))
        buffer = io.BytesIO()
        Image.fromarray(x).save(buffer, "png", pnginfo=label)
        yield f"{index:09}.png", buffer.getvalue()


def write_dicom(path: Path, content: Content, origin: Origin) -> Digests:
    """The same of <index>.dcm; uint16 slices alone."""
    return _write_parts(path, tar_parts(dicom_files(content, origin), ".dcm", origin))


def write_dicom_files(path: Path, content: Content, origin: Origin) -> Digests:
    """A folder of <index>.dcm."""
    files = dicom_files(content, origin)
    return _write_folder(path, ((f"{index:09}.dcm", b"".join(file)) for index, file in files))


def write_nifti(path: Path, content: Content, origin: Origin) -> Digests:
    return _write_one(path, series_volume(content, origin))


@dataclass(frozen=True)
class Format:
    """An output format: what its shards are called, and who writes one to a temporary path."""

    suffix: str
    write: Callable[[Path, Content, Origin], Digests]
    stem: str = "shard"
    dtypes: tuple[str, ...] = ("uint8", "uint16")  # of the pixels; the first is the default
    package: str | None = None  # what must be installed (extra: dicom)
    entire: bool = False  # a shard that lacks a slice is not written at all

    def name(self, shard: Shard) -> str:
        """Of a finished shard, in the job's folder."""
        return shard.name(self.suffix, self.stem)

    def check(self) -> None:
        """Raises MissingDependency where a package is absent."""
        if self.package is not None and importlib.util.find_spec(self.package) is None:
            kind = "NIfTI" if self.package == "nibabel" else "DICOM"
            raise MissingDependency(self.package, "dicom", f"writing {kind}")


WHOLE = ("uint16",)  # MR Image Storage allows 16 bits alone; 8 would lose a source's grey levels
FORMATS = {
    "shard": Format(".tar", write_tar),
    "npz": Format(".npz", write_npz),
    "png": Format("", write_png),
    "dicom": Format(".tar", write_dicom, dtypes=WHOLE, package="pydicom"),
    "dicom-files": Format("", write_dicom_files, dtypes=WHOLE, package="pydicom"),
    "nifti": Format(
        ".nii.gz", write_nifti, stem="series", dtypes=WHOLE, package="nibabel", entire=True
    ),
}
