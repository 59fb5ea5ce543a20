"""Figures in the loop against scikit-image, the Frechet formula and hand-made cases."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fastmrigan.errors import UsageError
from fastmrigan.imaging.mask import brain_mask
from fastmrigan.metrics.features import random_features
from fastmrigan.training.data import TrainingData
from fastmrigan.training.evaluation import (
    BETTER,
    FILE,
    Best,
    RealSide,
    distribution_figures,
    rows_to_judge,
    translation_figures,
    write_figures,
)
from fastmrigan.training.logging import read_metrics
from fastmrigan.training.systems import translating


def heads(count, size=48, seed=0):
    """Bright discs with texture on black, float32 [N, H, W] in [-1, 1]."""
    draws = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radii = draws.uniform(0.5, 0.8, count)
    slices = [
        np.where(np.hypot(x, y) < r, 0.3 + 0.1 * draws.standard_normal(x.shape), -1) for r in radii
    ]
    return np.stack(slices).clip(-1, 1).astype(np.float32)


@pytest.fixture(scope="module")
def pair():
    wanted = heads(3)
    noise = 0.1 * np.random.default_rng(9).standard_normal(wanted.shape)
    return (wanted + noise).clip(-1, 1).astype(np.float32), wanted


def test_frame_figures_equal_scikit_image(pair):
    made, wanted = pair
    figures = translation_figures(made, wanted)
    references = {
        "ssim": lambda a, b: structural_similarity(
            a, b, data_range=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        ),
        "psnr": lambda a, b: peak_signal_noise_ratio(a, b, data_range=2),
        "mae": lambda a, b: np.abs(a.astype(float) - b).mean(),
    }
    for name, reference in references.items():
        expected = np.mean([reference(a, b) for a, b in zip(made, wanted, strict=True)])
        assert figures[name] == pytest.approx(expected, rel=1e-5), name


def test_brain_figures_count_the_brain_alone(pair):
    made, wanted = pair
    figures = translation_figures(made, wanted)
    masks = np.stack([brain_mask(x) for x in wanted])
    error = np.abs(made.astype(float) - wanted)
    squared = [np.mean((e[m]) ** 2) for e, m in zip(error, masks, strict=True)]
    mae = np.mean([e[m].mean() for e, m in zip(error, masks, strict=True)])
    assert figures["mae_brain"] == pytest.approx(mae, rel=1e-9)
    assert figures["psnr_brain"] == pytest.approx(np.mean(10 * np.log10(4 / np.array(squared))))
    assert figures["brain_slices"] == 3
    outside = made.copy()
    outside[~masks] = 1.0  # ruin all but the brain
    ruined = translation_figures(outside, wanted)
    assert ruined["mae_brain"] == figures["mae_brain"]
    assert ruined["psnr_brain"] == figures["psnr_brain"]
    assert ruined["mae"] > 3 * figures["mae"]
    # SSIM's windows at the rim reach outside; inside it still hears less of the ruin.
    assert ruined["ssim"] < ruined["ssim_brain"] < figures["ssim_brain"]


def test_a_blank_slice_has_no_brain_and_stops_nothing(pair):
    made, wanted = pair
    blank = np.full_like(wanted[:1], -1)
    with_blank = translation_figures(
        np.concatenate([made, made[:1]]), np.concatenate([wanted, blank])
    )
    alone = translation_figures(made, wanted)
    for name in ("ssim_brain", "psnr_brain", "mae_brain", "brain_slices"):
        assert with_blank[name] == alone[name]
    assert with_blank["mae"] > alone["mae"]
    only_blank = translation_figures(made[:1], blank)
    assert set(only_blank) == {"ssim", "psnr", "mae", "brain_slices"}
    assert only_blank["brain_slices"] == 0


def test_a_perfect_translation(pair):
    figures = translation_figures(pair[1], pair[1])
    assert figures["ssim"] == figures["ssim_brain"] == 1
    assert figures["mae"] == figures["mae_brain"] == 0
    assert math.isinf(figures["psnr"])


def frechet_by_covariances(a, b):
    """Heusel et al. 2017, equation 6, its last trace as tr (S1^½ S2 S1^½)^½."""
    (m1, s1), (m2, s2) = ((x.mean(0), np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(s1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ s2 @ root).clip(0)).sum()
    return ((m1 - m2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * overlap


def test_distribution_figures_equal_the_formula():
    real, made = heads(40, 16), heads(30, 16, seed=1) * np.float32(0.9)
    figures = distribution_figures(made, real, seed=3)
    a, b = (random_features(x).astype(np.float64) for x in (real, made))
    assert figures["fd_random"] == pytest.approx(frechet_by_covariances(a, b), rel=1e-3)
    assert set(figures) == {"fd_random", "fd_random_floor"}
    draws = np.random.default_rng(3)
    halves = [draws.permutation(40) for _ in range(10)]
    floor = np.mean([frechet_by_covariances(a[o[:20]], a[o[20:]]) for o in halves])
    assert figures["fd_random_floor"] == pytest.approx(floor, rel=1e-3)
    assert 0 < figures["fd_random_floor"] < figures["fd_random"]


def test_the_real_side_is_computed_once_and_gives_the_same(monkeypatch):
    real, made = heads(12, 16), heads(8, 16, seed=1)
    side = RealSide(real, seed=3)
    counted = []
    from fastmrigan.metrics import features

    computed = features.random_features
    monkeypatch.setattr(
        features,
        "random_features",
        lambda slices, **kw: counted.append(len(slices)) or computed(slices, **kw),
    )
    assert side.figures(made) == side.figures(made)
    assert counted == [8, 8]
    assert distribution_figures(made, real, 3) == side.figures(made)


def test_evaluating_says_nothing_and_loads_no_checkpoint():
    """The training's own progress stands on the terminal; measures would bring checkpoints."""
    code = (
        "import sys, numpy as np; from fastmrigan.training.evaluation import RealSide; "
        "slices = np.zeros((4, 16, 16), np.float32); RealSide(slices, 0).figures(slices); "
        "names = ('fastmrigan.metrics.measures', 'fastmrigan.training.checkpoint'); "
        "assert not [name for name in names if name in sys.modules]"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, timeout=300
    )
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize(("count", "limit"), [(7, 10), (10, 10), (1000, 10), (2000, 1000)])
def test_rows_to_judge_are_a_seeded_draw_without_replacement(count, limit):
    rows = rows_to_judge(count, limit, seed=3)
    assert rows.dtype == torch.int64
    assert len(rows) == min(count, limit)
    assert (rows.diff() > 0).all()
    assert 0 <= rows[0] <= rows[-1] < count
    torch.testing.assert_close(rows, rows_to_judge(count, limit, seed=3))
    if count > limit:
        assert (rows >= count // 2).any()  # not the first ones
        assert not torch.equal(rows, rows_to_judge(count, limit, seed=4))


def numbered(count):
    """Slices [N, 1, 16, 16] that hold their own number."""
    return torch.arange(count, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, 16, 16)


@pytest.mark.parametrize("paired", [True, False])
def test_translating_systems_judge_a_draw_of_each_side(monkeypatch, paired):
    seen = {}

    def remember(made, wanted, *_):
        seen["made"], seen["wanted"] = made[:, 0, 0], wanted[:, 0, 0]
        return {}

    monkeypatch.setattr(translating, "JUDGED", 8)
    monkeypatch.setattr(translating, "translation_figures", remember)
    monkeypatch.setattr(
        translating,
        "RealSide",
        lambda real, seed: SimpleNamespace(figures=lambda made: remember(made, real)),
    )
    system = object.__new__(translating.TranslatingSystem)
    system.data = TrainingData(numbered(40), {}, numbered(40 if paired else 50), paired)
    system.translated = lambda name, slices: slices
    system.figures(seed=5)
    assert len(set(seen["made"])) == len(set(seen["wanted"])) == 8
    assert seen["wanted"].max() > 8
    assert seen["made"].max() > 8
    assert (list(seen["made"]) == list(seen["wanted"])) == paired


def test_evaluating_leaves_the_random_streams_alone(pair):
    def streams():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()

    before = streams()
    translation_figures(*pair)
    distribution_figures(heads(4, 16, 1), heads(4, 16), 0)
    assert streams() == before


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: translation_figures(heads(2), heads(3)), r"got made \[2, 48, 48\] and wanted \[3"),
        (lambda: translation_figures(heads(2)[:, None], heads(2)), r"made slices as float32 \[N"),
        (lambda: translation_figures(heads(2).astype(float), heads(2)), "got float64"),
        (lambda: translation_figures(heads(2)[:0], heads(2)[:0]), r"got float32 \[0, 48, 48\]"),
        (lambda: distribution_figures(heads(2, 16), heads(3, 16), 0), "3 real slices, .* least 4"),
        (lambda: distribution_figures(heads(1, 16), heads(4, 16), 0), "needs at least 2"),
    ],
)
def test_what_it_refuses(call, text):
    with pytest.raises(UsageError, match=text):
        call()


