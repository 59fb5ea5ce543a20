"""What a job will need on the disk, held against what is free there before it begins.

The writers are asked: a few slices of noise go through them into a temporary folder, and what lies
there is multiplied out. Noise is the upper bound of the formats that compress (PNG, NIfTI); the
others need the same for every slice, but for the digits of its numbers, and the largest counts.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np

from fastmrigan.errors import DiskFull
from fastmrigan.jobs import receipts
from fastmrigan.jobs.formats import FORMATS
from fastmrigan.jobs.formats_nifti import stack_of
from fastmrigan.jobs.job import Work
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.plan import Content, Origin, Shard, Slices
from fastmrigan.jobs.shards import commit
from fastmrigan.progress import counted

COMPRESSED = ("png", "nifti")  # for these a need is what noise would take
PILOTS = 12  # slices measured, over all sizes of source slices
VOLUMES = 4  # series measured, of each size of source slices
VOXEL_BYTES = 1 << 22  # of a measured series
SPARE = 0.01  # of a compressed volume: how far two noises may be apart
BLANK = 0.01  # of a voxel's bytes, where a volume has no slice
NAME_BYTES = 32  # of a file in its folder
RESERVE = 1 << 20  # bytes of a job beside its shards: run.json, log, status, page
UNITS = ("bytes", "KB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True)
class Need:
    """What shards and their receipts take."""

    bytes: int = 0  # content
    disk: int = 0  # in blocks of the file system
    files: int = 0  # folders too

    def __add__(self, other: Need) -> Need:
        return Need(self.bytes + other.bytes, self.disk + other.disk, self.files + other.files)

    def times(self, count: int) -> Need:
        return Need(self.bytes * count, self.disk * count, self.files * count)


@dataclass(frozen=True)
class Room:
    """What is free in a file system for this user."""

    device: int
    disk: int  # bytes
    files: int | None  # None where it does not count them
    block: int  # bytes


def room_of(out: Path) -> Room:
    """Of the file system that `out` lies in, or will."""
    at = out.absolute()
    while not at.exists():
        at = at.parent
    free = os.statvfs(at)
    block = free.f_frsize or 4096
    counted = free.f_favail if free.f_files else None
    return Room(at.stat().st_dev, free.f_bavail * block, counted, block)


def need_of(
    work: Work, output: Output, size: tuple[int, int], shards: Sequence[Shard], block: int = 4096
) -> Need:
    """What `shards` of the job's plan take, at most.

    size: [H, W] of the slices that the model makes. block: bytes, of the file system.
    """
    if not shards:
        return Need()
    origin = replace(work.origin, run="0" * 64)  # a hash, made of the engine too
    make = _Pilot(output, origin, size, block)
    return make.volumes(shards) if output.format == "nifti" else make.shards(shards)


def check(needs: Iterable[tuple[Path, Need]]) -> None:
    """Holds what jobs need (each with its folder) against what is free there.

    Jobs into one file system are added up. Raises DiskFull.
    """
    rooms: dict[int, Room] = {}
    wanted: dict[int, list[tuple[Path, Need]]] = {}
    for out, need in needs:
        if need.files:
            room = room_of(out)
            rooms[room.device] = room
            wanted.setdefault(room.device, []).append((out, need))
    for device, jobs in wanted.items():
        room, total = rooms[device], sum((need for _, need in jobs), Need())
        disk = total.disk + RESERVE * len(jobs)
        where = f"{jobs[0][0]}: "
        where += f"its {len(jobs)} jobs need " if len(jobs) > 1 else "the job needs "
        if disk > room.disk:
            raise DiskFull(
                f"{where}{amount(disk)} and {amount(room.disk)} are free there; free some or take "
                "another folder (--no-budget-check begins nevertheless, where the file system "
                "compresses)"
            )
        if room.files is not None and total.files > room.files:
            raise DiskFull(
                f"{where}{counted(total.files, 'file')} and {room.files:,} more can be made there; "
                "remove some, or take a format of fewer files (shard, dicom, npz)"
            )


def amount(size: int) -> str:
    """Bytes, as people say them: "12.3 GB"."""
    power = min(len(UNITS) - 1, int(math.log(max(size, 1), 1000)))
    return f"{size:,} bytes" if power == 0 else f"{size / 1000**power:,.1f} {UNITS[power]}"


@dataclass
class _Pilot:
    """Puts noise through the writers."""

    output: Output
    origin: Origin
    size: tuple[int, int]  # [H, W]
    block: int

    def shards(self, shards: Sequence[Shard]) -> Need:
        """Of formats in which a slice takes what it takes, whatever stands beside it."""
        apart = self.output.format in ("png", "dicom-files")  # a file a slice
        kinds = _by_source_size(self.origin, self.output.format, shards)
        empty, bare = self._written(Content(shards[-1], self._noise(0), []))
        each: dict[tuple[int, int], tuple[int, int]] = {}  # bytes of a slice, and in the receipt
        for kind, (places, _) in kinds.items():
            measured = [
                self._written(Content(shard, self._noise(1), [index])) for shard, index in places
            ]
            each[kind] = (
                max(content for content, _ in measured) - empty,
                max(receipt for _, receipt in measured) - bare,
            )
        counts = Counter(
            tuple(sorted((kind, held[n]) for kind, (_, held) in kinds.items() if held[n]))
            for n in range(len(shards))
        )
        total = Need()
        for held, times in counts.items():
            slices = sum(n for _, n in held)
            sizes = [empty + sum(each[kind][0] * n for kind, n in held)]
            if apart:
                sizes = [each[kind][0] for kind, n in held for _ in range(n)]
            folder = self._blocks(slices * NAME_BYTES) if apart else 0
            receipt = bare + sum(each[kind][1] * n for kind, n in held)
            total += Need(
                sum(sizes) + receipt,
                sum(map(self._blocks, sizes)) + folder + self._blocks(receipt),
                len(sizes) + apart + 1,
            ).times(times)
        return total

    def volumes(self, shards: Sequence[Shard]) -> Need:
        """Of NIfTI: a volume a series."""
        assert self.origin.sources is not None
        records = self.origin.sources.records
        by_size: dict[tuple[int, int], list[Shard]] = {}
        for shard in shards:
            by_size.setdefault(records[shard.first].source_size, []).append(shard)
        total = Need()
        for (height, width), series in by_size.items():
            plane = 4 * height * width  # bytes, float32
            base = slope = 0.0
            receipt = 0
            for shard in _spread(series, VOLUMES):
                count = min(shard.count, max(2, VOXEL_BYTES // plane))
                one, receipt = self._written(self._first(shard, 1))
                many = self._written(self._first(shard, count))[0]
                per_slice = (many - one) / (count - 1) if count > 1 else 0.0
                slope = max(slope, per_slice)
                base = max(base, one - per_slice, 0.0)
            for shard in series:
                held = [records[i] for i in range(shard.first, shard.first + shard.count)]
                blank = max(0, stack_of(held).count - shard.count)
                voxels = slope * shard.count + BLANK * plane * blank
                size = math.ceil((1 + SPARE) * (base + voxels))
                disk = self._blocks(size) + self._blocks(receipt)
                total += Need(size + receipt, disk, 2)
        return total

    def _first(self, shard: Shard, count: int) -> Content:
        return Content.whole(replace(shard, count=count), self._noise(count))

    def _noise(self, count: int) -> Slices:
        dice = np.random.default_rng(count)
        dtype = np.dtype(self.output.depth)
        noise: Slices = dice.integers(
            0, np.iinfo(dtype).max, (count, *self.size), dtype, endpoint=True
        )
        return noise

    def _written(self, content: Content) -> tuple[int, int]:
        """Bytes of a shard and of its receipt."""
        fmt = FORMATS[self.output.format]
        with TemporaryDirectory(prefix="fastmrigan-") as folder:
            made = Path(folder)
            commit(made, fmt, content, self.origin)
            name = fmt.name(content.shard)
            path = made / name
            files = list(path.iterdir()) if path.is_dir() else [path]
            shard = sum(file.stat().st_size for file in files)
            return shard, receipts.path_of(made, name).stat().st_size

    def _blocks(self, size: int) -> int:
        return -(-size // self.block) * self.block


T = TypeVar("T")
Places = list[tuple[Shard, int]]  # slices: their shards, and their indices


def _by_source_size(
    origin: Origin, format: str, shards: Sequence[Shard]
) -> dict[tuple[int, int], tuple[Places, list[int]]]:
    """By the size that slices are written in: a few of them to measure, and how many each shard
    has. DICOM alone knows more sizes than one."""
    sources, dicom = origin.sources, format.startswith("dicom")
    if sources is None or not dicom:
        picked = _spread(shards, PILOTS // 3 if dicom else 2)
        last = [(shard, shard.first + shard.count - 1) for shard in picked]
        first = [(shard, shard.first) for shard in picked]
        middle = [(shard, shard.first + shard.count // 2) for shard in picked]
        places = list(dict.fromkeys(first + middle + last))
        return {(0, 0): (places, [shard.count for shard in shards])}
    found: dict[tuple[int, int], tuple[Places, list[int]]] = {}
    for n, shard in enumerate(shards):
        for index in range(shard.first, shard.first + shard.count):
            size = sources.records[index].source_size
            places, counts = found.setdefault(size, ([], [0] * len(shards)))
            places.append((shard, index))
            counts[n] += 1
    pilots = max(2, PILOTS // len(found))
    return {size: (_spread(places, pilots), counts) for size, (places, counts) in found.items()}


def _spread(things: Sequence[T], count: int) -> list[T]:
    """At most `count` of the things, evenly spread, the last among them."""
    picked = np.linspace(0, len(things) - 1, min(count, len(things))).round().astype(int)
    return [things[i] for i in picked]
