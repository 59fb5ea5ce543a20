import mpmath
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmrigan.errors import UsageError
from fastmrigan.metrics import frechet, frechet_distance
from fastmrigan.metrics.frechet import split_half_floor


def by_square_root(a, b):
    """The textbook form with a matrix square root; needs full rank."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(s1 @ s2).real
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s1 + s2 - 2 * root)


def by_mpmath(a, b):
    """40 digits: tr (S1 S2)^(1/2) from the eigenvalues of root(S1) S2 root(S1)."""
    with mpmath.workdps(40):
        means, covs = [], []
        for x in (a, b):
            x = mpmath.matrix(x.astype(np.float64).tolist())
            mean = mpmath.matrix([sum(x[:, j]) / x.rows for j in range(x.cols)])
            c = mpmath.matrix(x.rows, x.cols)
            for i in range(x.rows):
                c[i, :] = x[i, :] - mean.T
            means.append(mean)
            covs.append(c.T * c / (x.rows - 1))
        values, q = mpmath.eigsy(covs[0])
        root = q * mpmath.diag([mpmath.sqrt(max(v, 0)) for v in values]) * q.T
        mixed = mpmath.eigsy(root * covs[1] * root, eigvals_only=True)
        overlap = sum(mpmath.sqrt(max(v, 0)) for v in mixed)
        traces = sum(c[i, i] for c in covs for i in range(c.rows))
        gap = means[0] - means[1]
        return float((gap.T * gap)[0] + traces - 2 * overlap)


def sets(n1, n2, d, seed=0, scale=1.0):
    draws = np.random.default_rng(seed)
    mix = draws.standard_normal((d, d)) / np.sqrt(d)
    a = draws.standard_normal((n1, d))
    b = draws.standard_normal((n2, d)) @ mix + 0.3
    return (scale * a).astype(np.float32), (scale * b).astype(np.float32)


@pytest.mark.parametrize(("n1", "n2", "d"), [(200, 300, 8), (500, 400, 64), (66, 1000, 64)])
def test_full_rank_equals_the_matrix_square_root(n1, n2, d):
    a, b = sets(n1, n2, d)
    assert frechet_distance(a, b) == pytest.approx(by_square_root(a, b), abs=1e-8)
    assert "QR triangle and QR triangle" in frechet(a, b).method


@pytest.mark.parametrize(
    ("n1", "n2", "d"), [(2, 2, 5), (4, 6, 12), (5, 30, 10), (11, 9, 10), (10, 10, 10), (7, 5, 1)]
)
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e3])
def test_any_rank_equals_forty_digits(n1, n2, d, scale):
    a, b = sets(n1, n2, d, scale=scale)
    expected = by_mpmath(a, b)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-11, abs=1e-10 * scale**2)


def test_gaussians_with_a_known_distance():
    draws = np.random.default_rng(0)
    x = draws.standard_normal((4000, 3))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    sigma, shift = np.array([2.0, 0.5, 3.0]), np.array([1.0, -2.0, 0.0])
    result = frechet(x, x * sigma + shift)  # x has mean 0 and covariance 1
    assert result.mean_part == pytest.approx(5.0, abs=1e-10)
    assert result.covariance_part == pytest.approx(np.square(sigma - 1).sum(), abs=1e-10)
    assert result.distance == result.mean_part + result.covariance_part


@pytest.mark.parametrize("n", [2, 20, 300])
def test_degenerate_sets(n):
    constant = np.full((n, 40), 0.25, np.float32)
    other, _ = sets(50, 2, 40)
    variance = other.astype(np.float64).var(axis=0, ddof=1).sum()
    gap = np.square(other.astype(np.float64).mean(0) - 0.25).sum()
    assert frechet_distance(constant, constant) == 0
    assert frechet_distance(constant, other) == pytest.approx(gap + variance, abs=1e-10)


def test_float32_features_are_measured_in_float64():
    a, b = sets(300, 300, 16)
    far = np.float32(4096)  # float32 sums would lose the spread beside it
    a64, b64 = (a + far).astype(np.float64), (b + far).astype(np.float64)
    assert frechet_distance(a + far, b + far) == pytest.approx(
        frechet_distance(a64 - 4096, b64 - 4096), abs=1e-8
    )


@pytest.mark.parametrize("n", [60, 61])
def test_the_floor_is_the_mean_distance_between_halves(n):
    x, _ = sets(n, 2, 5)
    draws = np.random.default_rng(7)
    halves = [draws.permutation(n) for _ in range(10)]
    expected = np.mean([by_square_root(x[order[:30]], x[order[30:60]]) for order in halves])
    assert split_half_floor(x, seed=7) == pytest.approx(expected, abs=1e-8)
    assert split_half_floor(x, seed=8) != split_half_floor(x, seed=7)


def test_the_floor_of_identical_slices_is_zero():
    assert split_half_floor(np.ones((10, 4), np.float32), seed=0) == 0


shapes = st.tuples(st.integers(2, 12), st.integers(2, 12), st.integers(1, 8))


@settings(deadline=None, max_examples=40)
@given(shape=shapes, seed=st.integers(0, 2**16), scale=st.sampled_from([1e-3, 1.0, 50.0]))
def test_symmetric_zero_on_itself_blind_to_order(shape, seed, scale):
    a, b = sets(*shape, seed=seed, scale=scale)
    tolerance = 1e-11 * scale**2 * shape[2]
    distance = frechet_distance(a, b)
    assert distance >= 0
    assert frechet_distance(b, a) == pytest.approx(distance, abs=tolerance)
    assert frechet_distance(a, a) == pytest.approx(0, abs=tolerance)
    order = np.random.default_rng(seed).permutation(len(a))
    assert frechet_distance(a[order], b) == pytest.approx(distance, abs=tolerance)


def poisoned(value):
    x = np.zeros((5, 3), np.float32)
    x[2, 1] = value
    return x


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (np.zeros((1, 3), np.float32), None, "the first set has 1 rows"),
        (None, np.zeros((0, 3), np.float32), "the second set has 0 rows"),
        (None, np.zeros((5, 4), np.float32), "same number of features, got 3 and 4"),
        (poisoned(np.nan), None, "the first set has NaN or infinity in row 2"),
        (None, poisoned(-np.inf), "the second set has NaN or infinity in row 2"),
        (np.zeros(5, np.float32), None, r"expected the first set as floats \[N, d\], got .* \[5\]"),
        (np.zeros((5, 3), int), None, "expected the first set as floats"),
    ],
)
def test_errors(a, b, text):
    good = np.zeros((5, 3), np.float32)
    with pytest.raises(UsageError, match=text):
        frechet_distance(good if a is None else a, good if b is None else b)
