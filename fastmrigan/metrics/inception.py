"""Inception v3 as FID uses it: the network and its published weights.

The architecture is Inception v3 (Szegedy et al. 2016, arXiv:1512.00567) in the variant of the
TensorFlow graph of 2015-12-05 that FID was defined on (Heusel et al. 2017), which differs from
other ports in four places: average pooling does not count its padding, the last block pools by
maximum, there are 1,008 classes, and there is no auxiliary head. Parameters bear the names of
pytorch-fid's weight file, so that it fits as it is.

The weights are never downloaded: they come from a local file whose sha256 is checked.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmrigan.errors import ModelRefused, UsageError

WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
PUBLISHED = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{WEIGHTS}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
ENVIRONMENT = "FASTMRIGAN_INCEPTION"
SIDE = 299  # pixels a side of what the network sees
DIMENSION = 2048
CLASSES = 1008
REMEDY = (
    f"fetch {WEIGHTS} (91 MB) from {PUBLISHED}, and name it with "
    f"--inception-weights or {ENVIRONMENT}"
)


class Conv(nn.Module):
    """Convolution without bias, batch norm, ReLU: [N, inputs, H, W] to [N, outputs, H', W']."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        same: bool = True,
    ) -> None:
        """same: padded so that stride 1 keeps the size; else not padded at all."""
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if same else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.bn(self.conv(x)))

    def folded(self) -> tuple[Tensor, Tensor]:
        """One convolution's weight and bias with batch norm's stored statistics in them."""
        assert self.bn.running_var is not None
        assert self.bn.running_mean is not None
        scale = self.bn.weight.double() / (self.bn.running_var.double() + self.bn.eps).sqrt()  # [C]
        weight = self.conv.weight.double() * scale[:, None, None, None]
        bias = self.bn.bias.double() - self.bn.running_mean.double() * scale
        return weight.float(), bias.float()


def mean_pool() -> nn.Module:
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """35x35: 1x1, 5x5, two 3x3 and pooling: [N, inputs, 35, 35] to [N, 224 + pooled, 35, 35]."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 64, 1)
        self.branch5x5_1 = Conv(inputs, 48, 1)
        self.branch5x5_2 = Conv(48, 64, 5)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3)
        self.branch3x3dbl_3 = Conv(96, 96, 3)
        self.pool = mean_pool()
        self.branch_pool = Conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(self.pool(x))], 1)


class BlockB(nn.Module):
    """[N, inputs, 35, 35] to [N, 480 + inputs, 17, 17]."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(inputs, 384, 3, stride=2, same=False)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2, same=False)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), three, self.pool(x)], 1)


class BlockC(nn.Module):
    """7x7 taken apart into 1x7 and 7x1: [N, inputs, 17, 17] to [N, 768, 17, 17]."""

    def __init__(self, inputs: int, inner: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 192, 1)
        self.branch7x7_1 = Conv(inputs, inner, 1)
        self.branch7x7_2 = Conv(inner, inner, (1, 7))
        self.branch7x7_3 = Conv(inner, 192, (7, 1))
        self.branch7x7dbl_1 = Conv(inputs, inner, 1)
        self.branch7x7dbl_2 = Conv(inner, inner, (7, 1))
        self.branch7x7dbl_3 = Conv(inner, inner, (1, 7))
        self.branch7x7dbl_4 = Conv(inner, inner, (7, 1))
        self.branch7x7dbl_5 = Conv(inner, 192, (1, 7))
        self.pool = mean_pool()
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(self.pool(x))], 1)


