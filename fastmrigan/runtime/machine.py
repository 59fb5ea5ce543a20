"""Facts of the machine a figure was measured on (Linux)."""

from __future__ import annotations

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
        "cores_usable": len(os.sched_getaffinity(0)),
        "governor": governor.read_text().strip() if governor.is_file() else None,
        "memory": _proc_field("/proc/meminfo", "MemTotal"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


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
