"""`fastmrigan prepare` as a user meets it: exit codes, one-line errors, closing lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


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
    assert f"{unknown} them apart with --group-pattern" in done.stdout
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
