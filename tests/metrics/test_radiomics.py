"""Radiomic-style features against IBSI's published values, scikit-image and hand counts."""

import numpy as np
import pytest
from skimage.feature import graycomatrix, graycoprops

from fastmrigan.errors import UsageError
from fastmrigan.imaging import radiomics
from fastmrigan.imaging.phantom import phantom_slices
from fastmrigan.metrics.radiomics import NAMES, UNITS, radiomic_features

# IBSI's digital phantom (reference manual, chapter 5): four slices, 0 outside the region.
IBSI_PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ]
)
# Its published values: intensities over the volume, textures "2D, slice-merged".
IBSI_VALUES = {
    "mean": 2.15,
    "variance": 3.05,
    "skewness": 1.08,
    "kurtosis": -0.355,
    "median": 1,
    "10th percentile": 1,
    "90th percentile": 4,
    "interquartile range": 3,
    "mean absolute deviation": 1.55,
    "robust mean absolute deviation": 1.11,
    "entropy": 1.27,
    "uniformity": 0.512,
    "joint maximum": 0.512,
    "joint entropy": 2.24,
    "angular second moment": 0.352,
    "contrast": 5.19,
    "dissimilarity": 1.4,
    "inverse difference": 0.683,
    "inverse difference moment": 0.625,
    "correlation": 0.0173,
    "cluster tendency": 5.66,
    "cluster shade": 6.98,
    "short runs emphasis": 0.661,
    "long runs emphasis": 3.51,
    "grey level non-uniformity": 0.456,
    "run length non-uniformity": 0.441,
    "run percentage": 0.627,
    "grey level variance of runs": 3.37,
    "run entropy": 2.57,
}


@pytest.fixture(scope="module")
def of_ibsi_phantom():
    inside = IBSI_PHANTOM[IBSI_PHANTOM > 0]
    textures = [
        radiomics.cooccurrence(radiomics.pairs(x))
        | radiomics.run_lengths(radiomics.runs(x), 4 * int((x > 0).sum()))
        for x in IBSI_PHANTOM
    ]
    means = {name: np.mean([found[name] for found in textures]) for name in textures[0]}
    return radiomics.intensity(inside.astype(float)) | radiomics.histogram(inside) | means


@pytest.mark.parametrize("name", IBSI_VALUES)
def test_equals_ibsi(of_ibsi_phantom, name):
    assert float(f"{of_ibsi_phantom[name]:.3g}") == pytest.approx(IBSI_VALUES[name], rel=1e-9)


def test_every_feature_is_held_against_ibsi_but_the_mask_itself():
    assert set(NAMES) == set(IBSI_VALUES) | {"area share"}


def masked_levels(shape, seed):
    """Grey levels 1 to 8 in a ragged region, 0 outside."""
    draws = np.random.default_rng(seed)
    return draws.integers(1, 9, shape) * (draws.random(shape) < 0.8)


@pytest.mark.parametrize("shape", [(16, 16), (5, 9), (40, 23)])
def test_cooccurrence_equals_scikit_image(shape):
    levels = masked_levels(shape, 0)
    angles = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
    theirs = graycomatrix(levels.astype(np.uint8), [1], angles, levels=9, symmetric=True)
    theirs = theirs[1:, 1:].sum(axis=3, keepdims=True)  # without level 0; all directions
    counts = radiomics.pairs(levels)
    np.testing.assert_array_equal(counts, theirs[:, :, 0, 0])
    found = radiomics.cooccurrence(counts)
    p = theirs / theirs.sum()
    for name, key in {
        "contrast": "contrast",
        "dissimilarity": "dissimilarity",
        "inverse difference moment": "homogeneity",
        "angular second moment": "ASM",
        "correlation": "correlation",
    }.items():
        assert found[name] == pytest.approx(float(graycoprops(p, key)[0, 0]), rel=1e-10)


def runs_by_walking(levels):
    """Every run's level and length: step along each direction from where a run begins."""
    height, width = levels.shape
    counts = np.zeros((levels.max(), max(height, width)), int)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for y, x in np.argwhere(levels > 0):
            level, length = levels[y, x], 0
            v, u = y - dy, x - dx
            if 0 <= v < height and 0 <= u < width and levels[v, u] == level:
                continue
            v, u = y, x
            while 0 <= v < height and 0 <= u < width and levels[v, u] == level:
                v, u, length = v + dy, u + dx, length + 1
            counts[level - 1, length - 1] += 1
    return counts


@pytest.mark.parametrize("shape", [(16, 16), (3, 9), (11, 4), (1, 7)])
def test_runs_equal_walking(shape):
    levels = np.where(np.random.default_rng(1).random(shape) < 0.5, masked_levels(shape, 1), 3)
    np.testing.assert_array_equal(radiomics.runs(levels), runs_by_walking(levels))


def test_intensity_is_grey_inside_the_mask_alone():
    x = np.full((20, 20), -1, np.float32)
    x[5:15, 4:12] = 0.5
    x[6:14, 5:11] = 0.2
    found = dict(zip(NAMES, radiomic_features(x[None])[0], strict=True))
    assert found["area share"] * UNITS["area share"][1] == pytest.approx(80 / 400)
    assert found["mean"] * UNITS["mean"][1] == pytest.approx((32 * 0.75 + 48 * 0.6) / 80)
    assert found["90th percentile"] * UNITS["90th percentile"][1] == pytest.approx(0.75)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_a_constant_slice_is_taken_whole(value):
    found = dict(
        zip(NAMES, radiomic_features(np.full((1, 16, 18), value, np.float32))[0], strict=True)
    )
    assert all(np.isfinite(each) for each in found.values())
    assert found["area share"] * UNITS["area share"][1] == pytest.approx(1)
    assert found["variance"] == found["skewness"] == found["kurtosis"] == found["entropy"] == 0
    assert found["correlation"] * UNITS["correlation"][1] == pytest.approx(1)


def test_shape_type_and_independence_of_neighbours():
    slices = phantom_slices(6, 64).signals["t2"] * 2 - 1
    rows = radiomic_features(slices)
    assert rows.shape == (6, len(NAMES))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(radiomic_features(slices[3:4]), rows[3:4])
    np.testing.assert_allclose(radiomic_features(slices[:, ::-1]), rows, rtol=1e-5, atol=1e-6)
    assert radiomic_features(slices[:0]).shape == (0, len(NAMES))


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((64, 64), np.float32), np.zeros((2, 64, 64)), np.zeros((2, 15, 64), np.float32)],
)
def test_errors(wrong):
    with pytest.raises(UsageError, match=r"radiomic_features: expected float32 \[N, H, W\]"):
        radiomic_features(wrong)


@pytest.mark.slow
def test_the_units_are_the_phantoms_spread():
    heads = phantom_slices(200, 128, ("t1", "t2", "pd", "flair")).signals
    rows = radiomic_features(np.concatenate(list(heads.values())) * 2 - 1)
    np.testing.assert_allclose(rows.std(axis=0), 1, atol=0.02)
