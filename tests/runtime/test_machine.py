"""Cores that a process may use: a tree of control groups written by hand, and a real affinity."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastmrigan.runtime.machine import cpu_quota, usable_cores

V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/cpu"


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        (None, {}, math.inf),
        ("0::/", {}, math.inf),
        ("0::/", {f"{V2}/cpu.max": "max 100000\n"}, math.inf),
        ("0::/", {f"{V2}/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b", {f"{V2}/a/b/cpu.max": "400000 100000\n"}, 4.0),
        # The narrowest of all that it is in
        (
            "0::/a/b",
            {f"{V2}/a/b/cpu.max": "max 100000\n", f"{V2}/a/cpu.max": "200000 100000\n"},
            2.0,
        ),
        # In a container the path may be the host's and the mount the container's own
        ("0::/docker/123", {f"{V2}/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/../x", {f"{V2}/cpu.max": "50000 100000\n", "sys/fs/x/cpu.max": "1 100000\n"}, 0.5),
        (
            "5:memory:/a\n4:cpu,cpuacct:/a",
            {f"{V1}/a/cpu.cfs_quota_us": "300000\n", f"{V1}/a/cpu.cfs_period_us": "100000\n"},
            3.0,
        ),
        (
            "4:cpu,cpuacct:/a\n0::/",
            {f"{V1}/a/cpu.cfs_quota_us": "-1\n", f"{V1}/a/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
        ("4:cpuset:/a", {f"{V1}/cpu.cfs_quota_us": "1\n"}, math.inf),
    ],
)
def test_quota_of_the_control_groups(tmp_path: Path, groups, files, cores) -> None:
    if groups is not None:
        files = files | {"proc/self/cgroup": groups + "\n"}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cpu_quota(tmp_path) == cores
    affinity = len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path) == max(1, min(affinity, int(min(cores, 1e6))))


CHILD = """
import json, os, sys
core = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {core})
import fastmrigan.runtime
told = []
for backend in ("openvino", "onnxruntime"):
    for mode in ("latency", "throughput"):
        generator = fastmrigan.runtime.load(sys.argv[1], backend, mode=mode)
        generator.sample(9)
        told.append((generator.backend.threads, generator.backend.streams))
print(json.dumps([told, os.sched_getaffinity(0) == {core}]))
"""


def test_engines_keep_to_the_affinity_of_the_process_and_leave_it_as_it_is(write_model) -> None:
    command = [sys.executable, "-c", CHILD, str(write_model())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[[1, 1]] * 4, True]
