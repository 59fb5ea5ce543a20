"""Fused instance norm + ReLU against PyTorch's, and against a plain copy of the same tensors.

    python benchmarks/instance_norm.py [--quick] [--only forward …] [--threads 2] [--json FILE]
    python benchmarks/instance_norm.py --device cuda      (instance_norm_cuda.py: see there)

On the CPU, on all cores that PyTorch uses unless --threads says otherwise. Each row checks every
side against float64, then times them in turn in many short rounds. A ratio is printed as the ratio
of the medians, which the bar is held against, then (the median ratio within a round, and its
quartiles). Both sides allocate their output, except where the row is about the kernel alone.

    forward        at least 6x F.instance_norm(x).relu_()
    backward       forward and gradient to x: at least 4.5x; with affine, also the gradients to
                   weight and bias, shown without a bar
    channels_last  forward on channels_last input: at least 6x
    kernel         on buffers that exist: at most 1.7 times y.copy_(x) in cache, 1.2 times beyond
    bf16           at least 1.6 times faster than fp32 on buffers that exist, out of cache

Beside the two stand what limits them: the least memory traffic that could do it, in PyTorch's own
operators, which is x.clone() for the forward, and x + y after it for the backward; and for the
latter autograd_floor, the kernels alone and beside them an autograd.Function that does nothing.
With these kernels no operator whose autograd is a Python function takes less. torch.compile of the
eager pair is shown too, without a bar. What fresh memory costs at batch 8 is freed_memory.py's
subject. Exits 6 where a result is wrong or a bar is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from instance_norm_floor import Kernels, autograd_floor
from instance_norm_sides import (
    DTYPES,
    Inputs,
    Side,
    check,
    check_results,
    check_sides,
    describe_cpu,
    eager,
    forward_and_backward,
    fused,
    grad_for,
    make_inputs,
)
from json_file import add_json_option, write_json
from timing import Ratio, interleave, ratio, summary
from torch import Tensor

LIMITS = {
    "clone": "what memory alone allows",
    "clone + add": "what memory alone allows",
    "autograd_floor": "what an autograd function in Python allows",
}
SHAPES = ((1, 256, 64, 64), (1, 128, 128, 128), (1, 64, 256, 256))
LARGE = (8, 64, 256, 256)  # 134 MB in fp32


@dataclass(frozen=True)
class Row:
    """One comparison, ready to be timed."""

    name: str
    x: Tensor
    sides: Mapping[str, Callable[[], object]]
    slow: str  # the bar is held against the time of `slow` over that of `fast`
    fast: str
    bar: float | None = None
    at_most: bool = False
    limits: tuple[str, ...] = ()  # sides that do a part of what is needed: see LIMITS
    moved: int | None = None  # bytes a call reads and writes; prints GB/s

    def met(self, found: Ratio) -> bool | None:
        if self.bar is None:
            return None
        return found.of_medians <= self.bar if self.at_most else found.of_medians >= self.bar


def forward_rows(
    compiled: bool, name: str = "forward", layout: str = "contiguous"
) -> Iterator[Row]:
    for shape in SHAPES:
        inputs = make_inputs(shape, layout=layout)
        checked = checked_sides(inputs, compiled)
        sides = {name: partial(side, inputs.x) for name, side in checked.items()}
        sides["clone"] = inputs.x.clone
        yield Row(name, inputs.x, sides, slow="eager", fast="fused", bar=6, limits=("clone",))


def channels_last_rows(compiled: bool) -> Iterator[Row]:
    return forward_rows(compiled, "channels_last", "channels_last")


def backward_rows(compiled: bool) -> Iterator[Row]:
    for affine in (False, True):
        for shape in SHAPES:
            inputs = make_inputs(shape, affine=affine, gradients=True)
            with torch.enable_grad():
                checked = checked_sides(inputs, compiled and not affine)
                sides = {name: both(side, inputs) for name, side in checked.items()}
                sides["autograd_floor"] = checked_floor(inputs)
            sides["clone + add"] = partial(least_traffic, inputs.x.detach())
            name, bar = ("backward, affine", None) if affine else ("backward", 4.5)
            limits = ("clone + add", "autograd_floor")
            yield Row(name, inputs.x, sides, "eager", "fused", bar=bar, limits=limits)


def checked_sides(inputs: Inputs, compiled: bool) -> dict[str, Side]:
    sides = {"fused": fused, "eager": eager}
    if compiled:
        sides["compile"] = compile_eager()
    check_sides(sides, inputs)
    return sides


def checked_floor(inputs: Inputs) -> Callable[[], object]:
    # On NaN: fresh memory may hold the right result already, from a side that was checked before.
    nan_like = partial(torch.full_like, fill_value=float("nan"))
    check_results(autograd_floor(inputs, nan_like), inputs.grad, inputs)
    call = autograd_floor(inputs)

    def floor() -> object:
        with torch.enable_grad():
            return call(inputs.grad)

    return floor


def least_traffic(x: Tensor) -> Tensor:
    """Reads x once and writes y once; then reads two tensors and writes one, as a backward must."""
    y = x.clone()
    return x + y


def both(side: Side, inputs: Inputs) -> Callable[[], object]:
    grad = grad_for(side, inputs)

    def call() -> object:
        with torch.enable_grad():
            return forward_and_backward(side, inputs, grad)

    return call


def kernel_rows(_: bool) -> Iterator[Row]:
    for shape in (*SHAPES, LARGE):
        x = make_inputs(shape).x
        y, copy = torch.empty_like(x), torch.empty_like(x)
        kernel = partial(Kernels(Inputs(x)).forward, y)
        sides = {"kernel": kernel, "operator": partial(fused, x, out=y)}
        for call in sides.values():
            y.fill_(float("nan"))
            check(lambda *_, call=call: call(), Inputs(x))
        sides["copy"] = partial(copy.copy_, x)
        bar, moved = (1.2 if shape == LARGE else 1.7), 2 * x.nbytes
        yield Row("kernel", x, sides, "kernel", "copy", bar, at_most=True, moved=moved)


def bf16_rows(_: bool) -> Iterator[Row]:
    x = {name: make_inputs(LARGE, name).x for name in ("fp32", "bf16")}
    y = {name: torch.empty_like(t) for name, t in x.items()}
    existing = {name: partial(fused, t, out=y[name]) for name, t in x.items()}
    fresh = {name: partial(fused, t) for name, t in x.items()}
    for name, t in x.items():
        for call in (existing[name], fresh[name]):
            check(lambda *_, call=call: call(), Inputs(t))
    yield Row("bf16", x["bf16"], existing, slow="fp32", fast="bf16", bar=1.6)
    yield Row("bf16, fresh memory", x["bf16"], fresh, slow="fp32", fast="bf16")


def compile_eager() -> Side:
    torch.compiler.reset()
    return torch.compile(eager, fullgraph=True, dynamic=False)


ROWS = {
    "forward": forward_rows,
    "backward": backward_rows,
    "channels_last": channels_last_rows,
    "kernel": kernel_rows,
    "bf16": bf16_rows,
}


def time_row(row: Row, quick: bool) -> dict[str, object]:
    rounds, budget = (30, 2.0) if quick else (300, 12.0)
    with torch.no_grad():
        seconds = interleave(row.sides, rounds, budget=budget)
    found, times = ratio(seconds[row.slow], seconds[row.fast]), summary(seconds)
    dtype = next(name for name, dtype in DTYPES.items() if dtype == row.x.dtype)
    parts = []
    for name, time in times.items():
        rate = f", {row.moved / time['median_ms'] / 1e6:.1f} GB/s" if row.moved else ""
        parts.append(f"{name} {time['median_ms']:.3f} ms (min {time['min_ms']:.3f}{rate})")
    verdict = "no bar"
    if row.bar is not None:
        limit = "at most" if row.at_most else "at least"
        verdict = f"{limit} {row.bar}x: {'met' if row.met(found) else 'MISSED'}"
    print(f"{row.name:18} {dtype} {list(row.x.shape)}: {', '.join(parts)}")
    print(f"{'':18} {row.slow} / {row.fast} {found}, {verdict}", flush=True)
    limits = {name: ratio(seconds[row.slow], seconds[name]) for name in row.limits}
    for name, limit in limits.items():
        print(f"{'':18} {row.slow} / {name} {limit}: {LIMITS[name]}", flush=True)
    return {
        "row": row.name,
        "shape": list(row.x.shape),
        "dtype": dtype,
        "rounds": len(seconds[row.fast]),
        "times": times,
        "ratio": {"slow": row.slow, "fast": row.fast, **vars(found)},
        "bar": row.bar,
        "at_most": row.at_most,
        "bytes_moved": row.moved,
        "limits": {name: vars(limit) for name, limit in limits.items()},
        "met": row.met(found),
    }


def on_cpu(options: argparse.Namespace) -> int:
    torch.set_num_threads(options.threads or torch.get_num_threads())
    document = {"benchmark": "instance_norm", "machine": describe_cpu(), "rows": []}
    print(", ".join(f"{key} {value}" for key, value in document["machine"].items()))
    missed = 0
    for name in options.only or ROWS:
        try:
            with torch.no_grad():
                for row in ROWS[name](options.compile):
                    document["rows"].append(time_row(row, options.quick))
                    missed += document["rows"][-1]["met"] is False
                    write_json(options.json, document)
        except AssertionError as wrong:
            print(f"{name:18} WRONG RESULT, not timed: {wrong}", flush=True)
            document["rows"].append({"row": name, "met": False, "wrong": str(wrong)})
            missed += 1
    write_json(options.json, document)
    print(f"{missed} missed or wrong of {len(document['rows'])} rows")
    return 6 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer rounds (CUDA: fewer shapes)")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    add_json_option(parser)
    parser.add_argument("--only", action="append", choices=list(ROWS), help="CPU: these rows alone")
    parser.add_argument("--threads", type=int, help="CPU: default, all that PyTorch uses")
    parser.add_argument(
        "--launch", choices=["graph", "queue"], default="graph", help="CUDA: see the other file"
    )
    parser.add_argument(
        "--seconds", type=float, default=190, help="CUDA: rows past these are left out"
    )
    options = parser.parse_args()
    if options.device == "cuda":
        if not torch.cuda.is_available():
            print(
                "instance_norm: no CUDA device: run on a GPU machine, or --device cpu", flush=True
            )
            return 2
        from instance_norm_cuda import on_cuda

        return on_cuda(options)
    return on_cpu(options)


if __name__ == "__main__":
    sys.exit(main())
