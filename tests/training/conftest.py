"""What the tests of this room share."""

import sys

import pytest


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads on tensors this small spend their time on waiting for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command line in this process (torch is loaded once): exit code, stdout, stderr."""

    def run(*arguments):
        from fastmrigan.cli import main

        monkeypatch.setattr(sys, "argv", ["fastmrigan", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run
