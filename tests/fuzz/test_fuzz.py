"""The fuzz target for a minute, from seeds made here; `make fuzz` runs it for longer."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TARGET = Path(__file__).parent / "fuzz_reader.py"
SECONDS = int(os.environ.get("FASTMRIGAN_FUZZ_SECONDS", "60"))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_the_reader_reads_or_refuses_whatever_it_meets(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, TARGET, f"-max_total_time={SECONDS}", "-print_final_stats=1"],
        cwd=tmp_path,  # where libFuzzer leaves an input that breaks something
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS + 300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert list(tmp_path.glob("crash-*")) == []
    runs = next(
        line for line in done.stderr.splitlines() if "stat::number_of_executed_units" in line
    )
    assert int(runs.split()[-1]) > 1000
