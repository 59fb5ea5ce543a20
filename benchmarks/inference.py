"""Inference from a model file against PyTorch in eager mode, fp32.

    python benchmarks/inference.py [--quick] [--threads 2] [--json FILE]

ResNet-9 and U-Net at 256, batch 1 and 8, and DCGAN-64, batch 1 and 64, with seeded random weights,
as `fastmrigan export` writes them. Sides: plain PyTorch in inference mode, contiguous (what a
loop over the published code does); OpenVINO through fastmrigan's own backend in bf16; the full run
also has OpenVINO and ONNX Runtime in fp32. First the slices: PSNR against PyTorch over the range
[-1, 1]. Then all sides take turns in one run. Beside them OpenVINO multiplies in bf16 and does
nothing else, products of matrices and ResNet-9's own convolutions in a row: the higher rate is the
processor's limit. (torch.mm, which was the limit here before, is slower than the networks'
convolutions.)

    ResNet-9    bf16 at least 2.3 (batch 1) and 3.5 times (batch 8) faster, 45 dB
    DCGAN-64    bf16 at least 4 (batch 1) and 2 times (batch 64) faster
    wrapper     Generator.translate over the engine's own call on an identity model, one slice of
                256: at most 50 microseconds
    start       a process's start to its first slice of DCGAN-64: at most 0.6 s (startup.py)

U-Net has no bar. --quick ends within 55 s on 2 cores that are otherwise idle. Exits 6 where a
result is wrong or a bar is missed, 2 where the processor has no bf16.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import startup
import torch
from inference_models import (
    NETWORKS,
    Graph,
    as_graph,
    as_model_file,
    convolutions,
    identity,
    inputs,
    make,
    plain,
    products,
)
from json_file import add_json_option, write_json
from timing import interleave, ratio, summary
from torch.utils.flop_counter import FlopCounterMode

from fastmrigan.errors import FastMriganError
from fastmrigan.export.parity import difference
from fastmrigan.runtime.backends import BackendOptions, open_backend
from fastmrigan.runtime.backends.base import Backend
from fastmrigan.runtime.generator import Generator
from fastmrigan.runtime.machine import machine
from fastmrigan.runtime.model_file import ModelFile

# Below, a side makes other slices. fp32 stood at 90 until ResNet-9 was measured: 23 instance norms
# amplify rounding, and OpenVINO is 75 (batch 8) to 84 dB from PyTorch, ONNX Runtime 93 to 97.
LEAST_DB = {"bf16": 45.0, "fp32": 70.0}
MOST_WRAPPER_US = 50.0
MOST_START_S = startup.BAR_SECONDS
IDENTITY = 256  # side of its slice
# The limit: products of matrices of this side, convolutions of so many maps of this side (those of
# the blocks of ResNet-9), and how many of them in a row
PRODUCT, CONVOLVED, IN_A_ROW = 1024, (256, 64), 4
ENGINES = {
    "openvino bf16": ("openvino", "bf16"),
    "openvino fp32": ("openvino", "fp32"),
    "onnxruntime fp32": ("onnxruntime", "fp32"),
}
EAGER, TAKEN = "torch eager fp32", "openvino bf16"


@dataclass(frozen=True)
class Row:
    """One network at one batch."""

    network: str
    batch: int
    bar: float | None  # times faster than eager
    quick: bool = True  # part of --quick


ROWS = (
    Row("DCGAN-64", 1, 4.0),
    Row("DCGAN-64", 64, 2.0),
    Row("U-Net", 1, None),
    Row("U-Net", 8, None, quick=False),
    Row("ResNet-9", 1, 2.3),
    Row("ResNet-9", 8, 3.5),
)


def limits(threads: int) -> dict[str, tuple[Callable[[], object], int]]:
    """Multiplications and nothing else by the engine and in the precision of TAKEN: a call of each
    kind, and its operations."""
    backend, precision = ENGINES[TAKEN]
    rows, (channels, side) = PRODUCT, CONVOLVED
    kinds = {
        "products": (products(PRODUCT, IN_A_ROW), (rows, PRODUCT), 2 * rows * PRODUCT**2),
        "convolutions": (
            convolutions(channels, side, IN_A_ROW),
            (1, 1, side, side),
            2 * 9 * (channels * side) ** 2,
        ),
    }
    found: dict[str, tuple[Callable[[], object], int]] = {}
    for name, (graph, shape, operations) in kinds.items():
        engine = open_backend(graph, backend, BackendOptions(shape[0], precision, threads))
        x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        found[name] = partial(engine.run, x), IN_A_ROW * operations
    return found


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its seconds."""
    began = time.perf_counter()
    made = call()
    return made, time.perf_counter() - began


