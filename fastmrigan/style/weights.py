"""Where VGG19's weights come from, and their normalisation to mean activations of one.

A local file in torchvision's format, or seeded random filters: nothing is ever downloaded, and
which of the two it is goes with every output.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.models.vgg19 import RELUS, Vgg19Features

REMEDY = "give torchvision's VGG19 weights (vgg19-dcbb9e9d.pth), or none for random filters"
FLOOR = 1e-3  # of a layer's mean activation: a filter that hardly fires is not blown up further


@dataclass(frozen=True)
class Weights:
    """VGG19 with weights, and what is known about them."""

    network: Vgg19Features  # eval, float32, without gradients
    origin: str  # "file" or "random"
    label: str  # "sha256 …" or "random, seed N": what the outputs are labelled with

    @property
    def facts(self) -> dict[str, str]:
        return {"origin": self.origin, "weights": self.label}


def load_weights(path: Path) -> Weights:
    """VGG19 from a state_dict in torchvision's format, with or without its classifier.

    UsageError where there is no such file; ModelRefused where it is damaged or holds anything
    else. No code in the file is run.
    """
    if not path.is_file():
        raise UsageError(f"--vgg-weights {path}: no such file; {REMEDY}")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    named = re.search(r"-([0-9a-f]{8})\.pth$", path.name)  # as torch.hub checks its downloads
    if named and not sha256.startswith(named[1]):
        raise ModelRefused(
            f"{path}: damaged (its name promises a sha256 of {named[1]}…, it has {sha256[:8]}…); "
            "fetch it again"
        )
    network = Vgg19Features()
    network.load_state_dict(checked(path, read_state_dict(path), network.state_dict()))
    return Weights(frozen(network), "file", f"sha256 {sha256}")


def read_state_dict(path: Path) -> dict[str, Any]:
    """A file of torch.save, in the present or the older format. Raises ModelRefused."""
    try:
        if zipfile.is_zipfile(path):  # torch.load itself skips the archive's checksums
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # which one depends on where the damage lies
        raise ModelRefused(
            f"{path}: not a readable file of weights ({type(error).__name__}); {REMEDY}"
        ) from error
    if not isinstance(state, dict):
        raise ModelRefused(f"{path}: holds a {type(state).__name__}, not a state_dict; {REMEDY}")
    return state


def checked(path: Path, state: dict[str, Any], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The convolutions' part of a state_dict as float32. Raises ModelRefused for any other."""
    found = {key: value for key, value in state.items() if not str(key).startswith("classifier.")}
    missing = [key for key in expected if key not in found]
    if missing:
        raise ModelRefused(f"{path}: not VGG19 ({missing[0]} is missing); {REMEDY}")
    extra = [key for key in found if key not in expected]
    if extra:
        raise ModelRefused(f"{path}: not VGG19 ({str(extra[0])!r} is no part of it); {REMEDY}")
    for key, wanted in expected.items():
        value = found[key]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            what = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ModelRefused(f"{path}: {key} is {what}, expected floating point; {REMEDY}")
        if value.shape != wanted.shape:
            raise ModelRefused(
                f"{path}: not VGG19 ({key} is {list(value.shape)}, expected "
                f"{list(wanted.shape)}); {REMEDY}"
            )
        if not value.isfinite().all():
            raise ModelRefused(f"{path}: {key} holds NaN or infinite values; {REMEDY}")
    return {key: value.float() for key, value in found.items()}


def random_weights(seed: int) -> Weights:
    """VGG19 with filters drawn from `seed`; torch's global RNG is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Vgg19Features()
        network.initialise()
    return Weights(frozen(network), "random", f"random, seed {seed}")


def frozen(network: Vgg19Features) -> Vgg19Features:
    return network.eval().requires_grad_(False)


@torch.no_grad()
def normalise_activations(network: Vgg19Features, slices: Tensor) -> int:
    """Scales every filter so that its mean activation over slices and positions is 1, in place.

    Gatys, Ecker, Bethge 2016, section 2: the next layer takes the scale back, so a layer's
    responses stay the same but for one factor a filter. slices: [N, 1 or 3, H, W] in [-1, 1], what
    the mean is taken over. Filters whose mean lies below a thousandth of their layer's are scaled
    as if it lay there; returns how many. Raises ModelRefused where a whole layer stays dark.
    """
    means = mean_activations(network, slices)
    before = torch.ones(3, dtype=torch.float64, device=slices.device)
    below = 0
    for (place, layer), mean in zip(network.convolutions().items(), means.values(), strict=True):
        floor = FLOOR * mean.mean()
        if not floor > 0:
            raise ModelRefused(f"VGG19's layer {place} answers to none of the slices; {REMEDY}")
        below += int((mean < floor).sum())
        scale = mean.clamp(min=floor)  # [C]
        weight = layer.weight.double() * before[:, None, None] / scale[:, None, None, None]
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(layer.bias.double() / scale)
        before = scale
    return below


@torch.no_grad()
def mean_activations(network: Vgg19Features, slices: Tensor) -> dict[str, Tensor]:
    """Mean over slices and positions behind each rectifier, float64 [C], by layer.

    One slice at a time, since the responses of many would fill the memory.
    """
    totals: dict[str, Tensor] = {}
    for one in slices[:, None]:  # [1, C, H, W]
        for name, features in network(one, RELUS).items():
            mean = features.double().mean(dim=(0, 2, 3))  # [C]
            totals[name] = totals[name] + mean if name in totals else mean
    return {name: total / len(slices) for name, total in totals.items()}
