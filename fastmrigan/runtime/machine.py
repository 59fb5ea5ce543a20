"""Facts of the machine a figure was measured on (Linux)."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np


def machine() -> dict[str, Any]:
    """The hardware and system a figure belongs to; None for what this system does not tell."""
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "cores_usable": usable_cores(),
        "governor": governor.read_text().strip() if governor.is_file() else None,
        "memory": _proc_field("/proc/meminfo", "MemTotal"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def usable_cores(root: Path = Path("/")) -> int:
    """Cores for the threads of this process: as its affinity and its control group allow (Linux).

    A quota of 1.5 cores counts as one: a thread beyond the quota is stopped for a part of every
    period, and the others wait for it.
    """
    allowed = min(len(os.sched_getaffinity(0)), cpu_quota(root))
    return max(1, math.floor(allowed))


def cpu_quota(root: Path = Path("/")) -> float:
    """How many cores' time the control groups of this process may use; inf without a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    least = math.inf
    for line in lines:  # number:controllers:path
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            mount = root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):  # version 1
            mount = root / "sys/fs/cgroup/cpu"
        else:
            continue
        # In a container the group may be the host's, not there, or out of sight (/../name)
        group = mount if ".." in path.split("/") else mount / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount):
                least = min(least, _limit(folder))
    return least


def _limit(group: Path) -> float:
    """The quota of one control group, in cores."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
    except OSError:  # the root has neither
        return math.inf
    return math.inf if quota.strip() in ("max", "-1") else int(quota) / int(period)


def processor() -> str:
    """The processor's name as the system gives it."""
    return _proc_field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def _proc_field(file: str, name: str) -> str | None:
    if not Path(file).is_file():
        return None
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def cpu_seconds() -> float:
    """CPU seconds all processes of the machine have used since it started (Linux)."""
    ticks = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = (int(t) for t in ticks[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def peak_memory_mb() -> float:
    """MiB of resident memory this process has had at most; not ru_maxrss, which begins with that
    of the process that forked it (Linux)."""
    kibibytes = _proc_field("/proc/self/status", "VmHWM") or "0 kB"
    return int(kibibytes.split()[0]) / 1024
