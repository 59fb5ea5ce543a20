"""`fastmrigan prepare` as a user meets it: exit codes, one-line errors, closing lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from prepare_inputs import contents, folder, write_series


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(root / f"{i}.png")
    return root


def test_success(tmp_path: Path, source: Path, fastmrigan) -> None:
    (source / "README.md").write_text("x")
    done = fastmrigan("prepare", source, "--out", tmp_path / "set", "--label", "tumour")
    assert done.returncode == 0, done.stderr
    assert f"prepared 4 slices of 64x64 in {tmp_path / 'set'}: tumour 4" in done.stdout
    assert "split by duplicates (not every slice has a patient): 3 train, 1 test" in done.stdout
    assert "ignored files that are no images: 1 .md" in done.stdout
    unknown = "warning: patients are unknown: slices of one patient may stand on both sides; tell"
    assert f"{unknown} them apart with --group-pattern or --groups" in done.stdout
    pattern = ("--group-pattern", r"(\d)\.png")
    done = fastmrigan("prepare", source, "--out", tmp_path / "grouped", *pattern)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("empty", "--out", "set"), 2, "empty: no images in this folder"),
        (("nowhere", "--out", "set"), 2, "nowhere: no such file or folder"),
        (("in", "--out", "in/0.png/set"), 2, "in/0.png is a file"),
        (("dot.png", "--out", "set"), 3, "dot.png: 1x1 pixels; at least 16x16 are needed"),
        (("in", "--out", "set", "--grading", "x"), 2, "--grading x: expected percentile"),
    ],
)
def test_one_line_errors(
    tmp_path: Path, source: Path, fastmrigan, monkeypatch, arguments, code: int, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    Image.new("L", (1, 1)).save(tmp_path / "dot.png")
    monkeypatch.chdir(tmp_path)
    done = fastmrigan("prepare", *arguments)
    assert done.returncode == code
    last = done.stderr.splitlines()[-1]
    assert last.startswith("fastmrigan: ")
    assert message in last
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_names_are_told_in_one_line(tmp_path: Path, source: Path, fastmrigan) -> None:
    (source / "a\x1b[31m\nb").mkdir()
    (source / "0.png").rename(source / "a\x1b[31m\nb" / "0.png")
    (source / "x.\x1b[31m").write_text("x")
    done = fastmrigan("prepare", source, "--out", tmp_path / "set")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert r"(no label) 3, a\x1b[31m\nb 1" in done.stdout


def test_volumes_are_no_patients_without_a_word(tmp_path: Path, fastmrigan) -> None:
    (tmp_path / "in").mkdir()
    for seed, name in enumerate(("p1_t1", "p1_t2", "p2_t1")):
        voxels = np.random.default_rng(seed).integers(0, 999, (20, 20, 4), dtype=np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "in" / f"{name}.nii")
    assumed = "warning: 3 volumes are each taken for a patient: several of one patient may stand"
    done = fastmrigan("prepare", tmp_path / "in", "--out", tmp_path / "set")
    assert assumed in done.stdout, done.stderr
    assert "; tell them apart with --group-pattern or --groups\n" in done.stdout
    table = tmp_path / "groups.csv"
    table.write_text("file,group\np1_t1.nii,1\n./p9.nii,1\np2_t1.nii,\n")
    options = ("--groups", table, "--force")
    done = fastmrigan("prepare", tmp_path / "in", "--out", tmp_path / "set", *options)
    assert "warning: 2 volumes are each taken for a patient" in done.stdout, done.stderr
    assert f"both sides; {table} has no row for them\n" in done.stdout
    told = "1 of 3 rows names no file, e.g. p9.nii in line 3; 2 files have no row with a group"
    assert f"warning: --groups {table}: {told}\n" in done.stdout
    assert "tell them apart" not in done.stdout
    options = ("--group-pattern", r"(p\d)", "--force")
    done = fastmrigan("prepare", tmp_path / "in", "--out", tmp_path / "set", *options)
    assert "warning" not in done.stdout, done.stderr


def test_what_is_told_of_dicom(tmp_path: Path, fastmrigan) -> None:
    write_series(tmp_path / "in" / "a", 3)
    write_series(tmp_path / "in" / "b", 2, series="2.25.2", burned_in=None)
    write_series(tmp_path / "in" / "c", 2, series="2.25.3", orientation=(0, 1, 0, 0, 0, -1))
    (tmp_path / "in" / "c" / "IM001").write_bytes(b"no image")
    done = fastmrigan("prepare", tmp_path / "in", "--out", tmp_path / "set", "--workers", 1)
    assert done.returncode == 3, done.stderr
    assert "note: slices of several planes: axial 3, sagittal 1; --plane keeps" in done.stdout
    quarantined = f"quarantined 2 DICOM files, named in {tmp_path / 'set' / 'quarantine.jsonl'}: 2 "
    assert f"{quarantined}without BurnedInAnnotation; look at them, and use --allow" in done.stdout
    assert "refused 1 file, named with the reason" in done.stdout
    options = ("--allow-burned-in", "unknown", "--plane", "axial", "--force", "--isotropic", "1")
    done = fastmrigan("prepare", tmp_path / "in", "--out", tmp_path / "set", *options)
    assert "prepared 5 slices" in done.stdout, done.stderr
    assert "left out 1 slice that is not axial, or not known to be" in done.stdout
    assert "quarantined" not in done.stdout
    lines = (tmp_path / "set" / "index.jsonl").read_text().splitlines()
    assert {json.loads(line)["source_size"][0] for line in lines} == {96}


def test_of_a_folder_with_nothing_to_decode_no_progress_is_told(tmp_path: Path, fastmrigan) -> None:
    write_series(tmp_path / "in", 2, burned_in=None)
    done = fastmrigan("prepare", tmp_path / "in", "--out", tmp_path / "set", "--workers", 1)
    assert done.returncode == 3, done.stderr
    *headers, last = done.stderr.splitlines()
    assert [line.partition(" in ")[0] for line in headers] == [
        "prepare: headers: starting at 0 of 2 files",
        "prepare: headers: 2 files",
    ]
    assert "all that could be used is quarantined" in last


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_the_same_command_again(tmp_path: Path, fastmrigan, number: int) -> None:
    source = folder(tmp_path / "in", 1500)
    command = ["prepare", source, "--size", "128", "--out"]
    assert fastmrigan(*command, tmp_path / "whole").returncode == 0
    arguments = [sys.executable, "-m", "fastmrigan", *command, tmp_path / "out"]
    journal = tmp_path / ".out.making" / "journal.jsonl"
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, process_group=0) as process:
        while not (journal.exists() and journal.stat().st_size > 1000):
            assert process.poll() is None, "finished before it could be interrupted"
            time.sleep(0.005)
        os.killpg(process.pid, number)  # as a terminal's Ctrl-C does
        _, told = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "fastmrigan: interrupted with" in told.splitlines()[-1]
    assert "of 1,500 files kept; the same command does what is missing" in told
    assert not (tmp_path / "out").exists()
    done = fastmrigan(*command, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "prepare: starting at 0 of" not in done.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
