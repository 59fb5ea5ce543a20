"""4x4 convolutions of stride 2 in bf16: fastmrigan's gradient of the weights against oneDNN's.

    python benchmarks/strided_conv.py [--threads 1] [--quick] [--json FILE]

First the inner layers of the recipes, forward and backward, as nn.Conv2d and nn.ConvTranspose2d
have them and as fastmrigan.ops.strided_conv has them, beside them the time of their three products
as plain matrix products of the same shape, which is what this processor can do; then one
optimisation step of tumour-dcgan64 at batch 32 and 128, discriminator and generator. Both sides
take turns; a ratio is oneDNN's time over ours, of medians and then of minima. Before a side is
timed its gradients must agree with the other's, or nothing is. Layers that fastmrigan leaves to
oneDNN are not here: there both sides are the same code.

    tumour-dcgan64, batch 32     at least 1.15x
    tumour-dcgan64, batch 128    at least 1.15x

Exits 6 where a result is wrong or a bar is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from json_file import add_json_option, write_json
from timing import interleave, ratio, summary
from torch import Tensor, nn

from fastmrigan.models.dcgan import DcganDiscriminator, DcganGenerator
from fastmrigan.ops import strided_conv
from fastmrigan.ops.strided_conv import StridedConv2d, StridedConvTranspose2d
from fastmrigan.runtime.machine import machine

BAR = 1.15
# slices, channels of the smaller plane and of the larger, side of the smaller; where from
LAYERS = (
    (128, 512, 256, 4, "tumour-dcgan64, batch 128"),
    (32, 512, 256, 4, "tumour-dcgan64, batch 32"),
    (32, 256, 128, 8, "tumour-dcgan64, batch 32"),
    (1, 256, 128, 8, "PatchGAN at 64x64"),
    (2, 512, 512, 8, "t1-t2-cyclegan-unet-v4"),
    (2, 1024, 512, 8, "t1-t2-cyclegan-unet-v4, with its skip"),
    (2, 512, 512, 2, "t1-t2-cyclegan-unet-v4"),
)


@contextmanager
def onednn() -> Iterator[None]:
    """Every layer as PyTorch has it."""
    usual = strided_conv.LONGEST
    strided_conv.LONGEST = 0
    try:
        yield
    finally:
        strided_conv.LONGEST = usual


def both(call: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
    def plain() -> Any:
        with onednn():
            return call()

    return {"oneDNN": plain, "ours": call}


def layer(count: int, narrow: int, wide: int, side: int, transposed: bool) -> Callable[[], Tensor]:
    """Forward and backward; returns the gradient of the weights."""
    torch.manual_seed(0)
    module: nn.Module
    if transposed:
        module, shape = StridedConvTranspose2d(narrow, wide), (count, narrow, side, side)
    else:
        module, shape = StridedConv2d(wide, narrow), (count, wide, 2 * side, 2 * side)
    module = module.to(memory_format=torch.channels_last)
    x = torch.randn(shape).to(memory_format=torch.channels_last).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        towards = torch.randn_like(module(x))

    def call() -> Tensor:
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = module(x)
        y.backward(towards)
        gradient: Tensor = module.weight.grad  # type: ignore[assignment]
        return gradient

    return call


def products(count: int, narrow: int, wide: int, side: int) -> Callable[[], object]:
    """The layer's multiplications, as three matrix products and nothing else."""
    pixels, window = count * side * side, 16 * wide
    rows = torch.randn(pixels, narrow).bfloat16()
    windows = torch.randn(pixels, window).bfloat16()
    weight = torch.randn(narrow, window).bfloat16()
    return lambda: (windows @ weight.t(), rows @ weight, rows.t() @ windows)


def dcgan_step(batch: int) -> Callable[[], Tensor]:
    """Both updates of tumour-dcgan64 in bf16; returns the gradient of its widest layer."""
    torch.manual_seed(0)
    generator, discriminator = (
        network.to(memory_format=torch.channels_last)
        for network in (DcganGenerator(), DcganDiscriminator())
    )
    generator.initialise()
    discriminator.initialise()
    rates = {"lr": 2e-4, "betas": (0.5, 0.999), "fused": True}
    of_g = torch.optim.Adam(generator.parameters(), **rates)
    of_d = torch.optim.Adam(discriminator.parameters(), **rates)
    real = torch.randn(batch, 1, 64, 64).to(memory_format=torch.channels_last)
    latents = torch.randn(batch, 100)

    def call() -> Tensor:
        discriminator.requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16):
            fake = generator(latents)
            loss = F.softplus(-discriminator(real).float()).mean()
            loss = loss + F.softplus(discriminator(fake.detach()).float()).mean()
        of_d.zero_grad()
        loss.backward()
        widest: Tensor = discriminator.layers[8].weight.grad.clone()  # type: ignore[union-attr]
        of_d.step()
        discriminator.requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.softplus(-discriminator(fake).float()).mean()
        of_g.zero_grad()
        loss.backward()
        of_g.step()
        return widest

    return call


def agree(made: Callable[[], Callable[[], Tensor]]) -> bool:
    """Whether both sides, each begun from the same weights, find the same gradient."""
    ours, theirs = (both(made())[name]().double() for name in ("ours", "oneDNN"))
    return bool((ours - theirs).norm() <= 0.02 * theirs.norm())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few rounds: do the sides run at all")
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds, least = (3, 3) if options.quick else (60, 9)
    cases = [
        (
            f"{'transpose, ' if transposed else ''}{count} x {narrow} and {wide} channels, rows of "
            f"{side} ({where})",
            partial(layer, count, narrow, wide, side, transposed),
            {"products": products(count, narrow, wide, side)},
            None,
        )
        for transposed in (False, True)
        for count, narrow, wide, side, where in LAYERS
    ]
    cases += [
        (f"a step of tumour-dcgan64, batch {batch}", partial(dcgan_step, batch), {}, BAR)
        for batch in (32, 128)
    ]
    rows, failed = [], False
    for name, made, beside, bar in cases:
        if not agree(made):
            print(f"{name}: the gradients differ")
            failed = True
            continue
        seconds = interleave({**both(made()), **beside}, rounds, budget=6.0, least=least)
        gain = ratio(seconds["oneDNN"], seconds["ours"])
        of_minima = min(seconds["oneDNN"]) / min(seconds["ours"])
        missed = bar is not None and not options.quick and gain.of_medians < bar
        failed |= missed
        rows.append(
            {"case": name, "bar": bar, "ratio": gain.of_medians, "ratio_of_minima": of_minima}
            | {"times": summary(seconds)}
        )
        held = "" if bar is None else f"  bar {bar:g}x{': MISSED' if missed else ''}"
        if beside:
            limit = ratio(seconds["ours"], seconds["products"])
            held += f"  ours takes {limit.of_medians:.1f} times the bare products"
        print(f"{name}: {gain}, minima {of_minima:.2f}x{held}", flush=True)
    write_json(
        options.json,
        {
            "benchmark": "strided_conv",
            "machine": machine(),
            "torch": torch.__version__,
            "threads": options.threads,
            "rows": rows,
        },
    )
    return 6 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
