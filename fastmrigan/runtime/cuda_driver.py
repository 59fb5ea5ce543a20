"""The CUDA driver's first device, asked of libcuda itself.

Where there is no driver, TensorRT returns garbage or ends the process: nothing of it is imported
before this has found a device. Not run with a driver.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR (cuda.h)
NAME_BYTES = 256


@dataclass(frozen=True)
class CudaDevice:
    """What the driver says of a device."""

    name: str
    compute_capability: str  # e.g. "9.0"


def first_device() -> CudaDevice | None:
    """CUDA's device 0, as CUDA_VISIBLE_DEVICES counts; None without a driver or a device."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(NAME_BYTES)
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(name, NAME_BYTES, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device)
    )
    if failed:
        return None
    return CudaDevice(name.value.decode(errors="replace"), f"{major.value}.{minor.value}")


def visible_devices() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name each device of this process by; none without a driver."""
    count = ctypes.c_int()
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else map(str, range(count.value))
    return [name.strip() for name in names][: count.value]


def compute_capability() -> str | None:
    """Of the first device, e.g. "9.0"; None without a driver or a device."""
    device = first_device()
    return None if device is None else device.compute_capability
