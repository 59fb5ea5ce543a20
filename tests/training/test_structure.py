"""The structure loss against its definition, written out pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastmrigan.training.structure import (
    AROUND,
    LEAST_VARIANCE,
    NEAREST,
    RADIUS,
    descriptor,
    structure_loss,
)


@pytest.fixture
def slices() -> torch.Tensor:
    """Two slices of blocks of a few grey levels, as tissues are, and some noise."""
    draws = np.random.default_rng(3)
    blocks = draws.uniform(-1, 1, (2, 1, 4, 3)).repeat(6, axis=2).repeat(6, axis=3)
    noise = draws.normal(0, 0.05, blocks.shape)
    return torch.from_numpy((blocks + noise).clip(-1, 1)).float()  # [2, 1, 24, 18]


def written_out(plane: np.ndarray) -> np.ndarray:
    """[H, W] to [8, H, W], in float64."""
    height, width = plane.shape

    def value(y: int, x: int) -> float:
        return float(plane[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])

    def distance(y: int, x: int, dy: int, dx: int) -> float:
        patch = [
            (v, u)
            for v in range(y - RADIUS, y + RADIUS + 1)
            for u in range(x - RADIUS, x + RADIUS + 1)
        ]
        return float(np.mean([(value(v, u) - value(v + dy, u + dx)) ** 2 for v, u in patch]))

    def with_opposites(offsets):
        return [(sign * dy, sign * dx) for dy, dx in offsets for sign in (1, -1)]

    near, around = with_opposites(NEAREST), with_opposites(AROUND)
    assert (len(set(near)), len(set(around))) == (4, 8)
    found = np.zeros((8, height, width))
    for y in range(height):
        for x in range(width):
            variance = max(np.mean([distance(y, x, *offset) for offset in near]), LEAST_VARIANCE)
            likeness = [np.exp(-distance(y, x, *offset) / variance) for offset in around]
            found[:, y, x] = np.array(likeness) / max(likeness)
    return found


def test_the_descriptor_is_its_definition(slices):
    found = descriptor(slices)
    assert found.shape == (2, 8, 24, 18)
    for made, plane in zip(found, slices, strict=True):
        np.testing.assert_allclose(made, written_out(plane[0].double().numpy()), atol=2e-4)


def test_contrast_is_not_structure(slices):
    source = (slices * 0.9).clamp(-0.9, 0.9)
    assert structure_loss(-source, source) <= 1e-6
    assert structure_loss(source, source) == 0
    flatter = structure_loss(0.5 * source + 0.3, source)
    for other in (
        source.roll(3, dims=3),  # moved
        source + 0.3 * torch.sin(torch.arange(18.0)),  # texture
        source.flip(0),  # another's
    ):
        assert structure_loss(other, source) > 3 * flatter


def test_flat_slices_have_a_gradient(slices):
    flat = torch.full_like(slices, -1.0).requires_grad_()
    structure_loss(flat, slices).backward()
    assert torch.isfinite(flat.grad).all()


def test_half_precision_is_taken_in_float32(slices):
    rough = slices.bfloat16()
    assert structure_loss(rough, rough.float()) == 0
    alone = structure_loss(slices.flip(0), slices)
    with torch.autocast("cpu", torch.bfloat16):
        assert structure_loss(slices.flip(0), slices) == alone
