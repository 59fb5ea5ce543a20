import numpy as np
import pytest
import torch
from scipy import ndimage

from fastmrigan.errors import UsageError
from fastmrigan.metrics.classifier import (
    ROUGHNESS,
    SliceClassifier,
    roughness,
    train_tumour_classifier,
)


def labelled(count, seed):
    """Discs of random size and brightness; half of them hold a bright off-centre blob."""
    draws = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    slices = draws.normal(0, 0.05, (count, 64, 64)) - 0.9
    tumour = np.arange(count) % 2 == 0
    for i in range(count):
        slices[i][np.hypot(x, y) < draws.uniform(0.6, 0.9)] += draws.uniform(0.6, 0.9)
        if tumour[i]:
            u, v = draws.uniform(-0.35, 0.35, 2)
            slices[i][np.hypot(x - u, y - v) < draws.uniform(0.12, 0.25)] += 0.5
    return slices.clip(-1, 1).astype(np.float32), tumour


@pytest.fixture(scope="module")
def trained():
    return train_tumour_classifier(*labelled(200, 0), seed=1, steps=30, batch=32)


def test_learns_to_tell_slices_it_has_not_seen(trained):
    slices, tumour = labelled(200, 1)
    score = trained.held_out(slices, tumour)
    assert score.accuracy >= 0.9
    assert score.accuracy == pytest.approx((score.sensitivity + score.specificity) / 2)
    assert (score.tumour, score.normal) == (100, 100)


def test_probabilities(trained):
    slices, _ = labelled(9, 2)
    probabilities = trained.predict_tumour(slices)
    assert probabilities.shape == (9,)
    assert probabilities.dtype == np.float32
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    np.testing.assert_allclose(trained.predict_tumour(slices, batch=2), probabilities, atol=1e-5)
    assert trained.predict_tumour(slices[:0]).shape == (0,)


def test_larger_slices_are_seen_at_64(trained):
    slices, _ = labelled(4, 3)
    larger = slices.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(
        trained.predict_tumour(larger), trained.predict_tumour(slices), atol=1e-5
    )


def test_seeded_and_leaves_the_global_stream_alone():
    slices, tumour = labelled(20, 0)
    state = torch.get_rng_state()
    one, two, other = (
        train_tumour_classifier(slices, tumour, seed=seed, steps=3, batch=8) for seed in (5, 5, 6)
    )
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_allclose(one.predict_tumour(slices), two.predict_tumour(slices), atol=1e-6)
    assert not np.allclose(one.predict_tumour(slices), other.predict_tumour(slices))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x, t: (x, t | True), "got 20 tumour and 0 normal"),
        (lambda x, t: (x, t[:5]), r"labels as bool \[20\], one a slice, got bool \[5\]"),
        (lambda x, t: (x, t.astype(int)), r"labels as bool \[20\], one a slice, got int64 \[20\]"),
    ],
)
def test_errors(change, text):
    with pytest.raises(UsageError, match=text):
        train_tumour_classifier(*change(*labelled(20, 0)))


def test_balanced_accuracy_counts_both_classes_alike(trained):
    slices, tumour = labelled(200, 1)
    few = np.concatenate([np.flatnonzero(tumour), np.flatnonzero(~tumour)[:10]])  # 100 and 10
    score = trained.held_out(slices[few], tumour[few])
    called = trained.predict_tumour(slices[few]) >= 0.5
    shares = [called[:100].mean(), (~called[100:]).mean()]
    assert (score.sensitivity, score.specificity) == pytest.approx(shares)
    assert score.balanced_accuracy == pytest.approx(np.mean(shares))


def test_roughness_equals_scipy():
    x = np.random.default_rng(0).standard_normal((2, 9, 7)).astype(np.float32)
    ones = ndimage.convolve(np.ones((9, 7)), np.ones((3, 3)), mode="constant")
    expected = [np.abs(y - ndimage.convolve(y, np.ones((3, 3)), mode="constant") / ones) for y in x]
    found = roughness(torch.from_numpy(x)[:, None])[:, 0].numpy()
    np.testing.assert_allclose(found, ROUGHNESS * np.stack(expected), atol=1e-5)
    assert roughness(torch.full((1, 1, 5, 5), 0.3)).abs().max() < 1e-5


def test_only_the_rough_classifier_sees_what_resizing_hides():
    slices, _ = labelled(4, 0)
    fine = slices.repeat(2, axis=1).repeat(2, axis=2)  # [4, 128, 128]
    y, x = np.indices(fine.shape[1:])
    checkered = fine + np.float32(0.1) * ((x + y) % 2 * 2 - 1).astype(np.float32)
    torch.manual_seed(0)
    plain, rough = (
        np.abs(network.probability(fine) - network.probability(checkered))
        for network in (SliceClassifier(), SliceClassifier(rough=True))
    )
    assert plain.max() < 1e-6
    assert rough.min() > 1e-4