def measure(
    row: Row, network: torch.nn.Module, graph: Graph | ModelFile, options: argparse.Namespace
) -> dict[str, Any]:
    """The figures of one row; `wrong` in place of times where slices differ too much."""
    facts = NETWORKS[row.network][1]
    x = inputs(facts.latent_size, facts.slice_size[0], row.batch)
    given = torch.from_numpy(x)

    def eager() -> np.ndarray:
        with torch.inference_mode():
            return network(given).numpy()

    names = [TAKEN] if options.quick else list(ENGINES)
    engines: dict[str, Backend] = {}
    for name in names:
        backend, precision = ENGINES[name]
        setting = BackendOptions(row.batch, precision, options.threads)
        engines[name] = open_backend(graph, backend, setting)
    sides: dict[str, Callable[[], Any]] = {EAGER: eager}
    sides |= {name: partial(engine.run, x) for name, engine in engines.items()}
    bare = limits(options.threads)
    sides |= {name: call for name, (call, _) in bare.items()}
    with FlopCounterMode(display=False) as counter:
        first = {name: timed(call) for name, call in sides.items()}
    work = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    expected = first[EAGER][0]
    psnr = {name: difference([expected], [first[name][0]])[1] for name in engines}
    found: dict[str, Any] = {
        "network": row.network,
        "batch": row.batch,
        "spread": float(expected.std()),
        "psnr_db": psnr,
        "bar": row.bar,
    }
    short = [
        f"{name} is {psnr[name]:.1f} dB from {EAGER}, at least {LEAST_DB[e.precision]:.0f} wanted"
        for name, e in engines.items()
        if not psnr[name] >= LEAST_DB[e.precision]  # written so that NaN fails
    ]
    if short:
        return found | {"wrong": "; ".join(short), "met": False}
    if options.quick:  # the first calls were the warming up
        alone = {name: took for name, (_, took) in first.items()}
        seconds = interleave(sides, 15, budget=3, turn=1e-2, least=3, alone=alone)
    else:
        seconds = interleave(sides, 25, budget=60, turn=2e-2)
    times = summary(seconds)
    ratios = {name: vars(ratio(seconds[EAGER], seconds[name])) for name in engines}
    rates = {name: most / times[name]["median_ms"] / 1e6 for name, (_, most) in bare.items()}
    peak = max(rates.values())
    reached = work / times[TAKEN]["median_ms"] / 1e6
    return found | {
        "rounds": len(seconds[EAGER]),
        "times": times,
        "ratios": ratios,
        "limit": {
            "operations": work,
            "gflops": reached,
            "bare_gflops": rates,
            "share": reached / peak,
        },
        "met": row.bar is None or ratios[TAKEN]["of_medians"] >= row.bar,
    }


def print_row(found: dict[str, Any]) -> None:
    head = f"{found['network']}, batch {found['batch']}"
    if "wrong" in found:
        print(f"{head}: WRONG RESULT, not timed: {found['wrong']}", flush=True)
        return
    eager = found["times"][EAGER]
    print(
        f"{head}, {found['rounds']} rounds: {EAGER} {eager['median_ms'] / found['batch']:.2f} ms a "
        f"slice (min {eager['min_ms'] / found['batch']:.2f})"
    )
    for name, psnr in found["psnr_db"].items():
        time, times = found["times"][name], found["ratios"][name]
        line = (
            f"  {name:16} {time['median_ms'] / found['batch']:8.2f} ms a slice "
            f"(min {time['min_ms'] / found['batch']:.2f}), {times['of_medians']:.2f}x "
            f"({times['per_round']:.2f}, {times['low']:.2f} to {times['high']:.2f}), {psnr:.1f} dB"
        )
        if name == TAKEN and found["bar"] is not None:
            line += f", at least {found['bar']:g}x: {'met' if found['met'] else 'MISSED'}"
        print(line)
    reached = found["limit"]
    fastest = max(reached["bare_gflops"], key=reached["bare_gflops"].get)
    print(
        f"  limit: {reached['gflops']:.0f} of {reached['bare_gflops'][fastest]:.0f} GFLOP/s of "
        f"bare {fastest} ({100 * reached['share']:.0f} %)",
        flush=True,
    )


