"""Translations beside the slices they were made of."""

import json

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.quantise import to_float, to_uint16
from fastmrigan.metrics.evaluation import evaluate
from fastmrigan.metrics.evaluation_inputs import Asked
from fastmrigan.metrics.features import random_features
from fastmrigan.metrics.frechet import frechet_distance
from fastmrigan.metrics.report import page
from fastmrigan.metrics.sources import untranslated_measures

NORMAL = list(range(60, 90))  # of the dataset; tumours come first


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, make):
    folder = tmp_path_factory.mktemp("labelled")
    slices = {"tumour": make.discs(60, 0, tumour=True), "normal": make.discs(30, 1, tumour=False)}
    data = make.dataset(folder / "data", slices)
    return data, slices


@pytest.fixture(scope="module")
def translated(tmp_path_factory, make, labelled):
    """Each normal slice with a blob of its own, in an order of its own."""
    data, slices = labelled
    made = slices["normal"].copy()
    for number, each in enumerate(made):
        each[20 + number % 10 : 32 + number % 10, 24:36] += 0.6
    order = NORMAL[::-1]
    fingerprint = PreparedDataset.open(data).info.fingerprint
    folder = tmp_path_factory.mktemp("translated") / "made"
    return make.shards(folder, made.clip(-1, 1)[::-1], sources=(fingerprint, order))


def test_the_distance_before_translation(labelled, translated):
    data, slices = labelled
    result = evaluate(Asked(data, translated, label="tumour", only=("frechet",)))
    real = random_features(on_disk(slices["tumour"]))
    before = frechet_distance(real, random_features(on_disk(slices["normal"][::-1])))
    found = result.value("fd_random_untranslated")
    assert found == pytest.approx(before, rel=1e-3)
    share = result.value("fd_random_over_untranslated")
    assert share == pytest.approx(result.value("fd_random") / before, rel=1e-3)
    assert 0 < share < 1


def test_nothing_is_left_of_no_distance(tmp_path, make):
    """Sources that are the real slices have a distance of rounding alone before translation."""
    slices = make.discs(30, 0, tumour=True)
    data = make.dataset(tmp_path / "data", {"head": slices})
    fingerprint = PreparedDataset.open(data).info.fingerprint
    made = make.shards(tmp_path / "made", -slices, sources=(fingerprint, list(range(30))))
    result = evaluate(Asked(data, made, only=("frechet",)))
    assert result.value("fd_random_untranslated") < 1e-9 < result.value("fd_random")
    assert result.value("fd_random_over_untranslated") is None
    near = random_features(on_disk(slices))
    apart = [m.key for m in untranslated_measures(near, near + np.float32(1), 1.0, 1.0)]
    assert apart == ["fd_random_untranslated", "fd_random_over_untranslated"]
    below = untranslated_measures(near, near + np.float32(1), 1.0, 101 * near.shape[1])
    assert [m.key for m in below] == ["fd_random_untranslated"]


def test_how_much_of_a_source_is_kept(labelled, translated):
    data, slices = labelled
    result = evaluate(Asked(data, translated, label="tumour", only=("sources",)))
    changed = result.changes
    want = [
        structural_similarity(
            a, b, data_range=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for a, b in zip(changed.made.astype(float), changed.sources.astype(float), strict=True)
    ]
    np.testing.assert_allclose(changed.ssim, want, atol=2e-4)
    np.testing.assert_allclose(changed.sources, on_disk(slices["normal"][::-1]), atol=1e-6)
    assert result.value("source_ssim") == pytest.approx(np.mean(want), abs=2e-4)
    mae = np.abs(changed.made - changed.sources).mean()
    assert result.value("source_mae") == pytest.approx(mae, rel=1e-4)
    shown = list(changed.shown.values())
    assert changed.ssim[shown[0]] == changed.ssim.max()
    assert changed.ssim[shown[2]] == changed.ssim.min()
    told = page(result)
    assert "<h2>What changed</h2>" in told
    assert f"SSIM to its source {changed.ssim.min():.3f}" in told


def test_what_a_classifier_calls_the_sources(labelled, translated, short_classifier):
    data, _ = labelled
    asked = Asked(data, translated, label="tumour", classifier_data=data, only=("classifier",))
    found = {m.key: m for m in evaluate(asked).measures}
    before = found["called_tumour_untranslated"]
    assert 0 <= before.value <= found["called_tumour"].value <= 1
    assert before.over == "30 source slices"


def test_sources_that_are_not_known(labelled, translated, tmp_path, make):
    data, slices = labelled
    fingerprint = PreparedDataset.open(data).info.fingerprint
    other = make.shards(tmp_path / "other", slices["normal"], sources=("f" * 64, NORMAL))
    told = "--only sources: --real is not the prepared dataset that was translated"
    with pytest.raises(UsageError, match=told):
        evaluate(Asked(data, other, label="tumour", only=("sources",)))
    found = evaluate(Asked(data, other, label="tumour", only=("frechet",)))
    assert found.value("fd_random_untranslated") is None
    beyond = make.shards(
        tmp_path / "beyond", slices["normal"], sources=(fingerprint, [*NORMAL[1:], 99])
    )
    with pytest.raises(InputRejected, match="has no input for each translated slice"):
        evaluate(Asked(data, beyond, label="tumour", only=("sources",)))


def test_sampled_slices_have_no_sources(labelled, tmp_path, make):
    data, slices = labelled
    sampled = make.shards(tmp_path / "sampled", slices["tumour"])
    result = evaluate(Asked(data, sampled, label="tumour", only=("frechet", "diversity")))
    assert "sources" not in result.left_out
    assert result.changes is None
    assert "What changed" not in page(result)
    assert json.dumps(result.document())


def on_disk(slices):
    """As a prepared dataset keeps them."""
    return to_float(to_uint16(slices))
