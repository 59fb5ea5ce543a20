"""`fastmrigan send` as a user meets it: lines, exit codes, Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from recording_scp import Recorder
from send_files import (
    comes_true,
    folder,
    sent_to,
    uid,
)

from fastmrigan.cli import send as command
from fastmrigan.errors import UsageError

LISTED = "not sent 1 file, named with the reason in"


def test_the_command(tmp_path: Path, scp: Recorder, fastmrigan) -> None:
    root = folder(tmp_path / "in", 9)
    (root / "bad.dcm").write_text("x")
    done = fastmrigan("send", root, "--to", scp, "--from", "ME")
    assert done.returncode == 3, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{scp}: stored 9 files; 0.0 MB in ")
    assert f"{LISTED} {root}.send/rejects.jsonl:" in lines
    assert lines[-1] == "  bad.dcm: not a DICOM file (no DICM prefix at byte 128)"
    (root / "bad.dcm").unlink()
    done = fastmrigan("send", root, "--to", scp)
    assert done.returncode == 0
    assert f"{scp}: nothing stored now, 9 sent earlier" in done.stdout


def test_the_echo(scp: Recorder, capsys) -> None:
    command.send(str(scp), echo=True)
    assert capsys.readouterr().out.startswith(f"{scp} answered C-ECHO in ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in",), "--to"),
        (("in", "--to", "X@127.0.0.1:1"), "X@127.0.0.1:1: cannot be reached (Connection refused)"),
    ],
)
def test_one_line_errors(tmp_path: Path, fastmrigan, arguments, message: str) -> None:
    (tmp_path / "in").mkdir()
    done = fastmrigan("send", tmp_path / arguments[0], *arguments[1:])
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"send: name a folder of DICOM files \(or --echo"),
        ({"echo": True, "source": Path("in")}, "--echo sends no files; leave in out"),
        ({"timeout": 0.0}, "--timeout 0: give seconds above 0"),
        ({"timeout": float("nan")}, "--timeout nan: give seconds above 0"),
        ({"max_pdu": 5}, "--max-pdu 5: give 1024 bytes or more, or 0"),
        ({"source": Path("in"), "associations": 0}, "--associations 0: give 1 to 64"),
        ({"source": Path("in")}, "in: no such file or folder"),
        ({"source": Path("/")}, "^/: nothing can stand beside it .* name a folder .* --state$"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, monkeypatch, options, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        command.send("X@localhost:104", **options)


@pytest.mark.slow
def test_a_second_interrupt_ends_at_once(tmp_path: Path, scp: Recorder) -> None:
    root = folder(tmp_path / "in", 3)
    release = threading.Event()
    scp.answer = lambda count, event: release.wait(20) and 0
    command = [sys.executable, "-m", "fastmrigan", "send", str(root), "--to", str(scp)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert comes_true(lambda: scp.received)
    running.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert running.poll() is None  # it waits for the file in hand
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=10)
    release.set()
    assert running.returncode == 130
    assert errors.splitlines()[-1].startswith("fastmrigan: interrupted")
    scp.reset()
    assert sent_to(scp, root).sent == 3


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_interrupt_and_resume(tmp_path: Path, scp: Recorder, number: int) -> None:
    root = folder(tmp_path / "in", 30)
    scp.answer = lambda count, event: time.sleep(0.1) or 0
    command = [sys.executable, "-m", "fastmrigan", "send", str(root), "--to", str(scp)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert comes_true(lambda: len(scp.received) >= 4)
    running.send_signal(number)
    _, errors = running.communicate(timeout=20)
    assert running.returncode == 130, errors
    first = list(scp.instances)
    assert len(first) < 30
    last = errors.splitlines()[-1]
    said = f"{len(first)} of 30 files are sent; the same command sends the rest"
    assert last == f"fastmrigan: interrupted: {said}"
    assert comes_true(lambda: scp.released == scp.associations)  # none was cut
    scp.reset()
    result = sent_to(scp, root)
    assert result.earlier == len(first)
    assert sorted(first + scp.instances) == sorted(map(uid, range(30)))
