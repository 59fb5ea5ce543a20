"""De-identification of folders: names, resumption, refusals, the command line."""

from __future__ import annotations

import errno
import json
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pydicom")
pytest.importorskip("dicomanonymizer")

from deidentify_files import NAME, SALT, outputs, run, saved
from pydicom import dcmread
from pydicom.data import get_testdata_file

from fastmrigan import files
from fastmrigan.errors import DiskFull, Interrupted, UsageError
from fastmrigan.imaging import deidentify as room
from fastmrigan.imaging.deidentify import (
    rejects_path,
)
from fastmrigan.imaging.deidentify_profile import Profile


def test_a_dicomdir_is_refused(tmp_path: Path) -> None:
    source = Path(get_testdata_file("DICOMDIR", download=False))
    saved(tmp_path / "in")
    for name in ("DICOMDIR", "renamed.dcm"):
        (tmp_path / "in" / name).write_bytes(source.read_bytes())
    (tmp_path / "in" / "more.zip").write_bytes(b"")
    made = run(tmp_path / "in", tmp_path / "out")
    assert made.written == 1
    assert made.ignored == {"dicomdir": 1}
    assert [refused.name for refused in made.refused] == ["more.zip", "renamed.dcm"]
    assert "a DICOMDIR" in made.refused[1].reason


def test_dicom_under_any_name_is_deidentified(tmp_path: Path) -> None:
    saved(tmp_path / "in", "scan.smith")
    (tmp_path / "in" / "notes.smith").write_text("x")
    made = run(tmp_path / "in", tmp_path / "out")
    assert (made.written, made.ignored, made.refused) == (1, {"other": 1}, [])


