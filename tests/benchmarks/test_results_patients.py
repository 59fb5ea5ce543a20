"""How alike slices of a patient are, and draws that are as alike."""

import numpy as np
import pytest
import results_patients as patients

from fastmrigan.metrics.frechet import frechet

MIXED = np.array([[1, 2, 0], [0, 1, 1], [0, 0, 0.5]])


def normal(draws, count):
    return (draws.normal(0, 1, (count, 3)) @ MIXED + 4).astype(np.float32)


def test_a_correlation_by_hand():
    """Of three groups of different sizes; variances within 4/3 and between 50/11."""
    rows = np.array([[0.0], [2], [6], [3], [5], [4]])
    groups = np.array([7, 7, 1, 3, 3, 3])
    assert patients.intraclass_correlation(rows, groups) == pytest.approx(75 / 97)
    both = np.hstack([rows, 0 * rows])  # a feature that is the same everywhere adds nothing
    assert patients.intraclass_correlation(both, groups) == pytest.approx(75 / 97)


def test_no_correlation_is_below_none():
    rows = np.tile([[1.0], [-1.0]], (50, 1))  # the groups' means are closer than by chance
    assert patients.intraclass_correlation(rows, np.repeat(np.arange(50), 2)) == 0


@pytest.mark.parametrize("correlation", [0, 0.3, 0.8])
def test_groups_are_drawn_from_the_features_own_distribution(correlation):
    """Whatever the groups, each row is of the one distribution; rows of a group go together."""
    draws = np.random.default_rng(0)
    features = normal(draws, 5000)
    sizes = np.tile([1, 2, 5], 5000)
    rows = patients.in_groups(sizes, correlation, patients.moments_of(features), draws)
    np.testing.assert_allclose(rows.mean(0), features.mean(0), atol=0.08)
    np.testing.assert_allclose(np.cov(rows.T), np.cov(features.T), atol=0.3)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    found = patients.intraclass_correlation(rows, groups)
    assert found == pytest.approx(correlation, abs=0.02)
    first, second = (rows[np.flatnonzero(np.diff(groups) == 0) + step] for step in (0, 1))
    shared = [np.corrcoef(*pair)[0, 1] for pair in zip(first.T, second.T, strict=True)]
    np.testing.assert_allclose(shared, correlation, atol=0.03)  # of neighbours in a group


def a_class(sizes, correlation, seed):
    draws = np.random.default_rng(seed)
    sizes = np.asarray(sizes)
    moments = patients.moments_of(normal(draws, 2000))
    rows = patients.in_groups(sizes, correlation, moments, draws)
    return patients.Class(rows, np.repeat(np.arange(len(sizes)) * 3, sizes))


def test_facts_of_a_class():
    facts = a_class([8, 1, 1, 2], 0.5, 0).facts()
    assert facts["slices"] == 12
    assert facts["patients"] == 4
    assert facts["patients_of_one_size"] == pytest.approx(144 / 70)


def test_halves_share_no_patient():
    found = a_class([3, 1, 4, 2, 2, 5], 0.5, 0)
    one, other = patients.half_and_half(found, np.random.default_rng(0))
    assert len(one.sizes) == len(other.sizes) == 3
    assert set(one.patients).isdisjoint(other.patients)
    assert len(one.features) + len(other.features) == 17
    for half in (one, other):
        for row, patient in zip(half.features, half.patients, strict=True):
            assert row in found.features[found.patients == patient]


def test_evened_takes_at_most_five_of_each():
    found = a_class([9, 5, 2, 30], 0.5, 0)
    chosen = patients.evened(found, np.random.default_rng(0))
    assert list(found.of(chosen).sizes) == [5, 5, 2, 5]
    assert (np.diff(chosen) > 0).all()
    assert set(chosen) != set(patients.evened(found, np.random.default_rng(1)))


