"""Shards: the fixed plan of a job, the bytes of a shard, and how it reaches the disk for good.

A job of `count` slices is cut into shards of `size` slices; shard k holds slices k * size up to
(k + 1) * size. A shard appears under its final name only once it is whole and on the disk, so the
final names in a folder are the manifest of what is done.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmrigan import NOTICE
from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.files import TMP, sync_folder, write_synced

Slices = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Shard:
    """Slices `first` .. `first + count - 1` of a job."""

    number: int
    first: int
    count: int

    def name(self, suffix: str) -> str:
        return f"shard-{self.number:06}{suffix}"


@dataclass(frozen=True)
class Plan:
    """How a job is cut up: fixed by count and shard size alone."""

    count: int
    shard_size: int

    def __len__(self) -> int:
        return -(-self.count // self.shard_size)

    def __iter__(self) -> Iterator[Shard]:
        for number in range(len(self)):
            first = number * self.shard_size
            yield Shard(number, first, min(self.shard_size, self.count - first))


@dataclass(frozen=True)
class Sources:
    """What a job translates: entry i is the input of slice i."""

    dataset: str  # fingerprint of the prepared dataset
    index: Sequence[int]  # [N], in that dataset
    source: Sequence[str]  # [N], the hash that index.jsonl keeps of each source's name


@dataclass(frozen=True)
class Origin:
    """What every slice of a job is labelled with: a seed where it is sampled, or its source."""

    seed: int | None
    model_sha256: str
    sources: Sources | None = None

    def record(self, index: int) -> dict[str, object]:
        """The label of slice `index`, without None."""
        labels = {
            "index": index,
            "model_sha256": self.model_sha256,
            "notice": NOTICE,
            "seed": self.seed,
            "synthetic": True,
        }
        if self.sources is not None:
            labels |= {
                "dataset": self.sources.dataset,
                "source": self.sources.source[index],
                "source_index": self.sources.index[index],
            }
        return {name: value for name, value in labels.items() if value is not None}

    def arrays(self, shard: Shard) -> dict[str, Any]:
        """The same for a whole shard: scalars, and [shard.count] where slices differ."""
        part = slice(shard.first, shard.first + shard.count)
        labels: dict[str, Any] = {"index": np.arange(part.start, part.stop)}
        if self.seed is not None:
            labels["seed"] = np.uint64(self.seed)
        labels |= {"model_sha256": np.str_(self.model_sha256), "notice": np.str_(NOTICE)}
        if self.sources is not None:
            labels |= {
                "dataset": np.str_(self.sources.dataset),
                "source": np.array(self.sources.source[part]),
                "source_index": np.array(self.sources.index[part], np.int64),
            }
        return labels


def pack_tar(shard: Shard, slices: Slices, origin: Origin) -> bytes:
    """A WebDataset-compatible tar: <index>.npy ([H, W]) and <index>.json for each slice.

    slices: uint8 or uint16 [shard.count, H, W], C order. The bytes depend on the arguments alone
    (zero mtimes, no owner).
    """
    buffer = io.BytesIO()
    npy_header = _npy_header(slices)
    for offset in range(shard.count):
        index = shard.first + offset
        note = json.dumps(origin.record(index), sort_keys=True).encode()
        _add(buffer, f"{index:09}.json", note)
        _add(buffer, f"{index:09}.npy", npy_header + slices[offset].tobytes())
    buffer.write(bytes(2 * tarfile.BLOCKSIZE))
    return buffer.getvalue()


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


def _add(buffer: io.BytesIO, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    buffer.write(info.tobuf(tarfile.USTAR_FORMAT))
    buffer.write(content)
    buffer.write(bytes(-len(content) % tarfile.BLOCKSIZE))


def write_tar(path: Path, shard: Shard, slices: Slices, origin: Origin) -> None:
    write_synced(path, pack_tar(shard, slices, origin))


def write_npz(path: Path, shard: Shard, slices: Slices, origin: Origin) -> None:
    """One .npz: slices [n, H, W], index int64 [n], and what else `Origin` says."""
    buffer = io.BytesIO()
    np.savez(buffer, slices=slices, **origin.arrays(shard))
    write_synced(path, buffer.getvalue())


def write_png(path: Path, shard: Shard, slices: Slices, origin: Origin) -> None:
    """A folder of <index>.png, greyscale of the slices' own depth, labelled in a text chunk."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    path.mkdir()
    for offset in range(shard.count):
        index = shard.first + offset
        label = PngInfo()
        label.add_text("fastmrigan", json.dumps(origin.record(index), sort_keys=True))
        buffer = io.BytesIO()
        Image.fromarray(slices[offset]).save(buffer, "png", pnginfo=label)
        write_synced(path / f"{index:09}.png", buffer.getvalue())
    sync_folder(path)


