"""Disks that fill up at any point of a job, run out of inodes or take nothing: what is finished
stays, what is not gives its space back, and the job goes on to the same bytes."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from job_process import JobProcess, command_of, contents, finished, half_made
from small_disk import NoSmallDisk, SmallDisk

from fastmrigan.errors import DiskFull, UsageError
from fastmrigan.jobs.sampling import JobOptions, synthesise
from fastmrigan.jobs.verify import verify
from fastmrigan.runtime import load

COUNT, SIZE = 160, 4  # slices of a job, and of a shard: 40 shards
OFFSETS = {"shard": 20, "npz": 6, "png": 6}  # how often the disk fills, by format


@pytest.fixture
def small_disk(tmp_path):
    """small_disk("size=1m") is such a disk, empty, or the test skips."""
    opened = []

    def make(options: str) -> SmallDisk:
        try:
            opened.append(SmallDisk(tmp_path / f"disk-{len(opened)}", options).__enter__())
        except NoSmallDisk as why:
            pytest.skip(str(why))
        return opened[-1]

    yield make
    for disk in opened:
        disk.__exit__(None, None, None)


@pytest.fixture
def generator(write_model):
    return load(write_model(), batch=4)


def options(out: Path, format: str = "shard") -> JobOptions:
    return JobOptions(out, COUNT, 7, format, SIZE)


def synth(model: Path, out: Path, *more: object) -> list[str]:
    plan = ("--count", COUNT, "--shard-size", SIZE, "--seed", 7, "--batch", 4)
    return command_of("synth", model, "--out", out, *plan, *more)


def stored(out: Path) -> int:
    """Bytes of the blocks of all that is in a folder."""
    return sum(512 * path.stat().st_blocks for path in out.rglob("*"))


@pytest.mark.parametrize("format", OFFSETS)
def test_full_at_any_offset(generator, tmp_path, small_disk, format):
    whole = options(tmp_path / "whole", format)
    synthesise(generator, whole)
    expected = contents(whole.out)
    disk = small_disk("size=4m")
    out = disk.path / "out"
    synthesise(generator, options(out, format))
    needed = stored(out)
    dice = random.Random(0)
    offsets = [0, 1, *(dice.randrange(needed) for _ in range(OFFSETS[format] - 2))]
    partly = 0
    for offset in offsets:
        shutil.rmtree(out)
        disk.fill(but=offset)
        room = disk.free
        with pytest.raises(DiskFull) as full:
            synthesise(generator, options(out, format))
        assert full.value.exit_code == 4
        assert not half_made(out)
        there = set(contents(out)) if finished(out) else set()
        assert room - disk.free == stored(out)  # nothing is held that has no name
        if there:
            assert contents(out).items() <= expected.items()
            safe = re.search(r"no space left; (\d+) of 160 slices are safe", str(full.value))
            assert 0 < int(safe[1]) <= SIZE * len(finished(out))
            partly += 1
        disk.empty()
        result = synthesise(generator, options(out, format))
        assert result.made == COUNT - SIZE * len(there & set(f"{n}" for n in there if "/" not in n and n != "run.json")) if format != "png" else True
        assert contents(out) == expected
        assert verify(out).whole
    assert partly >= len(offsets) // 2
