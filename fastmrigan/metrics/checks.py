"""What every measure asks of what it is handed, in one wording; of rows: `feature_rows`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError

Groups = npt.NDArray[np.generic]


def described(x: object) -> str:
    """`float64 [3, 4]` of an array, else the name of its type."""
    return f"{x.dtype} {list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__


def array_or_tensor(x: Any, what: str) -> Any:
    """A NumPy array (a CPU tensor becomes one), or a tensor on a CUDA device, both as they are.

    bfloat16 and float16 tensors are widened to float32, which NumPy can hold. Raises UsageError,
    which begins with `what`, for anything else; NumPy is asked for no conversion of its own.
    """
    if isinstance(x, np.ndarray):
        return x
    if type(x).__module__.partition(".")[0] != "torch" or not hasattr(x, "detach"):
        raise UsageError(f"{what}, an array or a tensor, got {described(x)}")
    if (
        str(x.layout) != "torch.strided"
        or x.device.type not in ("cpu", "cuda")
        or x.is_complex()
        or x.is_quantized
    ):
        raise UsageError(
            f"{what}, a dense real tensor on the CPU or a CUDA device, got {x.dtype} "
            f"({x.layout}) on {x.device}"
        )
    x = x.detach()
    if x.device.type == "cuda":
        return x
    return (x.float() if x.is_floating_point() and x.itemsize < 4 else x).numpy()


def check_slices(what: str, slices: Any, *, side: int = 1, fewest: int = 0) -> None:
    """UsageError, which begins with `what`, but for an array float32 [N, H, W].

    side: pixels that H and W have at least; fewest: what N is at least.
    """
    right = isinstance(slices, np.ndarray) and slices.ndim == 3 and slices.dtype == np.float32
    if right and min(slices.shape[1:]) >= side and len(slices) >= fewest:
        return
    rows = f" with N >= {fewest}" if fewest else ""
    pixels = f" of at least {side}x{side} pixels" if side > 1 else ""
    raise UsageError(f"{what}: expected float32 [N, H, W]{rows}{pixels}, got {described(slices)}")


def check_finite(what: str, slices: npt.NDArray[np.float32]) -> None:
    if not np.isfinite(slices).all():
        raise UsageError(f"{what}: NaN or infinity")


def check_groups(what: str, groups: Any, count: int) -> None:
    """UsageError, which begins with `what`, but for an array [count] of names, numbers or str."""
    if not isinstance(groups, np.ndarray) or groups.shape != (count,):
        raise UsageError(
            f"{what}: expected names of groups, an array [{count}], got {described(groups)}"
        )
    if groups.dtype.kind == "O" and not all(isinstance(name, str) for name in groups):
        raise UsageError(f"{what}: expected names of groups as str or numbers, got mixed objects")


def check_whole(what: str, value: Any, least: int) -> None:
    """UsageError, which begins with `what`, but for a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise UsageError(f"{what} must be a whole number of at least {least}, got {value!r}")