def bare_call(model: ModelFile, x: np.ndarray, properties: dict[str, Any]) -> Callable[[], object]:
    """OpenVINO's own infer(), its input bound beforehand: no copy, no dictionary, no check."""
    import openvino

    from fastmrigan.runtime.backends.openvino import the_core

    graph = the_core().read_model(model.data)
    graph.reshape(list(x.shape))
    compiled = the_core().compile_model(graph, "CPU", properties)
    request: Any = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
    return request.infer


def wrapper(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Microseconds a call of our Python adds to the engine's own, on an identity model."""
    model = identity(folder, IDENTITY)
    generator = Generator(
        model, backend="openvino", precision="fp32", threads=options.threads, batch=1
    )
    x = inputs(None, IDENTITY, 1)  # [1, 1, H, W]
    if not np.array_equal(generator.translate(x[:, 0]), x[:, 0]):
        return {"wrong": "the identity model changes the slice", "met": False}
    sides = {
        "bare": bare_call(model, x, generator.backend.properties),
        "backend": lambda: generator.backend.run(x),
        "generator": lambda: generator.translate(x[:, 0]),
    }
    rounds = 50 if options.quick else 200
    seconds = interleave(sides, rounds, budget=3 if options.quick else 12, turn=1e-2)
    added = {
        name: 1e6 * statistics.median(a - b for a, b in zip(taken, seconds["bare"], strict=True))
        for name, taken in seconds.items()
    }
    bare = 1e6 * statistics.median(seconds["bare"])
    met = added["generator"] <= MOST_WRAPPER_US
    print(
        f"wrapper, identity of one {IDENTITY}x{IDENTITY} slice: the engine's own call "
        f"{bare:.1f} us; our backend adds {added['backend']:.1f} us, Generator.translate "
        f"{added['generator']:.1f} us, at most {MOST_WRAPPER_US:.0f}: {'met' if met else 'MISSED'}",
        flush=True,
    )
    return {"bare_us": bare, "added_us": added, "bar_us": MOST_WRAPPER_US, "met": met}


def start(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds from a process's start to its first slice."""
    first, floor, torch_there = startup.measure(str(path), 3 if options.quick else 9)
    median = statistics.median(first)
    met = median <= MOST_START_S and not torch_there
    print(
        f"start to the first slice of {path.stem}: {median:.3f} s (min {min(first):.3f}; "
        f"interpreter and numpy alone {statistics.median(floor):.3f}), at most {MOST_START_S:g}: "
        f"{'met' if met else 'MISSED'}" + ("; TORCH WAS IMPORTED" if torch_there else ""),
        flush=True,
    )
    return {"seconds": first, "floor_seconds": floor, "bar_seconds": MOST_START_S, "met": met}


def run(options: argparse.Namespace, folder: Path) -> int:
    began = time.perf_counter()
    torch.set_num_threads(options.threads)
    about = machine() | {
        "threads": options.threads,
        "load_average": os.getloadavg()[0],
        **{name: importlib.metadata.version(name) for name in ("torch", "openvino", "onnxruntime")},
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    document: dict[str, Any] = {"benchmark": "inference", "machine": about, "rows": []}
    for name in NETWORKS:
        network = make(name)
        if name == "DCGAN-64":
            graph: Graph | ModelFile = as_model_file(name, network, folder)
        else:
            graph = as_graph(name, network)
        network = plain(network)
        for row in ROWS:
            if row.network == name and (row.quick or not options.quick):
                document["rows"].append(measure(row, network, graph, options))
                print_row(document["rows"][-1])
                write_json(options.json, document)
    document["wrapper"] = wrapper(folder, options)
    document["start"] = start(folder / "DCGAN-64.onnx", options)
    met = [part["met"] for part in (*document["rows"], document["wrapper"], document["start"])]
    document |= {"met": all(met), "seconds": time.perf_counter() - began}
    write_json(options.json, document)
    print(f"{sum(met)} of {len(met)} as they should be, {document['seconds']:.0f} s")
    return 0 if all(met) else 6


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="ends within 55 s")
    add_json_option(parser)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            return run(options, Path(folder))
        except FastMriganError as error:
            print(f"inference: {error}")
            return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
