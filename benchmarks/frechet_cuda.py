"""The CUDA half of frechet.py: which way to the overlap is faster on this device, and as exact.

    python benchmarks/frechet.py --device cuda [--quick] [--rounds 3] [--json FILE]

    few          660 x 660 from features: svdvals of a [660, 660] product (cuSOLVER), against its
                 nuclear norm by the polar factor, products alone
    features     5,000 and 10,000 rows: eigvalsh of L' S2 L (cuSOLVER) against the polar factor of
                 L1' L2; both with the moments by our kernel
    covariances  the same from moments that are on the device already
    moments      our kernel against PyTorch's widening and float64 product of the same rows

Each result is first held against the float64 reference of frechet.py to 1e-8, and against its own
bound. `POLAR_ON_CUDA` in fastmrigan/metrics/overlap.py says which of the two `frechet` takes; a
line at the end says what these figures speak for. Exits 6 where a result is wrong.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from frechet import FULL, QUICK, WRONG, Size, draw, reference
from json_file import write_json
from timing import ratio, summary
from torch import Tensor

from fastmrigan.metrics import frechet, overlap
from fastmrigan.metrics.feature_set import FeatureSet
from fastmrigan.metrics.frechet import Features
from fastmrigan.metrics.moments import Moments
from fastmrigan.metrics.nuclear_norm import polar_nuclear_norm

Sides = Mapping[str, Callable[[], object]]


def distance(a: Features, b: Features, polar: bool) -> tuple[float, float]:
    """The distance and its bound, by one of the two ways."""
    for features in (a, b):
        if isinstance(features, Moments):
            features.cache.pop("lower", None)  # the factor of the call before is part of the time
    overlap.POLAR_ON_CUDA = polar
    found = frechet(a, b)
    return found.distance, found.error_bound


def rows(size: Size) -> Iterator[tuple[str, Sides, float]]:
    """Name, sides that return (value, bound), exact value."""
    a, b = draw(size.few, size.d, 1), draw(size.few, size.d, 2, 1.1)
    on_gpu = [torch.from_numpy(x).cuda() for x in (a, b)]
    first, second = (FeatureSet("", x) for x in on_gpu)
    product = first.rows @ second.rows.mT
    values = torch.linalg.svdvals(product.cpu())
    sides: Sides = {
        "cusolver": lambda: (float(torch.linalg.svdvals(product).sum()), WRONG),
        "polar": partial(polar_nuclear_norm, product),
    }
    yield f"{size.few} x {size.few} product", sides, float(values.sum())
    yield (
        f"{size.few} x {size.few} features",
        {"cusolver": partial(distance, *on_gpu, False)},
        reference(a, b),
    )
    for n in size.many:
        a, b = draw(n, size.d, 1), draw(n, size.d, 2, 1.1)
        exact = reference(a, b)
        on_gpu = [torch.from_numpy(x).cuda() for x in (a, b)]
        moments = [Moments().update(x) for x in on_gpu]
        for name, given in (("features", on_gpu), ("covariances", moments)):
            ways = {"cusolver": False, "polar": True}
            sides = {way: partial(distance, *given, polar) for way, polar in ways.items()}
            yield f"{n} x {n} {name}", sides, exact


def check(name: str, sides: Sides, exact: float) -> dict[str, dict[str, float]]:
    found = {}
    for side, call in sides.items():
        value, bound = call()
        error = abs(value - exact)
        assert error <= WRONG, f"{name} by {side}: off by {error:.1e} from {exact}"
        assert error <= bound + WRONG / 100, f"{name} by {side}: off by {error:.1e} > {bound:.1e}"
        found[side] = {"error": error, "error_bound": bound}
    return found


def seconds_of(call: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def take_turns(sides: Sides, rounds: int) -> dict[str, list[float]]:
    for call in sides.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            seconds[name].append(seconds_of(sides[name]))
    return seconds


def report(name: str, seconds: dict[str, list[float]]) -> dict[str, object]:
    times = summary(seconds)
    words = [f"{side} {time['median_ms']:.2f} ms" for side, time in times.items()]
    row: dict[str, object] = {"row": name, "times": times}
    if len(seconds) == 2:
        (slow, slow_times), (fast, fast_times) = seconds.items()
        found = ratio(slow_times, fast_times)
        words.append(f"{slow} / {fast} {found}")
        row["ratio"] = {"slow": slow, "fast": fast, **vars(found)}
    print(f"{name}: {', '.join(words)}", flush=True)
    return row


def plain_moments(x: Tensor) -> Tensor:
    wide = x.double()
    wide -= wide[:256].mean(dim=0)
    return wide.mT @ wide


def moments_row(size: Size, rounds: int) -> dict[str, object]:
    x = torch.from_numpy(draw(size.many[-1], size.d, 1)).cuda()
    ours, expected = Moments().update(x).covariance_tensor(), torch.cov(x.double().mT)
    error = float((ours - expected).abs().max())
    assert error <= 1e-12, f"moments: off by {error:.1e}"
    sides: Sides = {"torch": partial(plain_moments, x), "ours": lambda: Moments().update(x)}
    row = report(f"moments of {len(x)} x {size.d}", take_turns(sides, rounds))
    return row | {"error": error}


def on_cuda(options: argparse.Namespace) -> int:
    size = QUICK if options.quick else FULL
    rounds = max(options.rounds, 3)
    document = {"benchmark": "frechet_cuda", "device": torch.cuda.get_device_name(), "rows": []}
    wrong, ratios = 0, []
    for name, sides, exact in rows(size):
        try:
            errors = check(name, sides, exact)
        except AssertionError as failure:
            print(f"{name}: WRONG RESULT, not timed: {failure}", flush=True)
            document["rows"].append({"row": name, "wrong": str(failure)})
            wrong += 1
            continue
        row = report(name, take_turns(sides, rounds)) | {"errors": errors}
        document["rows"].append(row)
        if "ratio" in row and "product" not in name:
            ratios.append(row["ratio"]["of_medians"])
        write_json(options.json, document)
    try:
        document["rows"].append(moments_row(size, rounds))
    except AssertionError as failure:
        print(f"WRONG RESULT: {failure}", flush=True)
        wrong += 1
    if ratios:
        better = "True" if min(ratios) > 1 else "False" if max(ratios) < 1 else "a matter of size"
        print(f"these figures speak for POLAR_ON_CUDA = {better}")
        document["polar_on_cuda"] = better
    write_json(options.json, document)
    return 6 if wrong else 0
