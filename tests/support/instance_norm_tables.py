"""The columns that the tables of instance norm's tests share, as pytest marks."""

from __future__ import annotations

import pytest
import torch

ACTIVATIONS = ["none", "relu", "leaky_relu"]
AFFINE = ["none", "weight", "bias", "both"]

dtypes = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"]
)
layouts = pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
activations = pytest.mark.parametrize("activation", ACTIVATIONS)
backends = pytest.mark.parametrize("backend", ["native", "torch"])
