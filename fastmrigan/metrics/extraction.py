"""Networks that turn slices into features, all with one face: `FeatureNetwork`.

    random_network()      fixed random convolutions, the ground of fd-random; needs no file
    inception_network()   Inception v3 with its published weights, the ground of FID and KID
    onnx_network()        a network of the user's own, from an .onnx file
    radiomic_network()    radiomic-style features inside the brain mask; no network at all

The two from files run on the runtime's engines, in batches of one size, on slices that are
prepared a batch at a time: memory grows with the features alone.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.imaging.quantise import to_uint8
from fastmrigan.metrics import features, inception, radiomics
from fastmrigan.metrics.checks import check_slices
from fastmrigan.metrics.feature_graph import face_of, read_graph
from fastmrigan.metrics.frechet import frechet_distance
from fastmrigan.metrics.inception_onnx import to_onnx
from fastmrigan.progress import Progress
from fastmrigan.runtime.backends import BackendOptions, choose, open_backend
from fastmrigan.runtime.backends.base import reason

BATCH = 16  # slices a call on the CPU: benchmarks/fid.py --batches shows what others take
CUDA_BATCH = 64
DRIFT_SLICES = 64  # on which bf16 is held against fp32
PRECISIONS = ("fp32", "bf16")

Float32 = npt.NDArray[np.float32]
Prepare = Callable[[Float32], Float32]  # slices [n, H, W] to a network's input [n, C, h, w]


class Extract(Protocol):
    """Slices [N, H, W] to features [N, d]; `label` names the progress, `shown` false hides it."""

    def __call__(self, slices: Float32, *, label: str, shown: bool) -> Float32: ...


class Runs(Protocol):
    """Whatever computes a batch: an engine of the runtime, or torch."""

    def run(self, x: Float32) -> Float32: ...


@dataclass(frozen=True)
class FeatureNetwork:
    """Slices float32 [N, H, W] in [-1, 1] to features float32 [N, dimension].

    Row i depends on slice i alone. `facts` are for a report: what runs, from which file, on what
    input; bf16 adds how far it drifts from fp32 once it has run.
    """

    name: str  # as reports print it
    dimension: int
    extract: Extract = field(repr=False)
    facts: dict[str, str] = field(default_factory=dict)

    def __call__(self, slices: Float32, *, label: str = "features", shown: bool = True) -> Float32:
        """Raises UsageError for other shapes or types, ModelRefused where the network fails."""
        check_slices(self.name, slices)
        return self.extract(slices, label=label, shown=shown)


def random_network() -> FeatureNetwork:
    """The fixed random convolutional features of `features.py`; needs no file."""
    return FeatureNetwork(
        f"random convolutional features (seed {features.FEATURES_SEED})",
        features.DIMENSION,
        features.random_features,
        {"version": str(features.FEATURES_VERSION)},
    )


def radiomic_network() -> FeatureNetwork:
    """The intensity and texture features of `radiomics.py`; needs no file."""
    return FeatureNetwork(
        "radiomic-style features (IBSI)",
        len(radiomics.NAMES),
        radiomics.radiomic_features,
        {"grey levels": str(radiomics.LEVELS), "region": "brain mask"},
    )


def inception_network(
    path: Path | None = None, precision: str = "fp32", *, backend: str = "auto"
) -> FeatureNetwork:
    """Inception v3 with FID's published weights: 2,048 features a slice.

    path: the local weight file, None for the one FASTMRIGAN_INCEPTION names. precision: fp32, or
    bf16, which changes FID and says by how much. backend: torch, openvino, onnxruntime, or auto,
    which is torch on a CUDA device and else the first engine that is installed.

    A slice is seen as pytorch-fid sees its 8-bit file: 256 grey levels, three equal channels,
    bilinear to 299x299 (pixel centres aligned, no smoothing before it shrinks), then [-1, 1].
    Raises UsageError without a file, ModelRefused for another file, MissingDependency.
    """
    network = inception.load_inception(path)
    return of_inception(
        network, "Inception v3, FID weights", precision, backend=backend, sha256=inception.SHA256
    )


def of_inception(
    network: inception.InceptionV3,
    name: str,
    precision: str = "fp32",
    *,
    backend: str = "auto",
    sha256: str | None = None,
    batch: int | None = None,
) -> FeatureNetwork:
    """`inception_network` of a network at hand, in eval mode; `name` says which."""
    check_precision(precision)
    facts = {
        "input": "256 grey levels, replicated to three channels, bilinear to 299x299",
        **({"weights sha256": sha256} if sha256 else {}),
    }
    on_cuda = torch.cuda.is_available()
    if backend == "torch" or (backend == "auto" and on_cuda):
        device = "cuda" if on_cuda else "cpu"
        size = batch or (CUDA_BATCH if on_cuda else BATCH)
        what = f"torch {torch.__version__} on {device}"
        open_at: Callable[[str], Runs] = partial(TorchRun, network, device)
    else:
        backend, why = choose(backend)
        size = batch or BATCH
        what = f"{backend} ({why})"
        graph = Graph(Path("Inception v3"), to_onnx(network))
        open_at = partial(open_graph, graph, backend, size)
    facts["engine"] = f"{what}, {precision}, batch {size}"

    def at(precision: str) -> Batches:
        return Batches(name, open_at(precision), size, inception.DIMENSION, as_8_bit_file)

    first = at(precision)
    if precision == "fp32":
        return FeatureNetwork(name, inception.DIMENSION, first, facts)

    def with_drift(slices: Float32, *, label: str, shown: bool) -> Float32:
        rows = first(slices, label=label, shown=shown)
        if len(rows) >= 2:
            exact = at("fp32")(slices[:DRIFT_SLICES], label="in fp32", shown=False)
            facts["bf16 drift"] = drift(exact, rows)
            if shown:
                print(f"{label}: {facts['bf16 drift']}", file=sys.stderr)
        return rows

    return FeatureNetwork(f"{name}, in bf16", inception.DIMENSION, with_drift, facts)


def check_precision(precision: object, option: str = "precision") -> None:
    """UsageError for what features cannot be computed in; `option` names it in the message."""
    if precision not in PRECISIONS:
        raise UsageError(
            f"{option} {precision!r}: features are computed in {' or '.join(PRECISIONS)}"
        )


def drift(exact: Float32, rows: Float32) -> str:
    """How far the first rows in bf16 are from the same in fp32, in a line."""
    rows = rows[: len(exact)]
    return (
        f"on {len(exact)} slices bf16 features are up to {np.abs(rows - exact).max():.2g} off, "
        f"Frechet distance between bf16 and fp32 {frechet_distance(rows, exact):.2g} (0 without "
        "drift)"
    )


def as_8_bit_file(slices: Float32) -> Float32:
    """[n, H, W] in [-1, 1] to [n, 1, 299, 299] in [-1, 1], as pytorch-fid reads an 8-bit PNG."""
    x = torch.from_numpy(to_uint8(slices)).unsqueeze(1) / 255  # [n, 1, H, W] in [0, 1]
    size = (inception.SIDE, inception.SIDE)
    return (2 * F.interpolate(x, size, mode="bilinear", align_corners=False) - 1).numpy()


def onnx_network(path: Path, *, backend: str = "auto") -> FeatureNetwork:
    """A feature network of the user's own.

    path: an .onnx file in one piece, with one float32 input, slices [N, 1 or 3, H, W] in [-1, 1],
    and one float32 output with N rows, which is flattened to [N, d]. A grey slice is replicated
    to three channels. Where the file fixes H and W, slices are resized to them (bilinear, smoothed
    first where they shrink). Raises UsageError where it cannot be read, ModelRefused where it is
    something else.
    """
    path = Path(path)
    data = read_graph(path)
    face = face_of(path, data)
    backend, why = choose(backend)
    batch = face.batch or BATCH
    engine = open_graph(Graph(path, data), backend, batch, "fp32")

    def prepare(slices: Float32) -> Float32:
        x = torch.from_numpy(np.ascontiguousarray(slices)).unsqueeze(1)  # [n, 1, H, W]
        size = (face.height or x.shape[2], face.width or x.shape[3])
        if tuple(x.shape[2:]) != size:
            x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        return x.expand(-1, face.channels, -1, -1).contiguous().numpy()

    sha256 = hashlib.sha256(data).hexdigest()
    seen = f"{face.height or 'H'}x{face.width or 'W'}, {face.channels} channels"
    return FeatureNetwork(
        f"{path.name} (sha256 {sha256[:12]}…)",
        face.dimension,
        Batches(str(path), engine, batch, face.dimension, prepare),
        {
            "file": str(path),
            "sha256": sha256,
            "input": seen,
            "engine": f"{backend} ({why}), fp32, batch {batch}",
        },
    )


@dataclass(frozen=True)
class Batches:
    """Slices through whatever runs, in batches of one size; the last is filled up and cut."""

    name: str  # for messages
    engine: Runs
    size: int
    dimension: int
    prepare: Prepare

    def __call__(self, slices: Float32, *, label: str, shown: bool) -> Float32:
        rows = np.empty((len(slices), self.dimension), np.float32)
        with Progress(label, len(slices), "slices", shown=shown) as progress:
            for first in range(0, len(slices), self.size):
                part = slices[first : first + self.size]
                if not np.isfinite(part).all():
                    raise UsageError(f"{self.name}: NaN or infinity in slices from {first} on")
                x = self.prepare(part)  # [n, C, h, w]
                if len(part) < self.size:  # with its own last slice, which any network takes
                    x = np.concatenate([x, np.repeat(x[-1:], self.size - len(x), axis=0)])
                rows[first : first + len(part)] = self._run(x, first)[: len(part)]
                progress.advance(len(part))
        return rows

    def _run(self, x: Float32, first: int) -> Float32:
        try:
            y = np.asarray(self.engine.run(x), np.float32).reshape(self.size, -1)
        except Exception as error:  # engines raise their own kinds
            raise ModelRefused(f"{self.name}: cannot be run: {reason(error)}") from error
        if y.shape[1] != self.dimension:
            raise ModelRefused(
                f"{self.name}: makes {y.shape[1]} features of a {x.shape[2]}x{x.shape[3]} slice "
                f"where {self.dimension} are expected; give it a fixed input size"
            )
        if not np.isfinite(y).all():
            raise ModelRefused(
                f"{self.name}: makes NaN or infinite features of slices {first} to "
                f"{first + self.size - 1}; give another network"
            )
        return y


class TorchRun:
    """Torch itself: on a CUDA device, or where it is asked for by name."""

    def __init__(self, network: inception.InceptionV3, device: str, precision: str) -> None:
        self.network = network.to(device)
        self.device = device
        self.bf16 = precision == "bf16"

    @torch.inference_mode()
    def run(self, x: Float32) -> Float32:
        # TF32 would cost a thousandth of a feature, which fp32 must not.
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False),
            torch.autocast(self.device, torch.bfloat16, enabled=self.bf16),
        ):
            y: Tensor = self.network(torch.from_numpy(x).to(self.device))
        return y.float().cpu().numpy()


@dataclass(frozen=True)
class Graph:
    """A graph that is no model file of ours, as the runtime's engines read one."""

    path: Path
    data: bytes
    parity: dict[str, Any] = field(default_factory=dict)  # nothing was measured of it
    precision: str = "fp32"  # that it is typed in


def open_graph(graph: Graph, backend: str, batch: int, precision: str) -> Runs:
    return open_backend(graph, backend, BackendOptions(batch, precision))
