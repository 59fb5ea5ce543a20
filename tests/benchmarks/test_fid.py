"""The whole FID against pytorch-fid's, by the benchmark on few slices: it checks both figures."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fid.py"


@pytest.mark.slow
def test_features_and_fid_equal_pytorch_fids(monkeypatch):
    """Features to 1e-4 and FID to 1e-3, with the same random weights in both."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    try:
        importlib.import_module("peers").pytorch_fid(Path("none"))
    except ImportError as absent:
        pytest.skip(str(absent))
    environment = {**os.environ, "FASTMRIGAN_INCEPTION": ""}
    environment.pop("PYTHONSAFEPATH", None)  # the benchmark's modules lie beside it
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Inception's random weights" in done.stdout
    assert "features: at most" in done.stdout
    assert "FID off by" in done.stdout
