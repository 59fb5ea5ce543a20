"""Interrupts and kills: the bytes are those of a run without a break."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from prepare_inputs import InProcess, contents, folder, in_process, write_series

from fastmrigan.errors import InputRejected, Interrupted, UsageError
from fastmrigan.imaging import output
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare

SMALL = PrepareOptions(size=32)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    in_process(monkeypatch)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Pictures, one of them broken, a series and a volume: 12 files, 9 units."""
    root = folder(tmp_path / "in", 7)
    (root / "normal" / "zz.png").write_bytes(b"no image")
    write_series(root / "series", 3)
    x = np.zeros((30, 34, 6), np.float32)
    x[8:22, 8:26, 1:5] = np.random.default_rng(0).uniform(100, 200, (14, 18, 4))
    nibabel.save(nibabel.Nifti1Image(x, np.eye(4)), root / "volume.nii.gz")
    return root


class Stopping(InProcess):
    """Sends this process a signal before a result that a unit waits for."""

    after = 0
    number = signal.SIGINT

    def run(self, tasks) -> Iterator:
        for count, result in enumerate(super().run(tasks)):
            if count == self.after and not self.headers(result):
                os.kill(os.getpid(), self.number)
            yield result

    @staticmethod
    def headers(result: object) -> bool:
        return type(result).__name__ == "DicomHeader"


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int, number: signal.Signals) -> None:
    kind = type("Stop", (Stopping,), {"after": count, "number": number})
    monkeypatch.setattr("fastmrigan.imaging.prepare.DecodePool", kind)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0, 3, 9, 11])
def test_an_interrupted_run_goes_on(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, after: int, number, capsys
) -> None:
    in_process(monkeypatch)
    prepare(source, tmp_path / "whole", SMALL)
    stop_after(monkeypatch, after, number)
    with pytest.raises(Interrupted, match=r"interrupted with \d+ of 12 files kept; the same comm"):
        prepare(source, tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.making" / "journal.jsonl").exists()
    in_process(monkeypatch)
    capsys.readouterr()
    prepare(source, tmp_path / "out", SMALL)
    begun = next(line for line in capsys.readouterr().err.splitlines() if " of 12 files" in line)
    assert int(begun.split(" at ")[1].split()[0]) >= max(after - 3, 0)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "whole"]


def test_what_was_unpacked_does_not_stay(tmp_path: Path, monkeypatch) -> None:
    in_process(monkeypatch)
    write_series(tmp_path / "series", 4)
    shutil.make_archive(str(tmp_path / "in"), "zip", tmp_path / "series")
    stop_after(monkeypatch, 2, signal.SIGINT)
    with pytest.raises(Interrupted, match="of 4 files kept"):
        prepare(tmp_path / "in.zip", tmp_path / "out", SMALL)
    left = {path.name for path in (tmp_path / ".out.making").rglob("*")}
    assert left == {"journal.jsonl", "slices.npy", "thumbnails.npy"}


def test_a_link_to_the_output_stays_one(tmp_path: Path, monkeypatch) -> None:
    in_process(monkeypatch)
    folder(tmp_path / "in", 3)
    (tmp_path / "disk" / "set").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "set")
    for size in (32, 48):
        prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(size=size, force=True))
        assert PreparedDataset.open(tmp_path / "disk" / "set").info.size == (size, size)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "in", "out"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["set"]