@pytest.mark.parametrize("metric", BETTER)
def test_best_by_every_metric(metric):
    rising = [0.2, 0.5, 0.5, math.nan, 0.4, 0.9]
    wins = {"higher": [1, 1, 0, 0, 0, 1], "lower": [1, 0, 0, 0, 0, 0]}[BETTER[metric]]
    best = Best(metric)
    for step, (value, win) in enumerate(zip(rising, wins, strict=True)):
        figures = {"other": 7.0, metric: value}
        assert best.better(figures) == best.take(figures, step) == bool(win)
    assert (best.value, best.step) == ((0.9, 5) if BETTER[metric] == "higher" else (0.2, 0))
    lower = Best(metric)
    for step, value in enumerate(reversed(rising)):
        lower.take({metric: value}, step)
    assert lower.value == best.value


def test_best_goes_on_from_a_checkpoint():
    best = Best("mae")
    assert not best.better({"mae": math.nan})
    best.take({"mae": 0.1}, 40)
    resumed = Best("mae")
    resumed.load(json.loads(json.dumps(best.state())))
    assert resumed == best
    assert not resumed.better({"mae": 0.2})
    fresh = Best("mae")
    fresh.load(json.loads(json.dumps(Best("mae").state())))
    assert fresh.better({"mae": 0.2})
    with pytest.raises(UsageError, match="kept its best by 'mae'; resume with best_metric=mae"):
        Best("ssim").load(best.state())


def test_best_refuses():
    with pytest.raises(UsageError, match=r"'fid': unknown; known are ssim \(higher is better\), "):
        Best("fid")
    with pytest.raises(UsageError, match=r"'ssim': not among .* choose one of fd_random$"):
        Best("ssim").better({"fd_random": 1.0, "fd_random_floor": 0.5})


def test_rows_of_a_run_taken_back_are_replaced(tmp_path):
    for step, value in ((10, 0.5), (20, 0.6), (30, 0.7), (20, 0.8)):
        write_figures(tmp_path, step, step / 10, {"ssim": value})
    assert read_metrics(tmp_path / FILE) == [
        {"step": 10, "epoch": 1.0, "ssim": 0.5},
        {"step": 20, "epoch": 2.0, "ssim": 0.8},
    ]


def test_importing_this_room_does_not_import_metrics():
    """metrics reads this room's checkpoints: at import the arrow points one way."""
    code = (
        "import sys, fastmrigan.training.evaluation, fastmrigan.training.run_page; "
        "assert not [name for name in sys.modules if name.startswith('fastmrigan.metrics')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
