"""Planted copies must be found, and slices that are no copies left alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import rankdata

from fastmrigan.errors import UsageError
from fastmrigan.imaging import likeness
from fastmrigan.imaging.duplicates import near_groups, thumbnail
from fastmrigan.imaging.geometry import fit_square
from fastmrigan.imaging.phantom import phantom_slices
from fastmrigan.metrics import memorisation
from fastmrigan.metrics.features import random_features
from fastmrigan.metrics.memorisation import find_copies

RECALL, FALSE_ALARMS = 0.95, 0.01


def regraded(slices, draws):
    """Gain, offset and gamma of each slice's own, clipped to [-1, 1] as a writer would."""
    gain, offset, gamma = (
        draws.uniform(*span, (len(slices), 1, 1)) for span in ((0.6, 1.2), (-0.1, 0.15), (0.6, 1.6))
    )
    grey = gain * ((slices + 1) / 2) ** gamma + offset
    return (2 * grey.clip(0, 1) - 1).astype(np.float32)


def shifted(slices, draws):
    """Two pixels in any of the eight directions; what comes in is black."""
    moved = np.full_like(slices, -1)
    for target, x in zip(moved, slices, strict=True):
        down, right = 0, 0
        while (down, right) == (0, 0):
            down, right = 2 * draws.integers(-1, 2, 2)
        rows, columns = (slice(max(by, 0), len(x) + min(by, 0)) for by in (down, right))
        back = (slice(max(-by, 0), len(x) + min(-by, 0)) for by in (down, right))
        target[rows, columns] = x[tuple(back)]
    return moved


def mirrored(slices, draws):
    return slices[:, :, ::-1]


def as_they_are(slices, draws):
    return slices


def in_8_bits(slices, draws):
    return (np.rint((slices + 1) * 127.5) / 127.5 - 1).astype(np.float32)


def noisy(slices, draws):
    return (slices + 0.03 * draws.standard_normal(slices.shape)).clip(-1, 1).astype(np.float32)


def everything(slices, draws):
    for change in (mirrored, shifted, regraded, in_8_bits):
        slices = change(slices, draws)
    return slices


CHANGES = (as_they_are, mirrored, shifted, regraded, in_8_bits, noisy, everything)


def planted(train, others, draws, each):
    """`others` with `each` copies of every kind after them; which training slices, and kinds."""
    parts, sources = [others], []
    for change in CHANGES:
        source = draws.choice(len(train), each, replace=False)
        parts.append(change(train[source], draws))
        sources.append(source)
    return np.ascontiguousarray(np.concatenate(parts)), np.concatenate(sources)


def check(found, sources, others, each, *, kinds=CHANGES, false_alarms=FALSE_ALARMS):
    """Recall of every kind of copy, each found at its own source, and false alarms."""
    flagged = found.flagged[others:].reshape(len(CHANGES), each)
    right = (found.nearest[others:] == sources).reshape(len(CHANGES), each)
    for change, hit in zip(CHANGES, (flagged & right).mean(axis=1), strict=True):
        if change in kinds:
            assert hit >= RECALL, f"{change.__name__}: recall {hit:.2f}"
    assert found.flagged[:others].mean() <= false_alarms


@pytest.fixture(scope="module")
def phantom():
    """Slices of phantom heads, no head in two of the sets."""
    signals = phantom_slices(900, 64, seed=5).signals["t2"]
    slices = (2 * signals - 1).astype(np.float32)
    return SimpleNamespace(train=slices[:300], held_out=slices[300:400], others=slices[400:])


@pytest.fixture(scope="module")
def world(phantom):
    """One per cent of copies of every kind among slices that are none, and the training slices."""
    each = round(0.01 * len(phantom.others) / (1 - 0.01 * len(CHANGES))) + 1  # 6 of 542
    made, sources = planted(phantom.train, phantom.others, np.random.default_rng(0), each)
    return SimpleNamespace(made=made, sources=sources, each=each, **vars(phantom))


@pytest.fixture(scope="module")
def found(world):
    return find_copies(world.made, world.train, world.held_out)


def test_planted_copies_are_found(world, found):
    check(found, world.sources, len(world.others), world.each)


def test_what_is_said_of_a_copy(world, found):
    first = len(world.others)
    untouched = slice(first, first + world.each)
    assert (found.score[untouched] > 0.9999).all()
    assert (found.ratio[untouched] < 0.02).all()
    assert not found.mirrored[untouched].any()
    assert found.mirrored[first + world.each : first + 2 * world.each].all()
    assert found.share == found.flagged.mean()


