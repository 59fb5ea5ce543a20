"""What the tests of this room share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads on tensors this small spend their time on waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fresh_process() -> Callable[..., str]:
    """fresh_process(code, **environment) is what `code` prints in a Python of its own, which finds
    tests/support; a failure there is one here."""

    def run(code: str, *, timeout: float = 300, **environment: str) -> str:
        # Behind what stands there already: on a GPU machine the package itself may come that way.
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(SUPPORT)]))
        env = os.environ | {"PYTHONPATH": path} | environment
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=timeout
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
