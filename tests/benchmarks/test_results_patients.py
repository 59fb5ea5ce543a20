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
    rows = patients.in_groups(sizes, correlation, features, draws)
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
    rows = patients.in_groups(sizes, correlation, normal(draws, 2000), draws)
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


def test_evened_rows_are_of_fewer_slices_of_as_many_patients():
    """The real rows against the same by hand."""
    few, many = a_class([40, 40, 3, 1], 0.5, 1), a_class([2] * 150, 0.9, 2)
    rows = patients.rows_of(few, few.of(np.arange(84)[::-1]), many)
    chosen = patients.evened(few.of(np.arange(84)[::-1]), np.random.default_rng(4))
    assert len(chosen) == 14
    by_hand = frechet(few.features[::-1][chosen], many.features).distance
    assert rows["evened, real"](np.random.default_rng(4)) == pytest.approx(by_hand)
    uneven = [rows["uneven, real"](np.random.default_rng(seed)) for seed in range(9)]
    assert len(set(uneven)) == 9
    assert by_hand not in uneven