def test_held_out_slices_set_the_scale(world, found):
    again = find_copies(world.held_out, world.train, world.held_out)
    np.testing.assert_array_equal(again.score, found.held_out_score)
    assert np.median(again.ratio) == pytest.approx(1, rel=0.02)
    assert again.threshold == found.threshold
    assert not again.flagged.any()


def test_threshold_by_hand():
    """Of a normal sample three deviations; one held-out slice in 40 may be a copy; tails count."""
    z = np.random.default_rng(0).normal(0.8, 0.2, 4000)
    clean = likeness.copy_threshold(np.tanh(z).astype(np.float32))
    assert np.arctanh(clean) == pytest.approx(0.8 + 3 * 0.2, abs=0.03)
    z[:100] = 5
    assert np.arctanh(likeness.copy_threshold(np.tanh(z).astype(np.float32))) < 1.6
    skewed = np.random.default_rng(0).exponential(0.2, 4000)
    limit = np.arctanh(likeness.copy_threshold(np.tanh(skewed).astype(np.float32)))
    assert (skewed > limit).mean() < FALSE_ALARMS


def test_copies_are_found_in_feature_space(world):
    """The weaker view: features answer to clipped greys, and their scores have a longer tail."""

    def features(slices):
        return random_features(slices, shown=False)

    found = find_copies(world.made, world.train, world.held_out, features=features)
    check(
        found,
        world.sources,
        len(world.others),
        world.each,
        kinds=(as_they_are, mirrored, shifted, in_8_bits),
        false_alarms=0.02,
    )


def test_the_search_by_pixels_is_not_done_twice(phantom, monkeypatch):
    """Features of another network on the same slices take the poses found before."""
    sides = (phantom.others[:40], phantom.train[:60], phantom.held_out[:30])

    def features(slices):
        return slices[:, ::8, ::8].reshape(len(slices), -1)

    pixels = find_copies(*sides, shown=False)
    alone = find_copies(*sides, features=features, shown=False)
    monkeypatch.setattr(memorisation, "AlignedSearch", None)
    found = find_copies(*sides, features=features, pixels=pixels, shown=False)
    for name in ("nearest", "score", "flagged", "mirrored", "held_out_score"):
        np.testing.assert_array_equal(getattr(found, name), getattr(alone, name))
    assert not np.array_equal(found.score, pixels.score)


@pytest.mark.parametrize("shown", [True, False])
def test_progress(phantom, capsys, shown):
    find_copies(phantom.others[:40], phantom.train[:60], phantom.held_out[:30], shown=shown)
    assert ("copies by pixels: 70 slices" in capsys.readouterr().err) == shown


def test_larger_slices_are_compared_at_64():
    signals = phantom_slices(150, 128, seed=6).signals["t2"]
    slices = (2 * signals - 1).astype(np.float32)
    train, held_out, others = slices[:80], slices[80:115], slices[115:]
    made, sources = planted(train, others, np.random.default_rng(0), 6)
    found = find_copies(made, train, held_out)
    check(found, sources, len(others), 6)


def test_grading_equals_ranks(phantom):
    """Against scipy's ranks with ties averaged; grey levels apart by 2 / 1023 count as tied."""
    x = phantom.train[:3]
    grading = np.sort(np.random.default_rng(0).uniform(-1, 1, 256)).astype(np.float32)
    levels = np.rint((x + 1) * 1023 / 2).reshape(3, -1)
    ranks = (rankdata(levels, axis=1) - 0.5) / levels.shape[1]
    expected = np.interp(ranks, (np.arange(256) + 0.5) / 256, grading).reshape(x.shape)
    np.testing.assert_allclose(likeness.regraded(x, grading), expected, atol=1e-5)


@pytest.mark.parametrize(
    "change", [lambda x: 0.7 * x - 0.1, lambda x: 2 * ((x + 1) / 2) ** 1.7 - 1]
)
def test_a_grading_of_one_order_is_undone(phantom, change):
    x = phantom.train[:20]
    grading = likeness.common_grading(phantom.train)
    before, after = (likeness.regraded(y.astype(np.float32), grading) for y in (x, change(x)))
    assert np.abs(before - after).mean() < 0.01
    assert np.abs(x - change(x)).mean() > 0.05