@dataclass(frozen=True)
class Format:
    """An output format: what its shards end in, and who writes one to a temporary path."""

    suffix: str
    write: Callable[[Path, Shard, Slices, Origin], None]


FORMATS = {
    "shard": Format(".tar", write_tar),
    "npz": Format(".npz", write_npz),
    "png": Format("", write_png),
}


def commit(folder: Path, fmt: Format, shard: Shard, slices: Slices, origin: Origin) -> None:
    """Puts a shard on the disk for good: written and fsynced aside, renamed, its folder fsynced."""
    final = folder / shard.name(fmt.suffix)
    aside = final.with_name(final.name + TMP)  # one writer a folder: the next one clears it up
    remove(aside)
    try:
        fmt.write(aside, shard, slices, origin)
    except OSError:
        remove(aside)  # a full disk needs its space back
        raise
    os.replace(aside, final)
    sync_folder(folder)


def remove(path: Path) -> None:
    """Removes a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


DAMAGE = (tarfile.TarError, zipfile.BadZipFile, ValueError, EOFError, KeyError, OSError)


def read_slices(folder: str | Path) -> Iterator[tuple[int, Slices]]:
    """Every slice of a finished job: (index, uint8 or uint16 [H, W]), by index, none left out.

    Raises UsageError where the folder holds no shard or lacks some, InputRejected where a shard is
    damaged.
    """
    folder = Path(folder)
    expected = 0
    for index, x in _read_all(folder):
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
    count = _planned(folder)
    if count is not None and expected != count:
        raise UsageError(
            f"{folder}: holds {expected:,} of {count:,} slices; finish the job: the command that "
            "began it goes on from there"
        )


def _planned(folder: Path) -> int | None:
    """How many slices run.json promises; None without one."""
    path = folder / "run.json"
    try:
        return int(json.loads(path.read_text())["count"]) if path.exists() else None
    except (ValueError, TypeError, KeyError) as error:
        raise InputRejected(f"{path}: not a job's run.json ({error!r}); make it again") from error


def _read_all(folder: Path) -> Iterator[tuple[int, Slices]]:
    shards = sorted(p for p in folder.glob("shard-*") if p.suffix in (".tar", ".npz", ""))
    if not shards:
        raise UsageError(f"{folder}: holds no shards; make some with `fastmrigan synth`")
    for path in shards:
        reader = {".tar": _read_tar, ".npz": _read_npz, "": _read_png}[path.suffix]
        try:
            yield from reader(path)
        except DAMAGE as error:
            raise InputRejected(f"{path}: not a whole shard ({error}); make it again") from error


def _read_tar(path: Path) -> Iterator[tuple[int, Slices]]:
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.endswith(".npy"):
                file = tar.extractfile(member)
                if file is None:
                    raise ValueError(f"{member.name} is not a file")
                content = io.BytesIO(file.read())
                yield int(member.name[:-4]), np.load(content, allow_pickle=False)


def _read_npz(path: Path) -> Iterator[tuple[int, Slices]]:
    # The file is opened here, because np.load leaves it open when the archive is damaged.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        yield from zip(arrays["index"].tolist(), arrays["slices"], strict=True)


def _read_png(path: Path) -> Iterator[tuple[int, Slices]]:
    from PIL import Image

    for file in sorted(path.glob("*.png")):
        with Image.open(file) as image:
            yield int(file.stem), np.asarray(image)
