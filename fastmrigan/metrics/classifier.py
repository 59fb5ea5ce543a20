"""A small classifier of slices: tumour or normal, and real or synthetic.

It trains in well under a minute on two cores. It is a yardstick for a generator, never a
diagnostic tool.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmrigan.errors import UsageError
from fastmrigan.metrics.checks import check_finite, check_slices, check_whole, described
from fastmrigan.metrics.features import resize_area
from fastmrigan.progress import Progress

SIZE = 64  # pixels a side the network sees; larger slices are area-resized
WIDTHS = (16, 32, 64, 64)  # channels of the stem and of the blocks after it
SHIFT = 3  # pixels of random shift in training
ROUGHNESS = 8.0  # brings the roughness of a slice to about the range of its intensities

Float32 = npt.NDArray[np.float32]
Labels = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class HeldOut:
    """How well a classifier does on slices it has not seen; all in 0..1, higher is better."""

    accuracy: float
    sensitivity: float  # share of tumour slices called tumour
    specificity: float  # share of normal slices called normal
    tumour: int  # how many tumour slices were asked
    normal: int

    @property
    def balanced_accuracy(self) -> float:
        return (self.sensitivity + self.specificity) / 2


class SliceClassifier(nn.Module):
    """A strided convolution, three blocks, mean and maximum over the slice, one logit.

    rough: also shows it how rough the slice is at its own resolution (the mean absolute
    difference from the 3x3 mean), which area-resizing to 64x64 would hide.
    """

    def __init__(self, *, rough: bool = False) -> None:
        super().__init__()
        self.rough = rough
        self.stem = nn.Sequential(
            nn.Conv2d(2 if rough else 1, WIDTHS[0], 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential(*(block(*pair) for pair in itertools.pairwise(WIDTHS)))
        self.head = nn.Linear(2 * WIDTHS[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        y = resize_area(x, SIZE)  # [N, 1, 64, 64]
        if self.rough:
            y = torch.cat([y, resize_area(roughness(x), SIZE)], dim=1)  # [N, 2, 64, 64]
        y = self.blocks(self.stem(y))  # [N, 64, 4, 4]
        both = torch.cat([y.mean(dim=(2, 3)), y.amax(dim=(2, 3))], dim=1)  # [N, 128]
        logits: Tensor = self.head(both)[:, 0]  # [N]
        return logits

    def probability(self, slices: Float32, *, batch: int = 256) -> Float32:
        """Of the class labelled True, of slices float32 [N, H, W] in [-1, 1]: float32 [N]."""
        self.eval()
        with torch.inference_mode():
            parts = [
                torch.sigmoid(self(_as_batch(slices[first : first + batch])))
                for first in range(0, len(slices), batch)
            ]
        return torch.cat(parts).numpy() if parts else np.empty(0, np.float32)


class TumourClassifier(SliceClassifier):
    """The classifier of tumour (True) against normal slices."""

    def predict_tumour(self, slices: Float32, *, batch: int = 256) -> Float32:
        """The probability of tumour of slices float32 [N, H, W] in [-1, 1]: float32 [N]."""
        return self.probability(slices, batch=batch)

    def held_out(self, slices: Float32, tumour: Labels) -> HeldOut:
        """Scores on slices [N, H, W] with labels [N], True for tumour; both classes needed."""
        check_labelled(slices, tumour)
        called = self.predict_tumour(slices) >= 0.5  # [N]
        return HeldOut(
            accuracy=float((called == tumour).mean()),
            sensitivity=float(called[tumour].mean()),
            specificity=float((~called[~tumour]).mean()),
            tumour=int(tumour.sum()),
            normal=int((~tumour).sum()),
        )


def block(inputs: int, outputs: int) -> nn.Module:
    """[N, inputs, H, W] to [N, outputs, H / 2, W / 2]."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )


def roughness(x: Tensor) -> Tensor:
    """|x - its 3x3 mean|, scaled: [N, 1, H, W], 0 where the slice is flat."""
    return ROUGHNESS * (x - F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)).abs()


def train_tumour_classifier(
    slices: Float32, tumour: Labels, *, seed: int = 0, steps: int = 500, batch: int = 64
) -> TumourClassifier:
    """Trains on slices float32 [N, H, W] in [-1, 1] with labels bool [N], True for tumour.

    Each batch is half tumour and half normal, mirrored, shifted and re-graded at random, so that
    neither class balance nor overall brightness decides. Seeded: the same call gives the same
    network on the same machine. Raises UsageError where a class is missing.
    """
    check_labelled(slices, tumour)
    check_whole("tumour classifier: seed", seed, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TumourClassifier()
    fit(network, slices, tumour, seed=seed, steps=steps, batch=batch, label="tumour classifier")
    return network


def fit(
    network: SliceClassifier,
    slices: Float32,
    labels: Labels,
    *,
    seed: int,
    steps: int,
    batch: int,
    label: str,
    regrade: bool = True,
) -> None:
    """Trains `network` in place; both labels must be there. Draws from `seed` alone.

    Each batch is half True and half False. regrade: whether brightness is changed at random, so
    that it cannot decide; `label` names the work in its progress.
    """
    check_whole(f"{label}: steps", steps, 1)
    check_whole(f"{label}: batch", batch, 2)
    draws = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels), np.flatnonzero(~labels)]
    target = torch.cat([torch.ones(batch // 2), torch.zeros(batch // 2)])  # [batch]
    network.train()
    layout: dict[str, Any] = {"memory_format": torch.channels_last}  # as torch does not declare it
    network.to(**layout)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    with Progress(label, steps, "steps") as progress:
        for _ in range(steps):
            rows = np.concatenate([draws.choice(rows, batch // 2) for rows in classes])
            chosen = _augmented(slices[rows], draws, regrade)
            loss = F.binary_cross_entropy_with_logits(network(_as_batch(chosen)), target)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            progress.advance(note=f"loss {loss.item():.3f}")
    network.eval()


def _augmented(slices: Float32, draws: np.random.Generator, regrade: bool) -> Float32:
    mirrored = np.where(draws.random(len(slices))[:, None, None] < 0.5, slices, slices[:, :, ::-1])
    shifts = draws.integers(-SHIFT, SHIFT + 1, (len(slices), 2))
    moved = np.stack(
        [np.roll(x, tuple(shift), (0, 1)) for x, shift in zip(mirrored, shifts, strict=True)]
    )
    if not regrade:
        return moved
    gain = draws.uniform(0.85, 1.15, (len(slices), 1, 1)).astype(np.float32)
    return ((moved + 1) * gain - 1).clip(-1, 1)  # black stays black


def _as_batch(slices: Float32) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(slices, np.float32)).unsqueeze(1)  # [N, 1, H, W]


def check_labelled(slices: Float32, tumour: Labels, what: str = "tumour classifier") -> None:
    """UsageError, which begins with `what`, but for float32 slices and bool labels of both."""
    check_slices(what, slices)
    check_finite(what, slices)
    wanted = isinstance(tumour, np.ndarray) and tumour.dtype == np.bool_
    if not wanted or tumour.shape != (len(slices),):
        raise UsageError(
            f"{what}: expected labels as bool [{len(slices)}], one a slice, got {described(tumour)}"
        )
    if tumour.all() or not tumour.any():
        raise UsageError(
            f"{what}: needs tumour and normal slices, got {int(tumour.sum())} tumour "
            f"and {int((~tumour).sum())} normal"
        )
