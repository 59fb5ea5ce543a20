"""The Frechet distance against the functions of pytorch-fid, torch-fidelity and torchmetrics."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from fastmrigan.metrics.frechet import frechet, frechet_distance
from fastmrigan.metrics.moments import Moments

ROOT = Path(__file__).parents[2]


@pytest.fixture
def peer(request, monkeypatch):
    """peer is that peer's distance between (mu, sigma) and (mu, sigma)."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    peers = importlib.import_module("frechet_peers")
    try:
        return peers.PEERS[request.param]()
    except ImportError as absent:
        pytest.skip(str(absent))


def sets(n, d):
    dice = np.random.default_rng(0)
    a = dice.normal(size=(n, d)).astype(np.float32)
    b = (dice.normal(size=(n + 7, d)) @ dice.normal(0, 0.3, (d, d)) + 0.2).astype(np.float32)
    return a, b


def statistics(x):
    x = x.astype(np.float64)
    return x.mean(axis=0), np.cov(x, rowvar=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", ["pytorch-fid", "torch-fidelity", "torchmetrics"], indirect=True)
@pytest.mark.parametrize(("n", "d"), [(400, 16), (1000, 128)])
def test_equals_the_peer_at_full_rank(peer, n, d):
    a, b = sets(n, d)
    theirs = peer(statistics(a), statistics(b))
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-9)
    ours = [Moments().update(x[:50]).update(x[50:]) for x in (a, b)]
    assert frechet_distance(*ours) == pytest.approx(theirs, rel=1e-9)
    theirs = peer(*((m.mean, m.covariance) for m in ours))
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", ["pytorch-fid", "torch-fidelity", "torchmetrics"], indirect=True)
def test_equals_the_peer_as_far_as_it_is_exact_with_few_rows(peer):
    a, b = sets(60, 128)
    result = frechet(a, b)
    assert result.error_bound < 1e-9
    assert result.distance == pytest.approx(peer(statistics(a), statistics(b)), abs=2e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", ["pytorch-fid"], indirect=True)
def test_reference_statistics_serve_both(peer, tmp_path):
    a, b = sets(500, 32)
    Moments().update(a).save(tmp_path / "reference.npz")
    with np.load(tmp_path / "reference.npz") as file:
        theirs = peer((file["mu"], file["sigma"]), statistics(b))
    ours = frechet_distance(Moments.load(tmp_path / "reference.npz"), b)
    assert ours == pytest.approx(theirs, rel=1e-9)
