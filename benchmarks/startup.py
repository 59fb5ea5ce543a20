"""From the start of a process to its first slice.

    python benchmarks/startup.py model.onnx [--rounds 9]

Each round starts a fresh interpreter that loads the model with batch 1 and samples one slice; the
clock runs from before the process exists until the slice is in memory. A bare interpreter that
imports numpy alone is timed in between, as the floor. Python's bytecode is cached, as pip and every
earlier start leave it, whatever PYTHONDONTWRITEBYTECODE says here: compiling the sources anew takes
as long as all the rest. Exits 6 over the bar (0.6 s) or where torch was imported.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

BAR_SECONDS = 0.6
FIRST_SLICE = """
import sys, time
import fastmrigan.runtime
fastmrigan.runtime.load(sys.argv[1], batch=1).sample(1)
print(time.clock_gettime(time.CLOCK_MONOTONIC), "torch" in sys.modules)
"""
FLOOR = """
import time, numpy
print(time.clock_gettime(time.CLOCK_MONOTONIC), False)
"""


def seconds(code: str, model: str, environment: Mapping[str, str]) -> tuple[float, bool]:
    command = [sys.executable, "-P", "-c", code, model]
    began = time.clock_gettime(time.CLOCK_MONOTONIC)
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    ended, torch = done.stdout.split()
    return float(ended) - began, torch == "True"


def measure(model: str, rounds: int) -> tuple[list[float], list[float], bool]:
    """Seconds to the first slice, those of the floor, and whether torch was imported."""
    first, floor, torch = [], [], False
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as bytecode:
        environment["PYTHONPYCACHEPREFIX"] = bytecode
        for _ in range(rounds + 1):
            took, imported = seconds(FIRST_SLICE, model, environment)
            first.append(took)
            torch |= imported
            floor.append(seconds(FLOOR, model, environment)[0])
    return first[1:], floor[1:], torch  # the first round fills the caches


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    first, floor, torch = measure(options.model, options.rounds)
    print(
        f"process start to first slice: min {min(first):.3f} s, median "
        f"{statistics.median(first):.3f} s, max {max(first):.3f} s (bar {BAR_SECONDS} s); "
        f"interpreter and numpy alone: median {statistics.median(floor):.3f} s; "
        f"torch imported: {'yes' if torch else 'no'}"
    )
    return 0 if statistics.median(first) <= BAR_SECONDS and not torch else 6


if __name__ == "__main__":
    sys.exit(main())