def test_names_say_nothing_and_rejects_stand_beside(tmp_path: Path) -> None:
    saved(tmp_path / "in", "doe_john.dcm")
    (tmp_path / "in" / "broken_doe.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    (tmp_path / "in" / "notes.txt").write_text(NAME)
    made = run(tmp_path / "in", tmp_path / "out")
    assert made.written == 1
    assert made.ignored == {".txt": 1}
    names = [str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")]
    assert "doe" not in " ".join(names).lower()
    (path,) = outputs(tmp_path / "out")
    assert path.stem == dcmread(path).SOPInstanceUID
    assert path.parent.name == dcmread(path).SeriesInstanceUID
    (line,) = rejects_path(tmp_path / "out").read_text().splitlines()
    assert json.loads(line)["name"] == "broken_doe.dcm"
    (tmp_path / "in" / "broken_doe.dcm").unlink()
    assert run(tmp_path / "in", tmp_path / "out").present == 1
    assert not rejects_path(tmp_path / "out").exists()


def test_the_salt_is_written_nowhere(tmp_path: Path) -> None:
    saved(tmp_path / "in")
    run(tmp_path / "in", tmp_path / "out")
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SALT not in path.read_bytes()


def test_twins_and_copies(tmp_path: Path) -> None:
    saved(tmp_path / "in", "1.dcm")
    saved(tmp_path / "in", "2.dcm")
    saved(tmp_path / "in", "3.dcm", Modality="CT")
    for expected in [(2, 1, 1), (0, 3, 0)]:
        made = run(tmp_path / "in", tmp_path / "out")
        assert (made.written, made.present, made.twins) == expected
    assert {dcmread(path).Modality for path in outputs(tmp_path / "out")} == {"MR", "CT"}


def test_a_resumed_run_writes_what_is_missing(tmp_path: Path) -> None:
    for i in range(3):
        saved(tmp_path / "in", f"{i}.dcm", SOPInstanceUID=f"1.2.3.{i + 1}")
    run(tmp_path / "in", tmp_path / "out")
    whole = {path: path.read_bytes() for path in outputs(tmp_path / "out")}
    first, second, _ = whole
    first.unlink()
    stale = second.with_name(f".{second.name}.12345.tmp")
    stale.write_bytes(b"half")
    made = run(tmp_path / "in", tmp_path / "out")
    assert (made.written, made.present) == (1, 2)
    assert {path: path.read_bytes() for path in outputs(tmp_path / "out")} == whole
    assert not stale.exists()


@pytest.fixture
def ctrl_c_after_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second file is the last before Ctrl-C."""
    assert threading.current_thread() is threading.main_thread()
    real, calls = room.deidentify_file, []

    def counted(*arguments: object) -> room.File:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "deidentify_file", counted)


@pytest.mark.parametrize(("salt", "left"), [(SALT, 2), (None, 0)])
def test_ctrl_c(tmp_path: Path, ctrl_c_after_two: None, salt: bytes | None, left: int) -> None:
    for i in range(4):
        saved(tmp_path / "in", f"{i}.dcm", SOPInstanceUID=f"1.2.3.{i + 1}")
    with pytest.raises(Interrupted, match="goes on" if salt else "taken back"):
        run(tmp_path / "in", tmp_path / "out", salt=salt)
    assert len(outputs(tmp_path / "out")) == left
    assert run(tmp_path / "in", tmp_path / "out", salt=salt).written == 4 - left
    assert len(outputs(tmp_path / "out")) == 4


def other_file(out: Path) -> None:
    out.mkdir()
    (out / "notes.txt").write_text("mine")


@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        (None, {"salt": b"short"}, "--salt: 5 bytes; give at least 16"),
        (None, {"allow_burned_in": "all"}, "--allow-burned-in all: expected no, unknown, yes"),
        (other_file, {}, "holds notes.txt, which no de-identification made"),
        (other_file, {"salt": None}, "is not empty, and a run with a random salt"),
        (lambda out: out.write_text(""), {}, "cannot be written"),
    ],
)
def test_usage_errors(
    tmp_path: Path, prepare: Callable[[Path], None] | None, options: dict[str, object], message: str
) -> None:
    saved(tmp_path / "in")
    if prepare is not None:
        prepare(tmp_path / "out")
    with pytest.raises(UsageError, match=re.escape(message)):
        run(tmp_path / "in", tmp_path / "out", **options)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    source = saved(tmp_path / "in")
    with (
        room.writing(tmp_path / "out", resumable=True),
        pytest.raises(UsageError, match="another process writes to it"),
    ):
        run(source, tmp_path / "out")
    assert run(source, tmp_path / "out").written == 1


@pytest.mark.parametrize(("salt", "left"), [(SALT, 1), (None, 0)])
def test_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, salt: bytes | None, left: int
) -> None:
    for i in range(2):
        saved(tmp_path / "in", f"{i}.dcm", SOPInstanceUID=f"1.2.3.{i + 1}")
    real, calls = files.write_synced, []

    def full_at_the_second(path: Path, content: bytes) -> None:
        calls.append(path)
        real(path, content)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, "write_synced", full_at_the_second)
    with pytest.raises(DiskFull):
        run(tmp_path / "in", tmp_path / "out", salt=salt)
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == left
    assert run(tmp_path / "in", tmp_path / "out", salt=salt).written == 2 - left


def test_output_within_the_source_and_sources_without_dicom(tmp_path: Path) -> None:
    saved(tmp_path / "in")
    with pytest.raises(UsageError, match="name a folder outside"):
        run(tmp_path / "in", tmp_path / "in" / "out")
    with pytest.raises(UsageError, match="no such file or folder"):
        run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"no DICOM files in this folder \(1 other files\)"):
        run(tmp_path / "empty", tmp_path / "out")


def test_command_line(tmp_path: Path, fastmrigan) -> None:
    saved(tmp_path / "in", "a.dcm")
    saved(tmp_path / "in", "b.dcm", SOPInstanceUID="1.2.3.9", BurnedInAnnotation="YES")
    (tmp_path / "salt").write_bytes(SALT + b"\n")
    arguments = ("deidentify", tmp_path / "in", tmp_path / "out", "--salt-file", tmp_path / "salt")
    first = fastmrigan(*arguments)
    assert first.returncode == 3
    assert "de-identified 1 file in" in first.stdout
    assert "b.dcm: in quarantine" in first.stdout
    second = fastmrigan(*arguments, "--allow-burned-in", "yes")
    assert second.returncode == 0
    assert "1 was there already" in second.stdout
    assert dcmread(outputs(tmp_path / "out")[0]).StudyInstanceUID == Profile(SALT).uid("1.2.3.3")
    both = fastmrigan(*arguments, "--salt", "x" * 20)
    assert both.returncode == 2
    assert "give one of them" in both.stderr
