import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmrigan.errors import UsageError
from fastmrigan.metrics import frechet, frechet_distance, overlap
from fastmrigan.metrics.frechet import split_half_floor
from fastmrigan.metrics.moments import Moments
from fastmrigan.metrics.nuclear_norm import polar_nuclear_norm


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


@pytest.mark.parametrize(("n1", "n2", "d"), [(200, 300, 8), (500, 400, 64), (90, 1000, 64)])
def test_full_rank_equals_the_matrix_square_root(n1, n2, d):
    a, b = sets(n1, n2, d)
    assert frechet_distance(a, b) == pytest.approx(by_square_root(a, b), abs=1e-8)
    assert frechet(a, b).method == EIGENVALUES


@pytest.mark.parametrize(
    ("n1", "n2", "d"),
    [(2, 2, 5), (4, 6, 12), (5, 30, 10), (30, 5, 10), (11, 9, 10), (10, 10, 10), (7, 5, 1)],
)
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e3])
def test_any_rank_equals_forty_digits(n1, n2, d, scale):
    a, b = sets(n1, n2, d, scale=scale)
    expected = by_mpmath(a, b)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-11, abs=1e-10 * scale**2)


EIGENVALUES = "eigenvalues of L' S2 L, S1 = L L' (Cholesky)"
PROJECTIONS = "singular values of projections on centred features, their QR triangle"
PRODUCT = "singular values of the product of {} and {}".format


def known(x):
    return Moments().update(x)


def nameless(x):
    """As pytorch-fid writes them: without a count."""
    moments = known(x)
    return Moments.of_statistics(moments.mean, moments.covariance)


def same(x):
    return x


@pytest.mark.parametrize(
    ("shape", "a_is", "b_is", "method"),
    [
        ((8, 7, 10), same, same, PRODUCT("centred features", "centred features")),
        ((10, 10, 10), same, same, PRODUCT("centred features", "centred features")),
        ((8, 40, 10), same, same, PROJECTIONS),
        ((40, 8, 10), same, same, PROJECTIONS),
        ((40, 50, 10), same, same, EIGENVALUES),
        ((11, 11, 10), same, same, PRODUCT("QR triangle", "QR triangle")),
        ((40, 50, 10), known, known, EIGENVALUES),
        ((40, 50, 10), nameless, same, EIGENVALUES),
        ((8, 40, 10), same, known, PRODUCT("centred features", "Cholesky factor")),
        ((40, 8, 10), nameless, same, PRODUCT("Cholesky factor", "centred features")),
    ],
)
def test_the_shapes_choose_and_say_the_method(shape, a_is, b_is, method):
    a, b = sets(*shape)
    if shape == (11, 11, 10):  # just full: their smallest eigenvalues are too small to square
        a[:, 0] = a[:, 1] + np.float32(1e-4) * a[:, 0]
        b[:, 0] = b[:, 1] + np.float32(1e-4) * b[:, 0]
    result = frechet(a_is(a), b_is(b))
    assert result.method == method
    expected = by_mpmath(a, b)
    assert abs(result.distance - expected) <= min(result.error_bound, 1e-9)


def kinds():
    """Sets that are hard in their own ways, of order one; name, a, b."""
    a, b = sets(40, 30, 9)
    few, fewer = sets(6, 5, 9, seed=1)
    decay = np.float32(10.0) ** -np.arange(9, dtype=np.float32)
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((9, 9)))[0]
    tiny = np.float32(1e-12)
    doubled, flat = a.copy(), a.copy()
    doubled[:, 4] = doubled[:, 3]
    flat[:, 2] = 0.125
    constant = np.full((20, 9), 0.1, np.float32)
    yield "full rank", a, b
    yield "few rows", few, fewer
    yield "few and many", few, b
    yield "on itself", a, a
    yield "few on itself", few, few
    yield "constant", constant, b
    yield "both constant", constant, constant[:3]
    yield "few constant", constant[:4], few
    yield "doubled rows", np.concatenate([few] * 5), b
    yield "doubled rows, both", np.concatenate([few] * 5), np.concatenate([fewer] * 4)
    yield "doubled column", doubled, b
    yield "doubled column, both", doubled, doubled[::-1] * np.float32(0.5)
    yield "constant column", flat, b
    yield "wide spectrum", a * decay, b * decay
    yield "opposite spectra", a * decay, b * decay[::-1]
    yield "wide spectrum, turned", (a * decay) @ turn, (b * decay) @ turn  # float64
    yield "tiny variance", a * tiny, b * tiny
    yield "tiny beside one", a * tiny, b
    yield "tiny about one", 1 + a * np.float32(1e-6), 1 + b * np.float32(1e-6)
    yield "nearly the same", a, a + np.float32(1e-6)


