"""The CUDA half of ssim.py: checks, then times the kernel against convolutions and a copy.

    python benchmarks/ssim.py --device cuda [--quick] [--json FILE]

A call is SSIM, PSNR and MAE of 64 pairs of 256x256 on the device, their sums left there. Calls go
through as many distinct batches as make six times the L2 cache. Every side is a CUDA graph of about
a millisecond of such calls, so that the launch from Python is not in the time; sides take turns in
every round, between CUDA events.

    eager           SSIM alone by PyTorch's separable convolutions of the five images, float32
    pytorch-msssim  where it is installed
    copy            of both batches: ours reads what this reads, and writes next to nothing

The results are held against float64 first, and against the CPU's kernel, and twice against each
other, to the bit. Exits 6 where one is wrong.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from instance_norm_launches import Turn, time_turns
from json_file import write_json
from ssim import DATA_RANGE, FLOPS_A_PIXEL, PAIRS, SIZE, slices
from torch import Tensor

from fastmrigan import _core
from fastmrigan.metrics.similarity import K1, K2, TERMS, compare

SHAPES = ((1, 11, 11), (3, 37, 53), (2, 45, 300), (5, 256, 256), (64, 64, 64))
C1, C2 = (K1 * DATA_RANGE) ** 2, (K2 * DATA_RANGE) ** 2


def ours(a: Tensor, b: Tensor) -> Tensor:
    """The kernel's sums, [N, TERMS] float64, without a copy to the host."""
    shape = tuple(a.shape)
    doubles = partial(torch.empty, dtype=torch.float64, device=a.device)
    sums, workspace = doubles(len(a), TERMS), doubles(_core.similarity_cuda_workspace(shape, True))
    stream = torch.cuda.current_stream().cuda_stream
    places = (sums.data_ptr(), workspace.data_ptr(), stream)
    _core.similarity_cuda(shape, a.data_ptr(), b.data_ptr(), 0, 0, C1, C2, True, *places)
    return sums


def eager(a: Tensor, b: Tensor) -> Tensor:
    """SSIM [N] as it is usually written in PyTorch, in the type of a and b [N, H, W]."""
    offsets = torch.arange(-5, 6, device=a.device, dtype=a.dtype)
    weights = torch.exp(-(offsets**2) / 4.5)
    weights = weights / weights.sum()
    images = torch.stack([a, b, a * a, b * b, a * b]).flatten(0, 1).unsqueeze(1)  # [5 N, 1, H, W]
    down = F.conv2d(images, weights.view(1, 1, -1, 1))
    means = F.conv2d(down, weights.view(1, 1, 1, -1)).unflatten(0, (5, -1)).squeeze(2)
    mean_a, mean_b, aa, bb, ab = means  # [N, H - 10, W - 10]
    top = (2 * mean_a * mean_b + C1) * (2 * (ab - mean_a * mean_b) + C2)
    squares = mean_a**2 + mean_b**2
    return (top / ((squares + C1) * (aa + bb - squares + C2))).mean((1, 2))


def pytorch_msssim() -> Callable[[Tensor, Tensor], Tensor] | None:
    try:
        import pytorch_msssim as peer
    except ImportError:
        return None
    return lambda a, b: peer.ssim(
        a.unsqueeze(1), b.unsqueeze(1), data_range=DATA_RANGE, size_average=False
    )


