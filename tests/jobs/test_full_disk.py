"""Disks that fill up at any point of a job, run out of inodes or take nothing: what is finished
stays, what is not gives its space back, and the job goes on to the same bytes."""

from __future__ import annotations

import errno
import os
import random
import re
import resource
import shutil
from pathlib import Path

import pytest
from job_process import JobProcess, command_of, contents, finished, half_made
from small_disk import NoSmallDisk, SmallDisk

from fastmrigan.errors import DiskFull, UsageError
from fastmrigan.jobs import receipts, shards
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
    plan = ("--count", COUNT, "--shard-size", SIZE, "--seed", 7, "--batch", 4, "--mode", "latency")
    return command_of("synth", model, "--out", out, *plan, *more)


def stored(out: Path) -> int:
    """Bytes of the blocks of all that is in a folder."""
    return sum(512 * path.stat().st_blocks for path in out.rglob("*"))


@pytest.mark.parametrize("format", OFFSETS)
def test_full_at_any_offset(generator, tmp_path, small_disk, format):
    whole = tmp_path / "whole"
    synthesise(generator, options(whole, format))
    expected = contents(whole)
    disk = small_disk("size=4m")
    out = disk.path / "out"
    synthesise(generator, options(out, format))
    needed = sum(512 * (out / name).stat().st_blocks for name in contents(out))
    dice = random.Random(0)
    partly = 0
    for offset in [0, *(dice.randrange(needed) for _ in range(OFFSETS[format] - 1))]:
        shutil.rmtree(out)
        disk.fill(but=offset)
        room = disk.free
        with pytest.raises(DiskFull, match="no space left") as full:
            synthesise(generator, options(out, format))
        assert full.value.exit_code == 4
        assert not half_made(out)
        assert room - disk.free == stored(out)  # nothing is held that has no name
        there = finished(out)
        if there:
            assert contents(out).items() <= expected.items()
            safe = re.search(r"; (\d+) of 160 slices are safe", str(full.value))
            assert 0 < int(safe[1]) <= SIZE * len(there)
            partly += 1
        disk.empty()
        assert synthesise(generator, options(out, format)).made == COUNT - SIZE * len(there)
        assert contents(out) == expected
        assert verify(out).whole
    assert partly >= OFFSETS[format] // 2


def test_full_while_a_process_writes(write_model, small_disk, fastmrigan):
    """Something else takes the space; it comes back, and the same command goes on."""
    model, disk = write_model(), small_disk("size=64m")
    out = disk.path / "out"
    command = command_of("synth", model, "--out", out, "--count", 8000, "--shard-size", 16)
    with JobProcess(command, out) as job:
        job.wait_for(5)
        disk.fill(but=200 << 10)
        assert job.wait() == 4
        last = job.said().splitlines()[-1]
    assert re.search(
        r"no space left; [\d,]+ of 8,000 slices are safe: free some, run the same", last
    )
    assert not half_made(out)
    disk.empty()
    with JobProcess(command, out) as job:
        assert job.wait() == 0, job.said()
    assert fastmrigan("verify", out).returncode == 0


@pytest.mark.parametrize("format", ["shard", "npz"])
def test_a_write_that_ends_early(generator, tmp_path, format):
    """The system takes the first bytes of a piece and says so, and no more: as where a file may
    not grow, or where space comes back before the next piece."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    synthesise(generator, options(whole, format))
    largest = max(path.stat().st_size for path in whole.rglob("shard-*") if path.is_file())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, hard))
    try:
        with pytest.raises(DiskFull):
            synthesise(generator, options(out, format))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not half_made(out)
    synthesise(generator, options(out, format))
    assert contents(out) == contents(whole)


@pytest.mark.parametrize(
    ("format", "inodes"),
    [
        *(("shard", inodes) for inodes in (2, 3, 4, 5, 60, 80)),
        *(("png", inodes) for inodes in (5, 6, 100, 200)),
    ],
)
def test_no_inodes_left(generator, tmp_path, small_disk, format, inodes):
    """One is the disk's root; the job takes four and two a shard, PNG one a slice beside."""
    whole = tmp_path / "whole"
    synthesise(generator, options(whole, format))
    disk = small_disk(f"size=4m,nr_inodes={inodes}")
    out = disk.path / "out"
    told = r"no inodes left \(see df -i\)" if inodes > 6 else "no inodes left|no space left"
    with pytest.raises(DiskFull, match=told) as full:
        synthesise(generator, options(out, format))
    assert full.value.exit_code == 4
    assert not half_made(disk.path)
    there = finished(out)
    disk.remount("nr_inodes=1000")
    assert synthesise(generator, options(out, format)).made == COUNT - SIZE * len(there)
    assert contents(out) == contents(whole)


def test_a_disk_that_is_read_only(write_model, small_disk):
    model, disk = write_model(), small_disk("size=4m")
    disk.remount("ro")
    with JobProcess(synth(model, disk.path / "out"), disk.path / "out") as job:
        assert job.wait() == 2
        assert "out: cannot write in" in job.said().splitlines()[-1]


def test_a_disk_that_turns_read_only(generator, tmp_path, monkeypatch):
    """As one does whose errors the system has had enough of. What is half-made stays then."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    synthesise(generator, options(whole))
    real = receipts.write

    def refuse(path, *_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def write(folder, name, digests, content):
        if content.shard.number >= 9:
            monkeypatch.setattr(shards, "remove", refuse)
            refuse(receipts.path_of(folder, name))
        real(folder, name, digests, content)

    monkeypatch.setattr(receipts, "write", write)
    told = r"shard-000009.tar.json: cannot write: Read-only file system; 36 of 160 slices are safe"
    with pytest.raises(UsageError, match=told):
        synthesise(generator, options(out))
    monkeypatch.undo()
    assert finished(out) == finished(whole)[:9]
    assert any(name.startswith("shard-000009.tar.") for name in half_made(out))
    assert synthesise(generator, options(out)).made == COUNT - 9 * SIZE
    assert contents(out) == contents(whole)
    assert not half_made(out)


NOT_ALMIGHTY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]


def without_privilege(command: list[str]) -> list[str]:
    """The same command, for which modes of files mean something even where it runs as root."""
    if os.geteuid() != 0:
        return command
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv to take that away")
    return [*NOT_ALMIGHTY, *command]


def test_a_folder_that_is_read_only(write_model, tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    with JobProcess(without_privilege(synth(write_model(), out)), out) as job:
        assert job.wait() == 2
        assert f"{out}: cannot write in" in job.said().splitlines()[-1]
    assert not list(out.iterdir())


def test_what_a_killed_job_left_and_nobody_may_read(write_model, tmp_path, generator):
    """Files are removed all the same; a folder that cannot be opened is named."""
    out, model = tmp_path / "out", write_model()
    synthesise(generator, options(out, "png"))
    expected = contents(out)
    shutil.rmtree(out / "shard-000003")
    left = out / "shard-000003.tmp"
    left.mkdir()
    (left / "000000000.png").write_bytes(b"half")
    (left / "000000000.png").chmod(0)
    left.chmod(0)
    command = without_privilege(synth(model, out, "--format", "png"))
    with JobProcess(command, out) as job:
        assert job.wait() == 2
        last = job.said().splitlines()[-1]
    assert re.search(r"shard-000003\.\w+\.tmp: Permission denied; name a place", last)
    (left,) = out.glob("shard-*.tmp")
    left.chmod(0o700)
    with JobProcess(command, out) as job:
        assert job.wait() == 0, job.said()
    assert not half_made(out)
    assert contents(out) == expected
