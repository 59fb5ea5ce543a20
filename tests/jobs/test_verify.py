"""`fastmrigan verify`: any change to a finished shard is found, and mended by that shard alone."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from pathlib import Path

import pytest

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.jobs.sampling import JobOptions, synthesise
from fastmrigan.jobs.verify import verify
from fastmrigan.runtime import load

FORMATS = ["shard", "npz", "png", "dicom", "dicom-files"]


def files_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and "shard-" in str(p))


@pytest.fixture
def make(write_model, tmp_path):
    generator = load(write_model(), batch=8)

    def job(format: str = "shard", count: int = 40) -> Path:
        synthesise(generator, JobOptions(tmp_path / "out", count, 7, format, 16))
        return tmp_path / "out"

    return job


@pytest.mark.parametrize("format", FORMATS)
def test_what_a_job_made_is_whole(make, format):
    found = verify(make(format))
    assert found.whole
    assert (found.slices, found.count, found.left_out, found.damaged) == (40, 40, 0, {})


@pytest.mark.parametrize("format", FORMATS)
def test_a_receipt_is_what_sha256sum_says(make, format):
    out = make(format)
    for path in out.glob("shard-*"):
        receipt = json.loads((out / "receipts" / f"{path.name}.json").read_text())
        parts = sorted(path.iterdir()) if path.is_dir() else [path]
        command = ["sha256sum", *(part.relative_to(out) for part in parts)]
        told = subprocess.run(command, cwd=out, capture_output=True, text=True, check=True).stdout
        expected = dict(reversed(line.split("  ", 1)) for line in told.splitlines())
        assert receipt["files"] == expected


@pytest.mark.parametrize("format", FORMATS)
def test_any_flipped_byte_is_found_and_mended(make, format):
    out = make(format)
    before = {path: path.read_bytes() for path in files_of(out)}
    dice = random.Random(0)
    for path in dice.sample(sorted(before), min(6, len(before))):
        content = bytearray(before[path])
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(content)
        found = verify(out, discard=True)
        assert not found.whole
        shard = next(p for p in (path, path.parent) if p.name.startswith("shard-"))
        name = shard.name.removesuffix(".json") if shard.parent.name == "receipts" else shard.name
        assert list(found.damaged) == [name]
        kept = {p: p.stat().st_mtime_ns for p in files_of(out)}
        make(format)
        assert {path: path.read_bytes() for path in files_of(out)} == before
        assert all(p.stat().st_mtime_ns == time for p, time in kept.items())
    assert verify(out).whole


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def other_count(path: Path) -> None:
    path.write_text(path.read_text().replace('"count": 16', '"count": 17'))


@pytest.mark.parametrize(
    ("name", "harm", "told"),
    [
        ("shard-000001.tar", cut, "is not what was written"),
        ("receipts/shard-000001.tar.json", Path.unlink, "has no receipt"),
        ("receipts/shard-000001.tar.json", cut, "has a damaged receipt"),  # it is JSON even so
        ("receipts/shard-000001.tar.json", other_count, "has a damaged receipt"),
        ("receipts/shard-000001.tar.json", lambda p: p.write_bytes(b"["), "has a damaged receipt"),
    ],
)
def test_what_is_wrong_is_said(make, name, harm, told):
    out = make()
    harm(out / name)
    assert told in verify(out).damaged["shard-000001.tar"]


def test_a_shard_that_is_gone_is_missed(make, fastmrigan):
    out = make()
    (out / "shard-000001.tar").unlink()
    found = verify(out)
    assert (found.missing, found.slices, found.whole) == ([16], 24, False)
    told = fastmrigan("verify", out)
    assert told.returncode == 6
    assert "24 of 40 slices are whole" in told.stdout
    assert "16 slices not there" in told.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("shard-000000/more.png", "holds shard-000000/more.png, which is none of the job's"),
        ("shard-000000/000000003.png", "lacks shard-000000/000000003.png"),
    ],
)
def test_a_folder_with_other_files_is_damaged(make, name, told):
    out = make("png")
    path = out / name
    path.unlink() if path.exists() else path.write_bytes(b"")
    assert verify(out).damaged == {"shard-000000": told}


def test_the_command(make, fastmrigan):
    out = make()
    whole = fastmrigan("verify", out)
    assert (whole.returncode, whole.stdout) == (0, f"{out}: 40 of 40 slices are whole\n")
    shard = out / "shard-000002.tar"
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    cut(shard)
    told = fastmrigan("verify", out)
    assert told.returncode == 6
    assert f"{shard}: shard-000002.tar is not what was written" in told.stdout
    last = told.stderr.splitlines()[-1]
    assert f"{out}: 1 damaged shard, 8 slices not there or damaged; --discard removes" in last
    assert shard.exists()
    assert fastmrigan("verify", out, "--discard").returncode == 6
    assert not shard.exists()
    make()
    assert hashlib.sha256(shard.read_bytes()).hexdigest() == digest
    assert fastmrigan("verify", out).returncode == 0


def test_what_is_no_job(tmp_path):
    with pytest.raises(UsageError, match=r"no job's folder \(it has no run\.json\)"):
        verify(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputRejected, match=r"not a job's run\.json"):
        verify(tmp_path)