@pytest.mark.parametrize(("a", "b"), [pytest.param(a, b, id=name) for name, a, b in kinds()])
def test_hard_sets_equal_forty_digits(a, b):
    expected = by_mpmath(a, b)
    traces = sum(x.astype(float).var(axis=0, ddof=1).sum() for x in (a, b))
    exact = frechet(a, b)
    means = sum(np.linalg.norm(x.astype(float).mean(axis=0)) for x in (a, b))
    limit = 1e-12 * traces + 2.0**-50 * means * exact.mean_part**0.5
    assert abs(exact.distance - expected) <= limit + 1e-28 * means
    assert abs(exact.distance - expected) <= exact.error_bound + 1e-28 * means
    for one, other in ((known(a), known(b)), (known(a), b), (nameless(a), nameless(b))):
        result = frechet(one, other)
        assert abs(result.distance - expected) <= result.error_bound + 1e-28, result
        assert result.error_bound <= 1e-5 * max(traces, 1)


def test_statistics_of_few_rows_state_an_error_that_holds():
    a, b = sets(50, 40, 150)
    expected = frechet(a, b)
    assert expected.error_bound < 1e-10
    result = frechet(known(a), known(b))
    assert "pivoted Cholesky factor" in result.method
    assert abs(result.distance - expected.distance) <= result.error_bound < 1e-3


def test_a_kept_factor_is_made_anew_when_rows_come():
    a, b = sets(60, 8, 12)
    reference = known(a[:40])
    assert frechet_distance(reference, b) == pytest.approx(frechet_distance(a[:40], b), abs=1e-10)
    assert "lower" in reference.cache
    reference.update(a[40:])
    assert frechet_distance(reference, b) == pytest.approx(frechet_distance(a, b), abs=1e-10)


def test_rows_are_factorised_in_parts(monkeypatch):
    monkeypatch.setattr(overlap, "QR_ROWS", 7)
    for shape in ((8, 40, 10), (11, 40, 10)):
        a, b = sets(*shape)
        if len(a) == 11:
            a[:, 0] = a[:, 1]
            b[:, 0] = b[:, 1]
        assert frechet_distance(a, b) == pytest.approx(by_mpmath(a, b), abs=1e-10)


@pytest.mark.parametrize(
    "values",
    [
        np.ones(20),
        np.zeros(20),
        np.logspace(0, -25, 20),
        np.r_[np.ones(10), np.zeros(10)],
        np.r_[1e6, np.full(19, 1e-3)],
        1e-140 * np.arange(20),
        np.ones(1),
    ],
)
def test_the_polar_factor_gives_the_nuclear_norm(values):
    draws = np.random.default_rng(3)
    left, right = (
        np.linalg.qr(draws.standard_normal((len(values), len(values))))[0] for _ in range(2)
    )
    p = torch.from_numpy(left * values @ right)
    value, bound = polar_nuclear_norm(p)
    assert abs(value - values.sum()) <= bound + 1e-15 * values.sum()
    assert bound <= 1e-11 * values.max()


def test_the_polar_bound_holds_whatever_the_polar_factor(monkeypatch):
    """Stopped long before its end, the iteration is far off, and says so."""
    p = torch.from_numpy(np.random.default_rng(0).standard_normal((30, 30)))
    monkeypatch.setattr("fastmrigan.metrics.nuclear_norm.LOWEST", 0.9)
    value, bound = polar_nuclear_norm(p)
    exact = float(torch.linalg.svdvals(p).sum())
    assert 1e-3 < abs(value - exact) <= bound


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


shapes = st.tuples(st.integers(2, 14), st.integers(2, 14), st.integers(1, 8))


@settings(deadline=None, max_examples=60)
@given(shape=shapes, seed=st.integers(0, 2**16), scale=st.sampled_from([1e-3, 1.0, 50.0]))
def test_symmetric_zero_on_itself_blind_to_order_and_rotation(shape, seed, scale):
    a, b = sets(*shape, seed=seed, scale=scale)
    result = frechet(a, b)
    tolerance = 1e-11 * scale**2 * shape[2]
    assert result.distance >= 0
    traces = sum(x.astype(float).var(axis=0, ddof=1).sum() for x in (a, b))
    assert result.error_bound <= 1.01e-10 * traces + 1e-14 * scale**2
    assert frechet_distance(b, a) == pytest.approx(result.distance, abs=tolerance)
    assert frechet_distance(a, a) == pytest.approx(0, abs=tolerance)
    draws = np.random.default_rng(seed)
    order = draws.permutation(len(a))
    assert frechet_distance(a[order], b) == pytest.approx(result.distance, abs=tolerance)
    turn = np.linalg.qr(draws.standard_normal((shape[2], shape[2])))[0]
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(result.distance, abs=tolerance)
    cut = len(a) // 2
    moments = known(a[:cut]).merge(known(a[cut:]))
    merged = frechet(moments, b)
    assert abs(merged.distance - result.distance) <= merged.error_bound + tolerance


