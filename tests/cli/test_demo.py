"""`fastmrigan demo`: what it does before, between and after its commands."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastmrigan.cli import demo, main


@pytest.fixture
def run(monkeypatch, capsys, tmp_path) -> Callable[[], tuple[int, str, str]]:
    """Runs the demo in this process: (exit code, stdout, stderr)."""

    def command() -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fastmrigan", "demo", "--out", str(tmp_path / "demo")])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0), *capsys.readouterr()

    return command


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("package", ["torch", "onnx"])
def test_what_is_not_installed_is_said_before_anything_is_made(run, monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    code, stdout, stderr = run()
    assert (code, stdout) == (2, "")
    assert stderr == (
        f"fastmrigan: fastmrigan demo needs the package {package}, which is not installed: "
        "pip install 'fastmrigan[train,export]'\n"
    )
    assert not (tmp_path / "demo").exists()


def test_what_is_whole_is_not_made_again(run, monkeypatch, tmp_path):
    out = tmp_path / "demo"
    count = 8

    def steps(folder: Path) -> list[list[str]]:
        return [
            ["phantom", "--count", str(count), "--size", "32", "--out", f"{folder}/phantom"],
            ["prepare", f"{folder}/phantom/t2", "--size", "32", "--out", f"{folder}/data"],
            ["synth", f"{folder}/none.onnx", "--count", "1", "--out", f"{folder}/slices"],
        ]

    monkeypatch.setattr(demo, "steps", steps)
    code, stdout, stderr = run()
    assert code == 2, stderr  # of synth
    assert "made before" not in stdout
    first = times(out)
    code, stdout, _ = run()
    assert code == 2
    assert stdout.count("(made before)") == 2
    assert times(out) == first
    shutil.rmtree(out / "data")
    _, stdout, _ = run()
    assert stdout.count("(made before)") == 1
    assert times(out / "phantom").items() <= first.items()
    assert (out / "data" / "dataset.json").exists()
    (out / "demo.json").write_text("null")
    _, stdout, _ = run()
    assert "made before" not in stdout
    count = 9  # another demo's
    _, stdout, stderr = run()
    assert "made before" not in stdout


def test_a_phantom_that_stopped_in_the_middle_is_made_again(run, monkeypatch, tmp_path):
    words = ["phantom", "--count", "8", "--size", "32", "--format", "tiff"]  # refused
    monkeypatch.setattr(demo, "steps", lambda out: [[*words, "--out", f"{out}/phantom"]])
    for _ in range(2):
        code, stdout, _ = run()
        assert (code, "made before" in stdout) == (2, False)
    assert not (tmp_path / "demo" / "demo.json").exists()
