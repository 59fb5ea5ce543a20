"""Pairwise similarity of slices: SSIM, multi-scale SSIM, PSNR and MAE, over the frame or in a mask.

One native pass over a pair (csrc/ssim) gives SSIM, PSNR and MAE. For every function here:

a, b: [H, W] or [N, H, W] of one shape, any real type, taken as float32. Or float32 torch tensors on
one CUDA device; then the pass runs there, and the results come back as NumPy's.
mask: bool, [H, W] (one for all) or [N, H, W], True is counted; each slice's must hold a pixel. None
is the whole frame.
data_range: the span of possible values (2 for slices in [-1, 1], 255 for uint8).
The border: SSIM is averaged over the pixels whose 11x11 window lies inside the slice, so without a
border of 5 pixels. A mask chooses among the same pixels: what it holds of that border enters PSNR
and MAE, but not SSIM. The window of a pixel near the mask's rim looks over it.
NaN: a pixel that is NaN or infinite and counts, or that a counted window sees, makes that slice's
result NaN (of infinite ones, PSNR and MAE may be infinite); one that the mask keeps out does not.
Returned is float64 [N], or a float for [H, W]. UsageError for any other shape, type or range, and
where a mask counts nothing of a slice.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import numpy as np
import numpy.typing as npt

from fastmrigan import _core
from fastmrigan.errors import UsageError
from fastmrigan.metrics.checks import array_or_tensor

Array = npt.NDArray[Any]
Scores = npt.NDArray[np.float64]
if TYPE_CHECKING:
    from torch import Tensor

    Slices = Array | Tensor

WINDOW = 11  # SSIM's window, pixels; its Gaussian has sigma 1.5
K1, K2 = 0.01, 0.03  # SSIM's stabilising constants (Wang et al. 2004, section III.B)
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of multi-scale SSIM, the finest first

# Columns of what the native pass sums of a pair (csrc/ssim/ssim.h).
SSIM_LOSS, CONTRAST_LOSS, ABSOLUTE, SQUARED, WINDOWS, PIXELS, TERMS = range(7)


class Similarity(NamedTuple):
    """Of N pairs: float64 [N] each."""

    ssim: Scores  # in [-1, 1], higher is better
    psnr: Scores  # dB, higher is better, inf for equal slices
    mae: Scores  # in the units of the slices, lower is better


def compare(
    a: Slices,
    b: Slices,
    data_range: float = 2.0,
    mask: Slices | None = None,
) -> Similarity:
    """SSIM, PSNR and MAE in one pass: arrays [N], with N = 1 for [H, W].

    H and W at least 11.
    """
    sums = _sums("compare", a, b, mask, _positive("compare", data_range))
    return Similarity(
        1 - _mean(sums, SSIM_LOSS, "compare"),
        _decibels(sums, data_range, "compare"),
        _mean(sums, ABSOLUTE, "compare"),
    )


def mae(a: Slices, b: Slices, *, mask: Slices | None = None) -> Scores | float:
    """Mean absolute error, in the units of the slices; 0 is best."""
    return _per_slice(a, _mean(_sums("mae", a, b, mask), ABSOLUTE, "mae"))


def psnr(
    a: Slices,
    b: Slices,
    *,
    data_range: float,
    mask: Slices | None = None,
) -> Scores | float:
    """Peak signal-to-noise ratio, dB: 10 log10(data_range² / mean squared error).

    Higher is better, equal slices give inf.
    """
    span = _positive("psnr", data_range)
    return _per_slice(a, _decibels(_sums("psnr", a, b, mask), span, "psnr"))


def ssim(
    a: Slices,
    b: Slices,
    *,
    data_range: float,
    mask: Slices | None = None,
) -> Scores | float:
    """Structural similarity (Wang et al. 2004): 11x11 Gaussian window of sigma 1.5.

    Population covariance; equal to scikit-image's structural_similarity(gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False, data_range=...). In [-1, 1], higher is better, equal
    slices give 1. H and W at least 11.
    """
    span = _positive("ssim", data_range)
    return _per_slice(a, 1 - _mean(_sums("ssim", a, b, mask, span), SSIM_LOSS, "ssim"))


def ms_ssim(
    a: Slices,
    b: Slices,
    *,
    data_range: float,
    mask: Slices | None = None,
) -> Scores | float:
    """Multi-scale SSIM (Wang, Simoncelli, Bovik 2003): five scales, each half the one before.

    The product over scales of (mean contrast and structure)^weight, at the last of the mean SSIM
    instead; a mean below 0 counts as 0, so inverted contrasts (T1 against T2) have none. From scale
    to scale 2x2 pixels are averaged, and an odd last row or column is left out. In [0, 1], higher
    is better. H and W at least 176, so that the window fits into the last scale. At every scale a
    mask holds the pixels of which it holds at least half the area, and the border of 5 pixels is
    that scale's own: at the last, 80 pixels of the slice.
    """
    span = _positive("ms_ssim", data_range)
    a, b, mask = _given("ms_ssim", a, b, mask)
    least = WINDOW << (len(SCALES) - 1)
    if len(a.shape) in (2, 3) and min(a.shape[-2:]) < least:
        raise UsageError(
            f"ms_ssim: a slice of {a.shape[-2]}x{a.shape[-1]} is smaller than {least}x{least}, of "
            f"which {len(SCALES)} scales can be made; give larger slices, or take ssim"
        )
    product = np.ones(1)
    held: Any = mask  # then the share of each pixel that the mask holds
    for scale, weight in enumerate(SCALES):
        if scale > 0:
            a, b = _halved(a), _halved(b)
            held = held if held is None else _halved(1.0 * held)
            mask = held if held is None else held >= 0.5
        name = "ms_ssim" if scale == 0 else f"ms_ssim, scale {scale + 1} of {len(SCALES)}"
        last = scale == len(SCALES) - 1
        sums = _sums(name, a, b, mask, span)
        mean = 1 - _mean(sums, SSIM_LOSS if last else CONTRAST_LOSS, name)  # [N]
        product = product * np.maximum(mean, 0) ** weight
    return _per_slice(a, product)


def _halved(x: Any) -> Any:
    """[..., H, W] to [..., H // 2, W // 2]: means of 2x2 pixels, float32, of an array or tensor."""
    x = x if _is_tensor(x) else np.asarray(x, dtype=np.float32)
    rows, columns = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    top, bottom = x[..., 0:rows:2, :columns], x[..., 1:rows:2, :columns]
    both = top + bottom  # [..., H // 2, W]
    return 0.25 * (both[..., 0::2] + both[..., 1::2])


def _sums(
    name: str,
    a: Slices,
    b: Slices,
    mask: Slices | None,
    span: float | None = None,
) -> Scores:
    """Float64 [N, TERMS], one native pass; without a span there are no windows."""
    a, b, mask = _given(name, a, b, mask)
    if tuple(a.shape) != tuple(b.shape) or len(a.shape) not in (2, 3) or 0 in a.shape[-2:]:
        raise UsageError(
            f"{name}: expected two arrays of the same shape [H, W] or [N, H, W], "
            f"got {list(a.shape)} and {list(b.shape)}"
        )
    n, (h, w) = 1 if len(a.shape) == 2 else a.shape[0], a.shape[-2:]
    if span is not None and min(h, w) < WINDOW:
        raise UsageError(
            f"{name}: a slice of {h}x{w} is smaller than the {WINDOW}x{WINDOW} window; "
            f"give slices of at least {WINDOW} pixels a side"
        )
    if mask is not None and (
        str(mask.dtype) not in ("bool", "torch.bool")
        or tuple(mask.shape) not in (tuple(a.shape), (h, w))
    ):
        raise UsageError(
            f"{name}: expected a bool mask of shape {list(a.shape)} or {[h, w]}, "
            f"got {mask.dtype} {list(mask.shape)}"
        )
    mask_stride = h * w if mask is not None and len(mask.shape) == 3 else 0
    constants = (0.0, 0.0) if span is None else ((K1 * span) ** 2, (K2 * span) ** 2)
    settings = (mask_stride, *constants, span is not None)
    places = [str(x.device) if _is_tensor(x) else "cpu" for x in (a, b, mask) if x is not None]
    if set(places) != {"cpu"}:
        if len(set(places)) > 1 or not places[0].startswith("cuda"):
            raise UsageError(
                f"{name}: expected everything on the CPU or on one CUDA device, got "
                f"{', '.join(places)}; move it to one"
            )
        return _sums_cuda(name, (n, h, w), a, b, mask, settings)
    a32, b32 = _float32(name, a), _float32(name, b)
    inside = None if mask is None else np.ascontiguousarray(mask)
    sums = np.empty((n, TERMS))
    _core.similarity(
        (n, h, w),
        a32.ctypes.data,
        b32.ctypes.data,
        0 if inside is None else inside.ctypes.data,
        *settings,
        sums.ctypes.data,
        0,  # threads: as OpenMP chooses
    )
    return sums


def _given(name: str, a: Any, b: Any, mask: Any) -> tuple[Any, Any, Any]:
    """Arrays, or tensors that are on a CUDA device. Raises UsageError for anything else."""
    a, b = (array_or_tensor(x, f"{name}: expected slices [H, W] or [N, H, W]") for x in (a, b))
    return a, b, mask if mask is None else array_or_tensor(mask, f"{name}: expected a bool mask")


def _sums_cuda(
    name: str,
    shape: tuple[int, int, int],
    a: Any,
    b: Any,
    mask: Any,
    settings: tuple[int, float, float, bool],
) -> Scores:
    import torch

    if a.dtype != torch.float32 or b.dtype != torch.float32:
        raise UsageError(f"{name}: expected float32 tensors on CUDA, got {a.dtype} and {b.dtype}")
    a, b = a.contiguous(), b.contiguous()
    inside = None if mask is None else mask.contiguous()
    with torch.cuda.device(a.device):
        room = _core.similarity_cuda_workspace(shape, settings[-1])
        doubles = {"dtype": torch.float64, "device": a.device}
        workspace, sums = torch.empty(room, **doubles), torch.empty((shape[0], TERMS), **doubles)
        _core.similarity_cuda(
            shape,
            a.data_ptr(),
            b.data_ptr(),
            0 if inside is None else inside.data_ptr(),
            *settings,
            sums.data_ptr(),
            workspace.data_ptr(),
            torch.cuda.current_stream().cuda_stream,
        )
    return sums.cpu().numpy()


def _is_tensor(x: object) -> TypeGuard[Tensor]:
    """Without importing torch for those who hand in arrays."""
    return type(x).__module__.partition(".")[0] == "torch"


def _float32(name: str, x: Slices) -> npt.NDArray[np.float32]:
    array = np.asarray(x)
    if array.dtype.kind not in "buif":
        raise UsageError(f"{name}: expected slices of real numbers, got {array.dtype}")
    return np.ascontiguousarray(array, dtype=np.float32)


def _mean(sums: Scores, term: int, name: str) -> Scores:
    counts = sums[:, WINDOWS if term in (SSIM_LOSS, CONTRAST_LOSS) else PIXELS]  # [N]
    if not counts.all():
        where = " outside the border of 5" if term in (SSIM_LOSS, CONTRAST_LOSS) else ""
        raise UsageError(
            f"{name}: the mask of slice {int(np.argmin(counts))} holds no counted pixel{where}; "
            "leave such slices out"
        )
    return sums[:, term] / counts


def _decibels(sums: Scores, span: float, name: str) -> Scores:
    with np.errstate(divide="ignore"):
        return 10 * np.log10(span**2 / _mean(sums, SQUARED, name))


def _positive(name: str, data_range: float) -> float:
    if not (
        isinstance(data_range, int | float | np.integer | np.floating)
        and math.isfinite(data_range)
        and data_range > 0
    ):
        raise UsageError(f"{name}: data_range must be a positive number, got {data_range!r}")
    return float(data_range)


def _per_slice(a: Slices, scores: Scores) -> Scores | float:
    return float(scores[0]) if len(a.shape) == 2 else scores