class BlockD(nn.Module):
    """[N, inputs, 17, 17] to [N, 512 + inputs, 8, 8]."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = Conv(inputs, 192, 1)
        self.branch3x3_2 = Conv(192, 320, 3, stride=2, same=False)
        self.branch7x7x3_1 = Conv(inputs, 192, 1)
        self.branch7x7x3_2 = Conv(192, 192, (1, 7))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1))
        self.branch7x7x3_4 = Conv(192, 192, 3, stride=2, same=False)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat(
            [self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), self.pool(x)], 1
        )


class BlockE(nn.Module):
    """Branches spread out at their ends: [N, inputs, 8, 8] to [N, 2048, 8, 8]."""

    def __init__(self, inputs: int, pool: nn.Module) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 320, 1)
        self.branch3x3_1 = Conv(inputs, 384, 1)
        self.branch3x3_2a = Conv(384, 384, (1, 3))
        self.branch3x3_2b = Conv(384, 384, (3, 1))
        self.branch3x3dbl_1 = Conv(inputs, 448, 1)
        self.branch3x3dbl_2 = Conv(448, 384, 3)
        self.branch3x3dbl_3a = Conv(384, 384, (1, 3))
        self.branch3x3dbl_3b = Conv(384, 384, (3, 1))
        self.pool = pool
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(three),
                self.branch3x3_2b(three),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(self.pool(x)),
            ],
            1,
        )


class InceptionV3(nn.Module):
    """Grey slices [N, 1, 299, 299] in [-1, 1] to features [N, 2048].

    Greyscale is replicated to the three channels the network was trained on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2, same=False)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, same=False)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3)
        self.pool_1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, same=False)
        self.pool_2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = BlockA(192, 32)
        self.Mixed_5c = BlockA(256, 64)
        self.Mixed_5d = BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(768, 128)
        self.Mixed_6c = BlockC(768, 160)
        self.Mixed_6d = BlockC(768, 160)
        self.Mixed_6e = BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b = BlockE(1280, mean_pool())
        self.Mixed_7c = BlockE(2048, nn.MaxPool2d(3, stride=1, padding=1))
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(DIMENSION, CLASSES)  # in the weight file; features do not pass it

    def forward(self, grey: Tensor) -> Tensor:
        x = torch.cat([grey, grey, grey], 1)  # [N, 3, 299, 299]
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # [N, 64, 147, 147]
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.pool_1(x)))  # [N, 192, 71, 71]
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.pool_2(x))))  # [N, 288, 35, 35]
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))  # [N, 768, 17, 17]
        x = self.Mixed_6e(self.Mixed_6d(x))  # [N, 768, 17, 17]
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # [N, 2048, 8, 8]
        return torch.flatten(self.mean(x), 1)  # [N, 2048]


def find_weights(path: Path | None) -> Path:
    """The weight file named, else the one FASTMRIGAN_INCEPTION names. Raises UsageError."""
    named = f"--inception-weights {path}"
    if path is None:
        if not os.environ.get(ENVIRONMENT):
            raise UsageError(f"FID needs Inception's published weights: {REMEDY}")
        path = Path(os.environ[ENVIRONMENT])
        named = f"{ENVIRONMENT}={path}"
    if path.is_dir():
        raise UsageError(f"{named}: is a folder, and the weights are a file; {REMEDY}")
    if not path.is_file():
        raise UsageError(f"{named}: no such file; {REMEDY}")
    return path


def load_inception(path: Path | None = None) -> InceptionV3:
    """The network with its published weights, in eval mode, without gradients.

    path: the local file; None for the one FASTMRIGAN_INCEPTION names. UsageError where there is
    none, ModelRefused where its sha256 is not that of the published file. No code in it is run.
    """
    path = find_weights(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != SHA256:
        raise ModelRefused(
            f"{path}: not Inception's published weights (sha256 {sha256[:12]}…, expected "
            f"{SHA256[:12]}…); {REMEDY}"
        )
    return of_state(torch.load(path, map_location="cpu", weights_only=True))


def of_state(state: dict[str, Tensor]) -> InceptionV3:
    """The network with the tensors of a state_dict, in eval mode, without gradients."""
    with torch.device("meta"):  # no time and no random numbers for weights that are replaced
        network = InceptionV3()
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def random_inception(seed: int = 0) -> InceptionV3:
    """The network with seeded weights, for tests and benchmarks: its features are not FID's.

    Scaled so that features are of order one, batch norm's statistics drawn as well. Torch's own
    random stream is left as it was.
    """
    draws = torch.Generator().manual_seed(seed)
    state = {}
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in InceptionV3().state_dict().items()}
    for key, shape in shapes.items():
        value = torch.empty(shape)
        if key.endswith(("bn.weight", "running_var")):
            value.uniform_(0.8, 1.2, generator=draws)
        elif key.endswith(("bn.bias", "running_mean")):
            value.uniform_(-0.1, 0.1, generator=draws)
        elif key.endswith("num_batches_tracked"):
            value = torch.tensor(0)
        else:
            value.normal_(0, (2 / max(1, shape[1:].numel())) ** 0.5, generator=draws)
        state[key] = value
    return of_state(state)
