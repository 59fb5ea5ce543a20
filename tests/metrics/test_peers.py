"""The Frechet distance against pytorch-fid's own function."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from fastmrigan.metrics.frechet import frechet_distance


@pytest.fixture
def pytorch_fid(monkeypatch):
    """pytorch_fid.fid_score, given the few names it imports from torchvision."""
    torchvision = types.ModuleType("torchvision")
    for name in ("transforms", "models"):
        module = types.ModuleType(f"torchvision.{name}")
        setattr(torchvision, name, module)
        monkeypatch.setitem(sys.modules, f"torchvision.{name}", module)
    inception = types.SimpleNamespace(InceptionA=object, InceptionC=object, InceptionE=object)
    torchvision.models.inception = inception
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    return pytest.importorskip("pytorch_fid.fid_score")


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d"), [(400, 16), (1000, 128)])
def test_equals_pytorch_fid(pytorch_fid, n, d):
    dice = np.random.default_rng(0)
    a = dice.normal(size=(n, d)).astype(np.float32)
    b = (dice.normal(size=(n + 7, d)) @ dice.normal(0, 0.3, (d, d)) + 0.2).astype(np.float32)
    theirs = pytorch_fid.calculate_frechet_distance(*moments(a), *moments(b))
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-6)


def moments(x):
    x = x.astype(np.float64)
    return x.mean(axis=0), np.cov(x, rowvar=False)
