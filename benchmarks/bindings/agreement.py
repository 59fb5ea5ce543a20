"""What a binding must do before it is timed: give the right numbers, refuse the wrong arguments."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from types import ModuleType
from typing import Any


class Disagreement(Exception):
    """A binding did something else than was expected of it."""


def arguments(y: int) -> dict[str, Any]:
    """A forward call on [2, 64, 128, 128] float32 with pointers of today's size."""
    pointer = 0x7F00_0000_0040
    return {
        "batch": 2,
        "channels": 64,
        "plane": 16384,
        "channels_last": False,
        "dtype": 0,
        "activation": 2,
        "slope": 0.2,
        "eps": 1e-5,
        "weight": pointer,
        "bias": pointer + 4096,
        "x": pointer + 8192,
        "x_batch_stride": 1 << 20,
        "x_step": 16384,
        "residual": None,
        "residual_batch_stride": 0,
        "residual_step": 0,
        "y": y,
        "y_batch_stride": 1 << 20,
        "y_step": 16384,
        "statistics": pointer + 12288,
        "stream": None,
        "threads": 2,
    }


def digest(values: dict[str, Any]) -> int:
    """What forward writes to *y, by function.h."""
    total = 0
    for name, value in values.items():
        if isinstance(value, float):
            words = struct.unpack("<Q", struct.pack("<d", value))
        elif name in ("weight", "bias", "residual", "stream"):
            words = (value is not None, value or 0)
        else:
            words = (value,)
        for word in words:
            total = (total * 31 + word) % 2**64
    return total


def check(module: ModuleType) -> None:
    """Raise Disagreement where a wrong number comes or a wrong argument is taken."""
    import numpy as np

    y = ctypes.c_uint64()
    good = arguments(ctypes.addressof(y))
    array = np.arange(-8, 52, dtype=np.float32).reshape(3, 20) / 4  # any order of adding is exact

    def equal(what: str, got: Any, wanted: Any) -> None:
        if got != wanted:
            raise Disagreement(f"{module.__name__}.{what}: expected {wanted}, got {got}")

    def refused(what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            got = function(*args, **kwargs)
        except TypeError:
            return
        raise Disagreement(f"{module.__name__}.{what}: expected a TypeError, got {got}")

    others: dict[str, Any] = {"channels_last": True, "slope": -0.5, "threads": -1, "x_step": -7}
    others |= {"weight": None, "bias": 0, "residual": 2**64 - 1, "stream": 1, "batch": -(2**63)}
    for values in [good, *({**good, name: value} for name, value in others.items())]:
        for call in (
            lambda v: module.forward(*v.values()),
            lambda v: module.forward(**v),
            lambda v: module.forward(**dict(reversed(v.items()))),
        ):
            y.value = 0
            equal("forward", call(values), None)
            equal("forward", y.value, digest(values))
    bad: dict[str, Any] = {"batch": 2**63, "x": -1, "plane": 1.5, "eps": "1", "y": None}
    for name, value in (bad | {"weight": "w", "unknown": 1}).items():
        refused("forward", module.forward, **{**good, name: value})
    refused("forward", module.forward, *list(good.values())[:-1])
    refused("forward", module.forward, *good.values(), threads=2)

    for x in (array, array[:0], array[1], array.reshape(3, 4, 5)):
        equal("array_sum", module.array_sum(x), float(x.sum(dtype=np.float64)))
        equal("array_sum", module.array_sum(x=x), float(x.sum(dtype=np.float64)))
    for x in (array.astype(np.float64), array[:, ::2], array.T, [1.0, 2.0], None):
        refused("array_sum", module.array_sum, x)