def test_rows_of_classes_that_are_as_the_draws_suppose():
    few, many = a_class([40] * 6, 0.9, 1), a_class([2] * 150, 0.9, 2)
    rows = patients.rows_of(few, few, many)
    medians = {
        name: np.median([draw(np.random.default_rng(seed)) for seed in range(31)])
        for name, draw in rows.items()
    }
    fresh = (normal(np.random.default_rng(seed), count) for seed, count in ((1, 240), (2, 300)))
    assert 0.2 < frechet(*fresh).distance / medians["independent, drawn"] < 5
    assert medians["patients, drawn"] > 4 * medians["independent, drawn"]
    whole, drawn = medians["half the tumours, real"], medians["half the tumours, drawn"]
    assert drawn == pytest.approx(whole, rel=0.3)
    assert medians["half the normals, real"] > 4 * whole
    assert medians["half the normals, drawn"] > 4 * drawn


UNEVEN = [40, 40, 3, 1]
NORMALS, CURVED = a_class(UNEVEN, 0.5, 1), a_class(UNEVEN, 0.8, 2)
TUMOURS = a_class([2] * 150, 0.9, 3)


def each_drawn(monkeypatch, name):
    """Sizes, correlation and moments of the draws of one row, and what was measured of what."""
    drawn, measured = [], []

    def in_groups(sizes, correlation, like, by):
        drawn.append((list(sizes), correlation, like))
        return REAL(sizes, correlation, like, by)

    def distance(one, other):
        measured.append((one, other))
        return frechet(one, other)

    monkeypatch.setattr(patients, "in_groups", in_groups)
    monkeypatch.setattr(patients, "frechet", distance)
    patients.rows_of(NORMALS, CURVED, TUMOURS)[name](np.random.default_rng(4))
    ((one, other),) = measured
    return drawn, one, other


REAL = patients.in_groups


@pytest.mark.parametrize(
    ("name", "sizes", "correlation"),
    [
        ("independent, drawn", [1] * 84, 0),
        ("patients, drawn", UNEVEN, NORMALS.correlation),
        ("alike, drawn", UNEVEN, TUMOURS.correlation),
        ("to the slices, drawn", UNEVEN, NORMALS.correlation),
        ("evened, drawn", [5, 5, 3, 1], CURVED.correlation),
    ],
)
def test_what_is_drawn(monkeypatch, name, sizes, correlation):
    drawn, _, other = each_drawn(monkeypatch, name)
    assert drawn[0][:2] == (sizes, correlation)
    assert all(like is TUMOURS.moments for _, _, like in drawn)
    if name == "to the slices, drawn":
        assert len(drawn) == 1
        assert other is TUMOURS.features
    elif name == "independent, drawn":
        assert drawn[1][:2] == ([1] * 300, 0)
    else:
        assert drawn[1][:2] == ([2] * 150, TUMOURS.correlation)


@pytest.mark.parametrize(("found", "name"), [(NORMALS, "normals"), (TUMOURS, "tumours")])
def test_halves_are_drawn_by_their_own_moments(monkeypatch, found, name):
    drawn, one, other = each_drawn(monkeypatch, f"half the {name}, drawn")
    assert sorted(drawn[0][0] + drawn[1][0]) == sorted(found.sizes)
    assert len(drawn[0][0]) == len(drawn[1][0])
    for _, correlation, like in drawn:
        assert correlation == found.correlation
        assert like is found.moments
    assert len(one) + len(other) == len(found.features)


def test_evened_and_uneven_are_as_many_slices(monkeypatch):
    drawn, one, other = each_drawn(monkeypatch, "evened, real")
    assert drawn == []
    assert other is TUMOURS.features
    chosen = patients.evened(CURVED, np.random.default_rng(4))
    np.testing.assert_array_equal(one, CURVED.features[chosen])
    _, one, other = each_drawn(monkeypatch, "uneven, real")
    assert other is TUMOURS.features
    assert len(one) == len(chosen) == 14
    assert all(row in CURVED.features for row in one)
    drawn, _, _ = each_drawn(monkeypatch, "uneven, drawn")
    assert sum(drawn[0][0]) == 14
    assert max(drawn[0][0]) > 5
    assert drawn[0][1] == CURVED.correlation
