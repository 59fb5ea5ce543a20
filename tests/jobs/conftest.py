"""Fixtures that tests of jobs share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fastmrigan.cli import main


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fastmrigan", *map(str, arguments)])
        monkeypatch.setattr("signal.signal", lambda *_: None)  # this process keeps its own
        capsys.readouterr()  # what making the inputs said
        with pytest.raises(SystemExit) as left:
            main()
        stdout, stderr = capsys.readouterr()
        return int(left.value.code or 0), stdout, stderr

    return run
