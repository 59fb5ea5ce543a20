import hashlib

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from fastmrigan.errors import UsageError
from fastmrigan.metrics import frechet_distance
from fastmrigan.metrics.features import DIMENSION, frozen_weights, random_features


def heads(count, size=64, seed=0):
    """Crude heads: a bright rim, folded grey inside, now and then a blob; float32 in [-1, 1]."""
    draws = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    slices = []
    for _ in range(count):
        a, b, phase = *draws.uniform(0.6, 0.9, 2), draws.uniform(0, 6)
        radius = np.hypot(x / a, y / b)
        folds = np.sin(9 * x + phase) * np.sin(8 * y - phase)
        head = np.where(radius < 1, 0.1 + 0.25 * folds, -1.0)
        head[(radius > 0.9) & (radius < 1)] = 0.8
        u, v = draws.uniform(-0.4, 0.4, 2)
        head[np.hypot(x - u, y - v) < draws.uniform(0, 0.3)] = 0.6
        slices.append(head + 0.02 * draws.standard_normal(head.shape))
    return np.stack(slices).clip(-1, 1).astype(np.float32)


@pytest.fixture(scope="module")
def real():
    return heads(120)


def test_the_weights_are_frozen():
    """A change here changes every fd-random ever written down: raise FEATURES_VERSION with it."""
    digest = hashlib.sha256()
    for weight in frozen_weights():
        digest.update(np.round(weight.numpy().astype(np.float64), 5).tobytes())
    assert digest.hexdigest()[:16] == "4c8f47b6b2ed0884"


def test_shape_and_independence_of_neighbours(real):
    rows = random_features(real[:40])
    assert rows.shape == (40, DIMENSION)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(random_features(real[33:34]), rows[33:34], atol=1e-5)
    np.testing.assert_array_equal(rows, random_features(real[:40]))


@pytest.mark.parametrize("size", [16, 50, 96, 256])
def test_other_sizes_give_the_same_features(size):
    rows = random_features(heads(3, size))
    assert rows.shape == (3, DIMENSION)
    assert np.isfinite(rows).all()


def test_the_threads_do_not_matter(real):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = random_features(real[:64])
        torch.set_num_threads(2)
        np.testing.assert_allclose(random_features(real[:64]), one, atol=1e-6)
    finally:
        torch.set_num_threads(threads)


def noisy(slices, level):
    return slices + level * np.random.default_rng(1).standard_normal(slices.shape)


def blurred(slices, level):
    return gaussian_filter(slices, (0, level, level))


def shifted(slices, level):
    return np.roll(slices, level, axis=2)


def collapsed(slices, level):
    return slices[np.random.default_rng(1).integers(0, round(len(slices) / level), len(slices))]


def dimmed(slices, level):
    return (slices + 1) * (1 - level) - 1


DEGRADATIONS = {
    noisy: (0.05, 0.1, 0.2, 0.4),
    blurred: (0.5, 0.8, 1.2, 2.0),
    shifted: (1, 3, 6, 12),
    collapsed: (4, 12, 40, 120),
    dimmed: (0.05, 0.1, 0.2, 0.4),
}


@pytest.mark.parametrize("degrade", DEGRADATIONS, ids=lambda f: f.__name__)
def test_fd_random_orders_degradations(real, degrade):
    reference = random_features(real)
    distances = [
        frechet_distance(
            reference, random_features(degrade(real, level).clip(-1, 1).astype(np.float32))
        )
        for level in DEGRADATIONS[degrade]
    ]
    assert distances == sorted(distances)
    assert distances[-1] > 4 * distances[0]


def test_fd_random_is_near_the_floor_for_the_same_source_and_far_for_noise(real):
    reference = random_features(real)
    alike = frechet_distance(reference, random_features(heads(120, seed=1)))
    grey = 0.1 * np.random.default_rng(0).standard_normal(real.shape)
    unlike = frechet_distance(reference, random_features(grey.astype(np.float32)))
    assert alike < 0.05 * unlike


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((64, 64), np.float32), np.zeros((2, 64, 64)), np.zeros((2, 15, 64), np.float32)],
)
def test_errors(wrong):
    with pytest.raises(UsageError, match=r"random_features: expected float32 \[N, H, W\]"):
        random_features(wrong)


@pytest.mark.parametrize("shown", [True, False])
def test_progress_is_shown_or_not(capsys, shown):
    random_features(np.zeros((2, 16, 16), np.float32), label="slices of a test", shown=shown)
    said = capsys.readouterr()
    assert said.out == ""
    assert ("slices of a test" in said.err) == shown
    assert shown or not said.err


@pytest.mark.slow
def test_real_slices(real_data):
    from PIL import Image

    files = sorted((real_data("t2-tumour-nontumour") / "tumour").iterdir())
    slices = np.stack([np.asarray(Image.open(f).convert("L").resize((64, 64))) for f in files])
    slices = slices.astype(np.float32) / 127.5 - 1
    rows = random_features(slices)
    order = np.random.default_rng(0).permutation(len(rows))
    floor = frechet_distance(rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]])
    worse = [
        frechet_distance(rows, random_features(blurred(slices, s).astype(np.float32)))
        for s in (0.8, 2.0)
    ]
    assert floor < worse[0] < worse[1]