# Below 1e-77 the product of two variances underflows; float32 features end at 1e-45.
deviations = st.one_of(st.just(0.0), st.floats(1e-60, 1e3))


@settings(deadline=None, max_examples=40)
@given(
    pairs=st.lists(st.tuples(deviations, deviations), min_size=1, max_size=12),
    gap=st.one_of(st.just(0.0), st.floats(1e-60, 100)),
)
def test_diagonal_covariances_by_hand(pairs, gap):
    """Sum of (s1 - s2)²: standard deviations may be zero, so statistics may be singular."""
    first, second = np.array(pairs).T
    mean = np.zeros(len(first))
    a = Moments.of_statistics(mean, np.diag(first**2), count=5000)
    b = Moments.of_statistics(mean + gap, np.diag(second**2))
    result = frechet(a, b)
    expected = np.square(first - second).sum() + len(first) * gap**2
    assert abs(result.distance - expected) <= result.error_bound + 1e-12 * expected


@settings(deadline=None, max_examples=60)
@given(shape=shapes, exponent=st.integers(-1000, 1010), as_moments=st.booleans())
def test_any_scale_is_exact_or_refused(shape, exponent, as_moments):
    """Features 2^k times as large are 4^k times as far apart, wherever float64 can say so."""
    a, b = (x.astype(np.float64) for x in sets(*shape))
    near = frechet(a, b)
    by, take = 2.0**exponent, known if as_moments else same
    if 1e-140 < by < 1e145:
        found = frechet(take(by * a), take(by * b))
        bound = found.error_bound if as_moments else 0
        assert found.distance == pytest.approx(near.distance * by * by, rel=1e-9, abs=bound)
        assert 1e-60 < by < 1e60 or "divided by 2^" in found.method
    elif not 1e-165 < by < 1e160:  # between the two it depends on the sets
        with pytest.raises(UsageError, match=r"overflow|underflow"):
            frechet(take(by * a), take(by * b))


@pytest.mark.parametrize("scale", [1e-170, 1e-80, 1e80, 1e150])
@pytest.mark.parametrize("shape", [(6, 5, 9), (40, 30, 9)])
def test_scales_whose_squares_float64_loses(shape, scale):
    a, b = (x.astype(np.float64) for x in sets(*shape))
    if scale < 1e-160:
        with pytest.raises(UsageError, match=r"the distance underflows float64 .* scale both"):
            frechet(scale * a, scale * b)
        return
    found = frechet(scale * a, scale * b)
    assert found.distance == pytest.approx(scale * (scale * by_mpmath(a, b)), rel=1e-11)
    assert 0 < found.error_bound < 1e-9 * found.distance
    itself = frechet(scale * a, scale * a)
    assert itself.distance <= itself.error_bound


def test_one_tiny_column_beside_a_constant_one():
    a, b = (np.stack([np.ones(n), 1e-90 * np.arange(n)], axis=1) for n in (9, 12))
    expected = frechet_distance(a[:, 1:], b[:, 1:])
    assert expected > 0
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)


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
        (poisoned(np.nan), None, "the first set: NaN or infinity in row 2"),
        (None, poisoned(-np.inf), "the second set: NaN or infinity in row 2"),
        (np.zeros(5, np.float32), None, r"the first set: expected floats \[N, d\], got .* \[5\]"),
        (np.zeros((5, 3), int), None, "the first set: expected floats"),
        (Moments(), None, "the first set has 0 rows"),
        (None, Moments().update(np.zeros((1, 3), np.float32)), "the second set has 1 rows"),
        (1e200 * np.eye(5, 3), None, "the distance overflows float64 .* scale both sets down"),
        (
            1e200 * np.eye(3),
            np.zeros((5, 3)),
            "the distance overflows float64 .* scale both sets down",
        ),
        ([[1.0, 2.0]], None, "the first set: expected floats .* an array or a tensor, got list"),
    ],
)
def test_errors(a, b, text):
    good = np.zeros((5, 3), np.float32)
    with pytest.raises(UsageError, match=text):
        frechet_distance(good if a is None else a, good if b is None else b)
