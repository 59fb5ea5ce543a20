"""`fastmrigan prepare` over a folder of everything hostile, with good files among them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile_archives
import hostile_dicom
import hostile_pictures
import hostile_volumes
import pytest
from test_hostile_folder import hostile_folder

from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.phantom.slices import PhantomSettings
from fastmrigan.imaging.phantom.writer import write_phantom

KINDS = (hostile_dicom, hostile_pictures, hostile_volumes)
FORMATS = {"png": 1, "dicom": 2, "nifti": 3}  # of the good files, and the seed of each
COUNT = 3
MAX_RESIDENT = (1 << 30) + (256 << 20)  # bytes of any one process: the limit, and a fresh worker


def good_files(folder: Path, scratch: Path) -> int:
    """Phantom slices in every format, and in an archive; how many."""
    for kind, seed in FORMATS.items():
        settings = PhantomSettings(size=64, contrasts=("t2",), tumour=0.5, seed=seed)
        write_phantom(scratch / kind, COUNT, settings, file_format=kind)
        (scratch / kind / "t2").rename(folder / kind)
    settings = PhantomSettings(size=64, contrasts=("t2",), tumour=0.5, seed=4)
    write_phantom(scratch / "zip", COUNT, settings)
    members = {path.name: path.read_bytes() for path in scratch.glob("zip/t2/**/*.png")}
    (folder / "good.zip").write_bytes(hostile_archives.zipped(members))
    return COUNT * (len(FORMATS) + 1)


def hostile_files(source: Path) -> tuple[set[str], int]:
    """What must be refused, by what its name begins with; how many good files are among it."""
    refused, good = hostile_folder(source / "odd")
    names = {f"odd/{name}" for name in refused}
    (source / "hostile").mkdir()
    for kind in KINDS:
        for name, (make, _) in kind.HOSTILE.items():
            (source / "hostile" / name).write_bytes(make())
            names.add(f"hostile/{name}")
    (source / "archives").mkdir()
    for name, (make, _, _) in hostile_archives.HOSTILE.items():
        (source / "archives" / name).write_bytes(make())
        names.add(f"archives/{name}")
    return names, len(good)


@pytest.mark.slow
def test_prepare_takes_the_good_and_names_the_rest(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "good").mkdir(parents=True)
    count = good_files(source / "good", tmp_path / "phantoms")
    hostile, among_them = hostile_files(source)
    command = ["prepare", source, "--out", out, "--allow-burned-in", "unknown", "--min-brain", "0"]
    with (tmp_path / "said").open("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "fastmrigan", *command], stdout=said, stderr=said
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    assert process.returncode == 3, text
    assert "Traceback" not in text
    assert used.ru_maxrss << 10 < MAX_RESIDENT  # of it and of every process it waited for

    dataset = PreparedDataset.open(out)
    assert len(dataset) == count + among_them
    lines = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    for line in lines:
        assert line["reason"].isprintable()
        assert 5 < len(line["reason"]) < 300
        assert "crashed" not in line["reason"]
        assert any(line["name"].startswith(name) for name in hostile), line
    named = {line["name"] for line in lines}
    assert {name for name in hostile if not any(n.startswith(name) for n in named)} == set()
    assert not (tmp_path / "slip.png").exists()
    assert not Path("/tmp/abs.png").exists()
