"""Radiomic-style features: intensity, co-occurrence and run lengths inside the brain mask.

Definitions and codes are those of the Image Biomarker Standardisation Initiative (IBSI reference
manual, arXiv:1612.07003; ibsi.readthedocs.io, chapter 3): a code such as ACUI names one formula.
What IBSI leaves open is fixed here: intensities are (x + 1) / 2, so 0 is black and 1 is white;
32 grey levels of fixed width over [0, 1]; neighbours at distance 1 in the four directions of the
slice, their matrices merged before a feature is taken (IBSI's "2D, slice-merged", SUJT).

A tumour or a repeated texture moves these numbers where a network trained on photographs may not
look. They depend on the pixel size, so values compare between slices of one size only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastmrigan.imaging.mask import brain_mask

LEVELS = 32
SMALLEST = 16  # pixels a side

# Each feature's IBSI code and its unit. A row of features holds values over units, so that none
# outweighs the others in a distance. A unit is the standard deviation over 200 slices each of the
# phantom's T1, T2, PD and FLAIR at 128x128 (`tests/metrics/test_radiomics.py` takes it again), and
# frozen here, so that distances compare between data sets.
UNITS: dict[str, tuple[str, float]] = {
    "area share": ("none", 0.0709),  # of the frame inside the mask
    "mean": ("Q4LE", 0.121),
    "variance": ("ECT3", 0.0124),
    "skewness": ("KE2A", 1.19),
    "kurtosis": ("IPH6", 3.06),  # excess: 0 for a Gaussian
    "median": ("Y12H", 0.139),
    "10th percentile": ("QG58", 0.159),
    "90th percentile": ("8DWT", 0.105),
    "interquartile range": ("SALO", 0.0714),
    "mean absolute deviation": ("4FUA", 0.0392),
    "robust mean absolute deviation": ("1128", 0.0298),
    "entropy": ("TLU2", 0.451),  # bits
    "uniformity": ("BJ5W", 0.0372),
    "joint maximum": ("GYBY", 0.0238),
    "joint entropy": ("TU9B", 0.796),  # bits
    "angular second moment": ("8ZQL", 0.012),
    "contrast": ("ACUI", 7.06),
    "dissimilarity": ("8S9J", 0.635),
    "inverse difference": ("IB1Z", 0.0519),
    "inverse difference moment": ("WF0Z", 0.0618),
    "correlation": ("NI2N", 0.144),
    "cluster tendency": ("DG8W", 45.0),
    "cluster shade": ("7NFM", 892.0),
    "short runs emphasis": ("22OV", 0.0342),
    "long runs emphasis": ("W4KF", 0.203),  # its log2: a flat background makes it huge
    "grey level non-uniformity": ("OVBL", 0.0354),  # normalised
    "run length non-uniformity": ("IC23", 0.0549),  # normalised
    "run percentage": ("9ZK5", 0.0408),
    "grey level variance of runs": ("8CE5", 12.6),
    "run entropy": ("HJ9O", 0.325),  # bits
}
NAMES = tuple(UNITS)
LOGARITHMIC = "long runs emphasis"

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Levels = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


def radiomic_row(x: Float32) -> Float32:
    """Float32 [30]: the features NAMES of a slice, each over its unit (one in log2).

    x: float32 [H, W] in [-1, 1], H and W >= SMALLEST. The mask is `imaging.mask.brain_mask`; a
    slice without an object (a constant one) is taken whole.
    """
    found = measure(x, object_mask(x))
    found[LOGARITHMIC] = float(np.log2(found[LOGARITHMIC]))
    return np.array([found[name] / unit for name, (_, unit) in UNITS.items()], np.float32)


def object_mask(x: Float32) -> Bool:
    """The brain mask of a slice [H, W], or the whole frame where there is nothing bright."""
    mask = brain_mask(x)
    return mask if mask.sum() > 1 else np.ones_like(mask)


def measure(x: Float32, mask: Bool) -> dict[str, float]:
    """All features of one slice [H, W] inside a mask [H, W] of two neighbours or more."""
    grey = (x.astype(np.float64) + 1) / 2  # [H, W], 0 black, 1 white
    levels = np.clip(np.floor(LEVELS * grey).astype(np.int64) + 1, 1, LEVELS)  # [H, W]
    levels[~mask] = 0
    return (
        {"area share": float(mask.mean())}
        | intensity(grey[mask])
        | histogram(levels[mask])
        | cooccurrence(pairs(levels))
        | run_lengths(runs(levels), 4 * int(mask.sum()))
    )


def intensity(x: Float64) -> dict[str, float]:
    """IBSI 3.3, intensity-based statistics of the values x [n]."""
    low, q1, median, q3, high = np.percentile(x, (10, 25, 50, 75, 90))
    inner = x[(x >= low) & (x <= high)]
    mean, variance = x.mean(), x.var()
    spread = np.sqrt(variance)
    # A constant has neither skewness nor kurtosis: IBSI says 0.
    z = (x - mean) / spread if spread > 1e-12 else np.zeros_like(x)
    return {
        "mean": float(mean),
        "variance": float(variance),
        "skewness": float((z**3).mean()),
        "kurtosis": float((z**4).mean()) - 3 if z.any() else 0.0,
        "median": float(median),
        "10th percentile": float(low),
        "90th percentile": float(high),
        "interquartile range": float(q3 - q1),
        "mean absolute deviation": float(np.abs(x - mean).mean()),
        "robust mean absolute deviation": float(np.abs(inner - inner.mean()).mean()),
    }


def histogram(levels: Levels) -> dict[str, float]:
    """IBSI 3.4, of the grey levels [n], 1 and up."""
    p = np.bincount(levels) / len(levels)  # [levels]
    return {"entropy": entropy(p), "uniformity": float((p**2).sum())}


def pairs(levels: Levels) -> Counts:
    """IBSI 3.6: how often grey levels i and j are neighbours, [L, L], symmetric, both orders.

    levels: [H, W], 1 to L inside the mask, 0 outside. Over all four directions.
    """
    width = int(levels.max()) + 1
    total = np.zeros((width, width), np.int64)
    for a, b in (
        (levels[:, :-1], levels[:, 1:]),
        (levels[:-1], levels[1:]),
        (levels[:-1, :-1], levels[1:, 1:]),
        (levels[:-1, 1:], levels[1:, :-1]),
    ):
        found = np.bincount((a * width + b).ravel(), minlength=width * width)
        total += found.reshape(width, width)
    total = total[1:, 1:]  # without pairs that reach out of the mask
    return total + total.T


def cooccurrence(counts: Counts) -> dict[str, float]:
    """Features of a co-occurrence matrix [L, L] that holds at least one pair."""
    p = counts / counts.sum()  # [L, L]
    level = np.arange(1, len(p) + 1)
    i, j = level[:, None], level[None, :]
    apart = np.abs(i - j)  # [L, L]
    mean = float((i * p).sum())
    variance = float(((i - mean) ** 2 * p).sum())
    covariance = float(((i - mean) * (j - mean) * p).sum())
    around = i + j - 2 * mean
    return {
        "joint maximum": float(p.max()),
        "joint entropy": entropy(p),
        "angular second moment": float((p**2).sum()),
        "contrast": float((apart**2 * p).sum()),
        "dissimilarity": float((apart * p).sum()),
        "inverse difference": float((p / (1 + apart)).sum()),
        "inverse difference moment": float((p / (1 + apart**2)).sum()),
        "correlation": covariance / variance if variance > 0 else 1.0,  # one level: itself
        "cluster tendency": float((around**2 * p).sum()),
        "cluster shade": float((around**3 * p).sum()),
    }


def runs(levels: Levels) -> Counts:
    """IBSI 3.7: how many runs of each level and length there are, [L, longest].

    levels: [H, W], 1 to L inside the mask, 0 outside. A run is as many equal neighbours as follow
    each other along one of the four directions; entry [i - 1, j - 1] counts level i, length j.
    """
    longest = max(levels.shape)
    total = np.zeros((int(levels.max()) + 1) * (longest + 1), np.int64)
    for lines in (levels, levels.T, sheared(levels).T, sheared(levels[:, ::-1]).T):
        flat = np.pad(lines, ((0, 0), (0, 1))).ravel()  # a 0 ends every line
        starts = np.flatnonzero(np.diff(flat, prepend=-1))
        lengths = np.diff(starts, append=len(flat))
        inside = flat[starts] > 0
        found = flat[starts][inside] * (longest + 1) + lengths[inside]
        total += np.bincount(found, minlength=len(total))
    return total.reshape(-1, longest + 1)[1:, 1:]


def sheared(levels: Levels) -> Levels:
    """Row i moved right by i, zeros around it: [H, W] to [H, H + W - 1].

    A column of it is an anti-diagonal of `levels`.
    """
    height, width = levels.shape
    wide = np.pad(levels, ((0, 0), (0, height)))  # [H, W + H]
    return wide.ravel()[:-height].reshape(height, height + width - 1)


def run_lengths(counts: Counts, pixels: int) -> dict[str, float]:
    """Features of a run-length matrix [L, longest] of `pixels` pixels, a direction counted each."""
    number = counts.sum()
    p = counts / number  # [L, longest]
    i = np.arange(1, p.shape[0] + 1)
    j = np.arange(1, p.shape[1] + 1)
    of_level, of_length = p.sum(axis=1), p.sum(axis=0)  # [L], [longest]
    return {
        "short runs emphasis": float((of_length / j**2).sum()),
        "long runs emphasis": float((of_length * j**2).sum()),
        "grey level non-uniformity": float((of_level**2).sum()),
        "run length non-uniformity": float((of_length**2).sum()),
        "run percentage": float(number / pixels),
        "grey level variance of runs": weighted_variance(i, of_level),
        "run entropy": entropy(p),
    }


def weighted_variance(values: Counts, p: Float64) -> float:
    return float(((values - (values * p).sum()) ** 2 * p).sum())


def entropy(p: Float64) -> float:
    """In bits, of probabilities of any shape."""
    present = p[p > 0]
    return float(-(present * np.log2(present)).sum())
