"""Pairwise similarity of slices: PSNR, SSIM and MAE, over the frame or inside a mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import UsageError

Array = npt.NDArray[np.generic]
Scores = npt.NDArray[np.float64]

WINDOW = 11  # SSIM's window, pixels
SIGMA = 1.5  # SSIM's Gaussian, pixels
K1, K2 = 0.01, 0.03  # SSIM's stabilising constants (Wang et al. 2004, section III.B)


def mae(a: Array, b: Array, *, mask: Array | None = None) -> Scores | float:
    """Mean absolute error, in the units of the slices; 0 is best.

    a, b: [H, W] or [N, H, W], any real dtype; mask: bool, [H, W] or [N, H, W], True is counted.
    Returns a float for [H, W], float64 [N] for [N, H, W].
    """
    a64, b64, inside = _pair("mae", a, b, mask)
    return _per_slice(a, _mean(np.abs(a64 - b64), inside, "mae"))


def psnr(a: Array, b: Array, *, data_range: float, mask: Array | None = None) -> Scores | float:
    """Peak signal-to-noise ratio, dB: 10 log10(data_range² / mean squared error).

    data_range: the span of possible values (2 for slices in [-1, 1], 255 for uint8).
    Shapes and return as in `mae`; higher is better, identical slices give inf.
    """
    a64, b64, inside = _pair("psnr", a, b, mask)
    peak = _positive("psnr", data_range)
    with np.errstate(divide="ignore"):
        return _per_slice(a, 10 * np.log10(peak**2 / _mean((a64 - b64) ** 2, inside, "psnr")))


def ssim(a: Array, b: Array, *, data_range: float, mask: Array | None = None) -> Scores | float:
    """Structural similarity (Wang et al. 2004): 11x11 Gaussian window of sigma 1.5.

    Population covariance; averaged over the pixels whose window lies inside the slice, that is
    without a border of 5. Equal to scikit-image's structural_similarity(gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False, data_range=...). A mask chooses among the same pixels.
    Shapes and return as in `mae`; in [-1, 1], higher is better, identical slices give 1.
    """
    a64, b64, inside = _pair("ssim", a, b, mask)
    span = _positive("ssim", data_range)
    if min(a64.shape[1:]) < WINDOW:
        raise UsageError(
            f"ssim: a slice of {a64.shape[1]}x{a64.shape[2]} is smaller than the "
            f"{WINDOW}x{WINDOW} window; give slices of at least {WINDOW} pixels a side"
        )
    border = WINDOW // 2
    if inside is not None:
        inside = inside[:, border:-border, border:-border]  # [N, H-10, W-10]
    scores = [_ssim_map(x, y, span) for x, y in zip(a64, b64, strict=True)]  # N x [H-10, W-10]
    return _per_slice(a, _mean(np.stack(scores), inside, "ssim"))


def _ssim_map(x: Scores, y: Scores, span: float) -> Scores:
    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x = _smooth(x * x) - mean_x * mean_x
    var_y = _smooth(y * y) - mean_y * mean_y
    cov = _smooth(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    return top / ((mean_x * mean_x + mean_y * mean_y + c1) * (var_x + var_y + c2))


def _smooth(x: Scores) -> Scores:
    """The Gaussian window, separable, only where it fits: [H, W] to [H-10, W-10]."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    rows, columns = x.shape[0] - WINDOW + 1, x.shape[1] - WINDOW + 1
    down = sum(w * x[i : i + rows] for i, w in enumerate(weights))  # [H-10, W]
    return sum(w * down[:, i : i + columns] for i, w in enumerate(weights))  # [H-10, W-10]


def _pair(
    name: str, a: Array, b: Array, mask: Array | None
) -> tuple[Scores, Scores, npt.NDArray[np.bool_] | None]:
    """Both as float64 [N, H, W] (N = 1 for one slice), and the mask broadcast to them."""
    if a.shape != b.shape or a.ndim not in (2, 3) or a.size == 0:
        raise UsageError(
            f"{name}: expected two arrays of the same shape [H, W] or [N, H, W], "
            f"got {list(a.shape)} and {list(b.shape)}"
        )
    shape = (1, *a.shape) if a.ndim == 2 else a.shape
    inside = None
    if mask is not None:
        if mask.dtype != np.bool_ or mask.shape not in (a.shape, a.shape[-2:]):
            raise UsageError(
                f"{name}: expected a bool mask of shape {list(a.shape)} or {list(a.shape[-2:])}, "
                f"got {mask.dtype} {list(mask.shape)}"
            )
        inside = np.broadcast_to(mask, shape)
    return a.astype(np.float64).reshape(shape), b.astype(np.float64).reshape(shape), inside


def _mean(values: Scores, inside: npt.NDArray[np.bool_] | None, name: str) -> Scores:
    if inside is None:
        return values.mean(axis=(1, 2))  # [N]
    counts = inside.sum(axis=(1, 2))  # [N]
    if not counts.all():
        empty = int(np.argmin(counts))
        raise UsageError(f"{name}: the mask of slice {empty} holds no counted pixel")
    return np.where(inside, values, 0.0).sum(axis=(1, 2)) / counts


def _positive(name: str, data_range: float) -> float:
    if not (np.isfinite(data_range) and data_range > 0):
        raise UsageError(f"{name}: data_range must be a positive number, got {data_range}")
    return float(data_range)


def _per_slice(a: Array, scores: Scores) -> Scores | float:
    return float(scores[0]) if a.ndim == 2 else scores