@pytest.mark.usefixtures("quick")
def test_a_second_interrupt_ends_at_once(tmp_path: Path, source: Path, monkeypatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fastmrigan.imaging.prepare.write_sheet", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, tmp_path / "out", SMALL)
    prepare(source, tmp_path / "out", SMALL)
    prepare(source, tmp_path / "whole", SMALL)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def kept_by_an_interrupt(tmp_path: Path, source: Path, monkeypatch) -> Path:
    stop_after(monkeypatch, 11, signal.SIGINT)
    with pytest.raises(Interrupted):
        prepare(source, tmp_path / "out", SMALL)
    in_process(monkeypatch)
    return tmp_path / ".out.making"


def test_whatever_a_crash_left_of_the_files(tmp_path: Path, source: Path, monkeypatch) -> None:
    """Journal and arrays cut at random, or with bytes that never reached the disk."""
    making = kept_by_an_interrupt(tmp_path, source, monkeypatch)
    prepare(source, tmp_path / "whole", SMALL)
    expected = contents(tmp_path / "whole")
    shutil.copytree(making, tmp_path / "left")
    names = ("journal.jsonl", "slices.npy", "thumbnails.npy")
    draw = random.Random(0)
    for turn in range(24):
        shutil.rmtree(making, ignore_errors=True)
        shutil.copytree(tmp_path / "left", making)
        path = making / names[turn % 3]
        data = bytearray(path.read_bytes())
        place = draw.randrange(len(data))
        data[place:] = b"" if turn % 2 else bytes(len(data) - place)
        path.write_bytes(data)
        prepare(source, tmp_path / "out", SMALL)
        assert contents(tmp_path / "out") == expected
        shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("what", ["file", "options", "new file", "version"])
def test_what_has_changed_is_made_anew(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    kept_by_an_interrupt(tmp_path, source, monkeypatch)
    options = PrepareOptions(size=48) if what == "options" else SMALL
    path = source / "normal" / "head1_slice3.png"
    if what == "file":  # of the same size, written later
        data = path.read_bytes()
        (source / "tumour" / "head0_slice1.png").rename(path)
        path.write_bytes(path.read_bytes() + bytes(max(0, len(data) - path.stat().st_size)))
    elif what == "new file":
        shutil.copy(path, source / "normal" / "a.png")
    elif what == "version":
        monkeypatch.setattr("fastmrigan.imaging.journal.__version__", "0")
    prepare(source, tmp_path / "out", options)
    prepare(source, tmp_path / "whole", options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.usefixtures("quick")
def test_a_changed_file_of_the_same_size(tmp_path: Path, monkeypatch) -> None:
    """Its time tells."""
    root = write_series(tmp_path / "in", 4)
    stop_after(monkeypatch, 3, signal.SIGINT)
    with pytest.raises(Interrupted):
        prepare(root, tmp_path / "out", SMALL)
    in_process(monkeypatch)
    data = bytearray((root / "IM002").read_bytes())
    data[-900:-100] = bytes(800)
    (root / "IM002").write_bytes(data)
    prepare(root, tmp_path / "out", SMALL)
    prepare(root, tmp_path / "whole", SMALL)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.usefixtures("quick")
def test_a_run_that_ends_by_itself_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    (root / "a.png").write_bytes(b"x")
    with pytest.raises(InputRejected):
        prepare(root, tmp_path / "out", SMALL)
    folder(root, 3)
    with pytest.raises(UsageError, match="--split patient: 3 of 3"):
        prepare(root, tmp_path / "out2", PrepareOptions(split="patient"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_mistake_costs_nothing(tmp_path: Path, source: Path, monkeypatch) -> None:
    """An interrupted run survives a wrong command in between."""
    making = kept_by_an_interrupt(tmp_path, source, monkeypatch)
    before = contents(making)
    with pytest.raises(UsageError, match="--group-pattern"):
        prepare(source, tmp_path / "out", PrepareOptions(group_pattern="(zebra)"))
    assert contents(making) == before


@pytest.mark.usefixtures("quick")
def test_one_at_a_time(tmp_path: Path, source: Path) -> None:
    making = tmp_path / ".out.making"
    making.mkdir()
    lock = os.open(making, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match=r"out: another process is preparing it; wait for it"):
        prepare(source, tmp_path / "out", SMALL)
    os.close(lock)  # as the end of that process would
    assert prepare(source, tmp_path / "out", SMALL).info.count == 14


@pytest.mark.usefixtures("quick")
def test_a_file_system_that_locks_no_folders(tmp_path: Path, source: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(output.fcntl, "flock", refuse)
    with pytest.raises(UsageError, match=r"locks no folders \(Bad file descriptor\)"):
        prepare(source, tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("successor", [False, True])
def test_killed_between_the_two_renames(tmp_path: Path, source: Path, successor: bool) -> None:
    """The set that was to be replaced comes back, or goes where its successor stands."""
    out = tmp_path / "out"
    prepare(source, out, SMALL)
    before = contents(out)
    if successor:
        shutil.copytree(out, tmp_path / ".out.old")
    else:
        out.rename(tmp_path / ".out.old")
    with pytest.raises(UsageError, match="holds a different prepared data set"):
        prepare(source, out, PrepareOptions(size=48))
    assert contents(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.usefixtures("quick")
def test_a_kill_at_the_second_rename(tmp_path: Path, source: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    prepare(source, out, SMALL)
    before = contents(out)

    def killed(old: Path, new: Path) -> None:
        if new == out:
            raise KeyboardInterrupt
        old.rename(new)

    with monkeypatch.context() as patch:
        patch.setattr(output.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, out, PrepareOptions(size=48, force=True))
    assert not out.exists()
    with pytest.raises(UsageError, match="holds a different"):
        prepare(source, out, PrepareOptions(size=24))
    assert contents(out) == before
    prepare(source, out, PrepareOptions(size=48, force=True))
    assert PreparedDataset.open(out).info.size == (48, 48)


def test_the_number_of_workers_changes_nothing(tmp_path: Path, source: Path, monkeypatch) -> None:
    """With the real pool, which refuses the broken picture in its process."""
    for count in (1, 2):
        prepare(source, tmp_path / str(count), PrepareOptions(size=32, workers=count))
    in_process(monkeypatch)
    prepare(source, tmp_path / "none", SMALL)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "none")


# Finished work is written down every 0.05 s in place of 0.5, so that there is more to break off.
QUICK = """
import sys
from fastmrigan.cli import main
from fastmrigan.imaging import journal
journal.FLUSH_SECONDS = 0.05
sys.exit(main())
"""


@pytest.mark.slow
def test_killed_at_random(tmp_path: Path) -> None:
    """kill -9 of the whole command at random moments, until four broke off work of their own."""
    source, out, draw = tmp_path / "in", tmp_path / "out", random.Random(0)
    source.mkdir()
    noise = np.random.default_rng(0)
    for i in range(80):
        side = 1000 + i  # no two alike
        Image.fromarray(noise.integers(0, 256, (side, side), np.uint8)).save(source / f"{i}.png")
    write_series(source / "series", 40)
    command = [sys.executable, "-c", QUICK, "prepare", source, "--size", "64", "--workers", "2"]
    began = time.monotonic()
    subprocess.run([*command, "--out", tmp_path / "whole"], check=True, capture_output=True)
    patience, journal = time.monotonic() - began, tmp_path / ".out.making" / "journal.jsonl"
    kills = broken_off = before = 0
    while broken_off < 4:
        assert kills < 40
        with subprocess.Popen([*command, "--out", out], stderr=subprocess.DEVNULL) as process:
            if kills % 3 == 0:  # anywhere from the first instruction on
                time.sleep(draw.uniform(0, patience))
            else:  # after some work of its own
                wanted = max(before, 1) + draw.randint(1, 20)
                while process.poll() is None and lines(journal) < wanted:
                    time.sleep(0.002)
                time.sleep(draw.uniform(0, 0.1))
            process.kill()
        kills += 1
        after = lines(journal)
        broken_off += after > max(before, 1)  # the head is a line, too
        before = after
        if out.exists():
            shutil.rmtree(out)
    subprocess.run([*command, "--out", out], check=True, capture_output=True)
    assert contents(out) == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "whole"]


def lines(journal: Path) -> int:
    """How many it has; 0 where there is none."""
    try:
        return len(journal.read_bytes().splitlines())
    except FileNotFoundError:
        return 0
