"""The chaos script: nothing is lost in a quick storm, and what is lost is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "chaos.py"
QUICK = ("--rounds", "2", "--shards", "200", "--shard-size", "64")


@pytest.fixture
def chaos(write_model):
    def run(*more: str, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), str(write_model()), *QUICK, *more]
        environment = {**os.environ}
        environment.pop("PYTHONSAFEPATH", None)  # the script's modules lie beside it
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.slow
def test_a_quick_storm_loses_nothing(chaos, tmp_path):
    written = tmp_path / "chaos.json"
    done = chaos("--seed", "1", "--json", str(written))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 jobs of 200 shards: 0 losses" in done.stdout
    document = json.loads(written.read_text())
    assert document["losses"] == []
    assert document["done"]["end"]["ended"] == {"0": 2}
    disturbed = {kind: each for kind, each in document["done"].items() if kind != "end"}
    assert 8 <= sum(each["times"] for each in disturbed.values()) <= 12
    assert sum(each["midway"] for each in disturbed.values()) >= 4


@pytest.mark.slow
def test_what_is_lost_is_told(chaos, tmp_path):
    """Where `verify` finds nothing, the bytes themselves tell."""
    script = tmp_path / "blind.py"
    script.write_text(
        f"""
import sys
sys.path.insert(0, {str(SCRIPT.parent)!r})
import chaos
real = chaos.command_of
def blind(*arguments):
    if arguments[0] == "verify":
        return [sys.executable, "-c", ""]
    return real(*arguments)
chaos.command_of = blind
sys.exit(chaos.main())
"""
    )
    done = chaos("--seed", "1", script=script)
    assert done.returncode == 6, done.stdout + done.stderr
    assert ", corrupt, " in done.stdout
    assert "and not found" in done.stdout
    assert "is not what it was in the undisturbed run" in done.stdout
