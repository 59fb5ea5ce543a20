"""The soak script: what a short run tells, and that a damaged shard is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "soak.py"
QUICK = ("--minutes", "0.1", "--shard-size", "64")


def soak(script: Path, model: Path, *more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ}
    environment.pop("PYTHONSAFEPATH", None)  # the script's modules lie beside it
    command = [sys.executable, script, model, *QUICK, *more, "--", "--no-budget-check"]
    return subprocess.run(map(str, command), env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_short_soak(write_model, tmp_path):
    written = tmp_path / "soak.json"
    done = soak(SCRIPT, write_model(), "--json", str(written))
    document = json.loads(written.read_text())
    rest = [fault for fault in document["faults"] if "memory" not in fault]  # in seconds: no bar
    assert rest == [], done.stdout + done.stderr
    assert document["slices"] == 64 * document["shards"] > 0
    assert sum(window["slices"] for window in document["windows"]) >= 0.9 * document["slices"]
    assert max(window["rss_mb"] for window in document["windows"]) > 20


@pytest.mark.slow
def test_a_damaged_shard_is_told(write_model, tmp_path):
    script = tmp_path / "damaging.py"
    script.write_text(
        f"""
import sys
sys.path.insert(0, {str(SCRIPT.parent)!r})
import soak
real = soak.finished
def damaged(out):
    names = real(out)
    for name in names[:1] if names and names[0] == "shard-000000.tar" else []:
        content = bytearray((out / name).read_bytes())
        content[700] ^= 1
        (out / name).write_bytes(content)
    return names
soak.finished = damaged
sys.exit(soak.main())
"""
    )
    done = soak(script, write_model())
    assert done.returncode == 6, done.stdout + done.stderr
    assert "shard-000000.tar: is not what its receipt says" in done.stdout
