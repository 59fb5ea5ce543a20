"""DICOM out: files a second a core, against pydicom file by file and against the disk.

    OMP_NUM_THREADS=1 python benchmarks/dicom_out.py [--folder DIR] [--rounds 9] [--quick]

Checks first that the spliced files are those that pydicom writes, and that pydicom reads the pixels
back. Then 256 slices of 256x256 at 16 bits; in turn, where no disk is waited for:

    encode           a shard's bytes, .dcm and .json in a tar
    pydicom          the same files, each data set changed and written by pydicom
    shard, memory    a whole shard in /dev/shm, by one thread: what a core does

and then, in turn again, on the disk:

    shard            the shard on the disk: written, fsynced, renamed, its folder fsynced
    disk, shard      the same bytes written and fsynced, and nothing else
    files            the folder on the disk: every file fsynced, renamed, its folder fsynced
    disk, files      the same files written and fsynced one after the other, and nothing else

Prints median and best files/s of each side. Exits 6 under a bar: 3,000 files/s a core into shards,
held in memory, and on the disk where that alone would have allowed it; 500 files/s fsynced a file.
"""

from __future__ import annotations

import argparse
import io
import itertools
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from json_file import add_json_option, write_json
from timing import interleave

from fastmrigan.imaging.emit.dicom import SeriesWriter, SliceHeader, file_bytes
from fastmrigan.imaging.emit.header import SeriesHeader
from fastmrigan.imaging.emit.places import invented
from fastmrigan.jobs.formats import FORMATS, tar_parts
from fastmrigan.jobs.formats_dicom import dicom_files
from fastmrigan.jobs.plan import Content, Origin, Shard
from fastmrigan.jobs.shards import commit
from fastmrigan.runtime.machine import machine

SIDE = 256
BARS = {"shard": 3000.0, "shard, memory": 3000.0, "files": 500.0}  # files/s
MEMORY = Path("/dev/shm")  # a file system without a disk
ORIGIN = Origin(7, "ab" * 32, recipe="benchmark", contrast="t2", run="benchmark")


def check(slices: np.ndarray) -> None:
    import pydicom

    header = SeriesHeader(
        run="a",
        series="b",
        patient="c",
        number=1,
        size=(SIDE, SIDE),
        geometry=replace(invented((SIDE, SIDE), 0), origin=(0.0, 0.0, 0.0)),
        model="benchmark",
        model_sha256="ab" * 32,
        contrast="t2",
        derivation="none",
    )
    writer = SeriesWriter(header)
    for number, stored in enumerate(slices[:4], start=1):
        slice = SliceHeader(number, number, invented((SIDE, SIDE), number).origin)
        content = writer.encode(slice, stored)
        assert content == file_bytes(writer.dataset(slice, stored)), "not what pydicom writes"
        read = pydicom.dcmread(io.BytesIO(content)).pixel_array
        np.testing.assert_array_equal(read, stored)


def encoded(slices: np.ndarray) -> int:
    """Bytes of the shard, all made."""
    files = dicom_files(Content.whole(Shard(0, 0, len(slices)), slices), ORIGIN)
    return sum(len(part) for part in tar_parts(files, ".dcm", ORIGIN))


def by_pydicom(slices: np.ndarray) -> int:
    """Every file by pydicom: one data set, whose differing elements are set anew."""
    import pydicom
    from pydicom.uid import generate_uid

    (_, first), *_ = dicom_files(Content.whole(Shard(0, 0, 1), slices[:1]), ORIGIN)
    data = pydicom.dcmread(io.BytesIO(b"".join(first)))
    total = 0
    for number, stored in enumerate(slices):
        data.SOPInstanceUID = generate_uid()
        data.InstanceNumber = number + 1
        data.ImagePositionPatient = list(invented((SIDE, SIDE), number).origin)
        data.SliceLocation = 5.0 * number
        data.PixelData = stored.tobytes()
        total += len(file_bytes(data))
    return total


def fsynced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def names(folder: Path) -> Iterator[Path]:
    """Never used before: what is removed is paid for by whoever writes next, so all of it stays
    until the end."""
    return (folder / str(number) for number in itertools.count())


def shard_in(own: Path, fmt: str, content: Content) -> None:
    own.mkdir()
    commit(own, FORMATS[fmt], content, ORIGIN)


def in_memory(folder: Path, slices: np.ndarray) -> dict[str, Callable[[], object]]:
    content = Content.whole(Shard(0, 0, len(slices)), slices)

    def shard() -> None:
        shard_in(folder / "shard", "dicom", content)
        shutil.rmtree(folder / "shard")  # memory that was never touched before is slow to get

    return {
        "encode": lambda: encoded(slices),
        "pydicom": lambda: by_pydicom(slices),
        "shard, memory": shard,
    }


def on_disk(folder: Path, slices: np.ndarray) -> dict[str, Callable[[], object]]:
    content, fresh = Content.whole(Shard(0, 0, len(slices)), slices), names(folder)
    tar = b"".join(tar_parts(dicom_files(content, ORIGIN), ".dcm", ORIGIN))
    files = [b"".join(file) for _, file in dicom_files(content, ORIGIN)]

    def plain_files() -> None:
        plain = next(fresh)
        plain.mkdir()
        for number, content in enumerate(files):
            fsynced(plain / f"{number:09}.dcm", content)

    return {
        "shard": lambda: shard_in(next(fresh), "dicom", content),
        "disk, shard": lambda: fsynced(next(fresh), tar),
        "files": lambda: shard_in(next(fresh), "dicom-files", content),
        "disk, files": plain_files,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, help="a disk to write to; default: the temporary folder"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="16 slices: to see that it works")
    add_json_option(parser)
    options = parser.parse_args()

    count = 16 if options.quick else 256
    slices = np.random.default_rng(0).integers(0, 65536, (count, SIDE, SIDE), np.uint16)
    check(slices)
    budget = 1.0 if options.quick else 600.0
    seconds: dict[str, list[float]] = {}
    # Apart: while the system writes to a disk, all else takes longer
    for at, here in ((MEMORY, in_memory), (options.folder, on_disk)):
        with tempfile.TemporaryDirectory(dir=at) as folder:
            seconds |= interleave(here(Path(folder), slices), options.rounds, budget=budget)
    rates = {name: [count / s for s in times] for name, times in seconds.items()}
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    size = encoded(slices) / count
    print(f"{count} files of {SIDE}x{SIDE} at 16 bits ({size / 1024:.0f} KiB each), one process")
    missed = []
    for name, values in rates.items():
        rate = f"{medians[name]:10,.0f} files/s (best {max(values):,.0f})"
        print(f"  {name:13} {rate}, {medians[name] * size / 2**20:,.0f} MiB/s")
    print(f"  {medians['encode'] / medians['pydicom']:.1f} times pydicom file by file")
    for name, bar in BARS.items():
        disk = medians.get(f"disk, {name}", math.inf)
        share = f"; {100 * medians[name] / disk:.0f} % of the disk's own {disk:,.0f}"
        share = share if math.isfinite(disk) else ""
        if medians[name] >= bar:
            verdict = "reached"
        elif disk < bar:
            verdict = "out of this disk's reach"
        else:
            verdict = "missed"
            missed.append(name)
        print(f"  {name}: {medians[name]:,.0f} files/s, bar {bar:,.0f}: {verdict}{share}")
    write_json(options.json, {"machine": machine(), "files_per_second": rates, "bars": BARS})
    return 6 if missed and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