def on_device(shape: tuple[int, int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    n, h, w = shape
    pair = slices(n, max(h, w), seed)
    return tuple(torch.from_numpy(s[:, :h, :w].copy()).cuda() for s in pair)


def check(shape: tuple[int, int, int], masked: bool) -> dict[str, object]:
    a, b = on_device(shape)
    mask = torch.rand(shape, device="cuda") < 0.7 if masked else None
    found = compare(a, b, DATA_RANGE, mask)
    on_host = (None if t is None else t.cpu().numpy() for t in (a, b, mask))
    x, y, inside = on_host
    cpu = compare(x, y, DATA_RANGE, inside)
    off = {
        name: float(np.abs(getattr(found, name) - getattr(cpu, name)).max())
        for name in found._fields
    }
    row = {"shape": list(shape), "masked": masked, "off_the_cpu": off}
    row["ok"] = off["ssim"] <= 2e-6 and off["mae"] <= 1e-6 and off["psnr"] <= 1e-4
    row["ok"] &= torch.equal(ours(a, b), ours(a, b))
    if not masked:
        exact = eager(a.double(), b.double()).cpu().numpy()
        row["off_float64"] = float(np.abs(found.ssim - exact).max())
        row["ok"] &= row["off_float64"] <= 5e-6
    if not row["ok"]:
        print(f"ssim {list(shape)}, masked {masked}: WRONG: {row}")
    return row


def on_cuda(options: argparse.Namespace) -> int:
    properties = torch.cuda.get_device_properties(0)
    machine = {"device": properties.name, "sm": f"{properties.major}{properties.minor}"}
    machine |= {"torch": torch.__version__, "cuda": torch.version.cuda}
    print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    document: dict[str, object] = {"benchmark": "ssim", "machine": machine}
    document["checks"] = [check(shape, masked) for shape in SHAPES for masked in (False, True)]
    wrong = sum(not row["ok"] for row in document["checks"])
    print(
        f"checks: {len(document['checks']) - wrong} of {len(document['checks'])} hold", flush=True
    )
    write_json(options.json, document)
    if wrong:
        return 6

    shape = (PAIRS, SIZE, SIZE)
    nbytes = 2 * 4 * PAIRS * SIZE**2
    count = max(2, -(-6 * properties.L2_cache_size // nbytes))
    sets = [on_device(shape, seed) for seed in range(2)]
    sets += [tuple(t.flip(0) + 0.01 * k for t in sets[k % 2]) for k in range(2, count)]
    copies = [tuple(torch.empty_like(t) for t in pair) for pair in sets]
    torch.backends.cudnn.allow_tf32 = False  # float32 convolutions, not their 10-bit cousins

    def copy(number: int) -> tuple[Tensor, ...]:
        return tuple(to.copy_(of) for to, of in zip(copies[number], sets[number], strict=True))

    calls = {"ours": lambda number: ours(*sets[number]), "copy": copy}
    calls["eager"] = lambda number: eager(*sets[number])
    if (peer := pytorch_msssim()) is not None:
        calls["pytorch-msssim"] = lambda number: peer(*sets[number])
    many = {"ours": 4 * count, "copy": 4 * count}
    turns = {
        name: Turn(call, count, many.get(name, count), "graph") for name, call in calls.items()
    }
    times = time_turns(turns, 10 if options.quick else 30)
    medians = {name: statistics.median(found) for name, found in times.items()}  # ms a call
    for name, median in medians.items():
        print(f"{name:15} {1e3 * median:9.1f} us (min {1e3 * min(times[name]):.1f})")
    for name in medians.keys() - {"ours", "copy"}:
        print(f"{name} / ours {medians[name] / medians['ours']:.1f}x")
    document |= {
        "shape": list(shape),
        "ms": {name: {"min": min(t), "median": medians[name]} for name, t in times.items()},
        "ratios": {name: medians[name] / medians["ours"] for name in medians if name != "ours"},
        "read_gb_per_s": {name: nbytes / medians[name] / 1e6 for name in ("ours", "copy")},
        "gflops": FLOPS_A_PIXEL * PAIRS * SIZE**2 / medians["ours"] / 1e6,
    }
    rates = document["read_gb_per_s"]
    print(
        f"reads {rates['ours']:,.0f} GB/s, where a copy reads {rates['copy']:,.0f} and writes as "
        f"much; {document['gflops']:,.0f} GFLOP/s"
    )
    write_json(options.json, document)
    return 0