def test_no_synthetic_slices(phantom):
    found = find_copies(phantom.others[:0], phantom.train, phantom.held_out)
    assert found.score.shape == found.nearest.shape == found.flagged.shape == (0,)
    assert found.share == 0


def test_constant_slices_are_no_copies(phantom):
    flat = np.full((3, 64, 64), -1, np.float32)
    found = find_copies(flat, phantom.train, phantom.held_out)
    assert not found.flagged.any()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda w: dict(held_out=w.held_out[:19]), "19 held-out slices, at least 20 .*--test-frac"),
        (lambda w: dict(train=w.train[:0]), "0 training slices, at least 1"),
        (
            lambda w: dict(made=w.others[0]),
            r"synthetic slices: expected float32 \[N, H, W\] .*\[64, 64\]",
        ),
        (
            lambda w: dict(made=w.others.astype(float)),
            "synthetic slices: expected float32 .* float64",
        ),
        (lambda w: dict(held_out=w.held_out[:, :32, :32]), "are 32x32, the training slices 64x64"),
    ],
)
def test_errors(phantom, change, text):
    given = dict(made=phantom.others, train=phantom.train, held_out=phantom.held_out)
    with pytest.raises(UsageError, match=text):
        find_copies(**given | change(phantom))


@pytest.fixture
def real_t2(real_data):
    """T2 slices at 64x64, near duplicates kept in one of the sets."""
    from PIL import Image

    folder = real_data("t2-tumour-nontumour")
    files = sorted([*(folder / "tumour").iterdir(), *(folder / "nontumour").iterdir()])
    grey = [np.asarray(Image.open(file).convert("L"), np.float32) for file in files]
    slices = np.stack([fit_square(x / 127.5 - 1, 64) for x in grey])
    found = near_groups(np.stack([thumbnail(x) for x in slices]), [None] * len(slices))
    group = np.array([-1 - i if g is None else g for i, g in enumerate(found)])
    names = np.random.default_rng(0).permutation(np.unique(group))
    cuts = np.split(names, [len(names) // 2, len(names) * 13 // 20])
    train, held_out, others = (slices[np.isin(group, part)] for part in cuts)
    return SimpleNamespace(train=train, held_out=held_out, others=others)


@pytest.mark.slow
def test_planted_copies_of_real_slices_are_found(real_t2):
    """What is flagged besides are copies that the set itself holds: mirrored, or of one head."""
    made, sources = planted(real_t2.train, real_t2.others, np.random.default_rng(1), 80)
    found = find_copies(made, real_t2.train, real_t2.held_out)
    kinds = [change for change in CHANGES if change is not noisy]
    check(found, sources, len(real_t2.others), 80, kinds=kinds)


@pytest.mark.slow
@pytest.mark.parametrize("patient", ["tcga-fg-6692", "brats2012-hg0015"])
def test_other_slices_of_the_same_head(real_t2, real_data, patient):
    """Slices 1 mm from a training slice are as good as copies of it, slices 10 mm away are not."""
    nibabel = pytest.importorskip("nibabel")
    file = real_data(f"nifti/{patient}") / "t2.nii.gz"
    image = nibabel.as_closest_canonical(nibabel.load(file))
    assert image.header.get_zooms()[2] == 1
    volume = np.asarray(image.dataobj, np.float32)
    low, high = np.percentile(volume[volume > 0], [0.5, 99.5])
    graded = 2 * ((volume - low) / (high - low)).clip(0, 1) - 1
    brain = np.flatnonzero((graded > -0.95).mean(axis=(0, 1)) > 0.08)
    head = np.stack([fit_square(np.rot90(graded[:, :, level]), 64) for level in brain])
    known = np.arange(0, len(head) - 10, 24)
    train = np.concatenate([real_t2.train, head[known]])
    shares = [find_copies(head[known + mm], train, real_t2.held_out).share for mm in (1, 10)]
    assert shares == [1, 0]


@pytest.mark.parametrize("value", [np.nan, 255.0])
def test_slices_that_are_not_graded_are_refused(value):
    slices = np.zeros((40, 32, 32), np.float32)
    spoilt = slices[:3].copy()
    spoilt[1, 2, 3] = value
    with pytest.raises(UsageError, match="the synthetic slices have values outside"):
        find_copies(spoilt, slices[:20], slices[20:])
