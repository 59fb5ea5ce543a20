"""Latency against throughput: what a call takes in each mode, and how many slices it makes.

    python benchmarks/modes.py [--quick] [--threads 2] [--json FILE]

DCGAN-64, batch 1 and 64, and ResNet-9 at 256, batch 1 and 8, with seeded random weights, on
OpenVINO in bf16 (where the processor has it) and fp32 and on ONNX Runtime in fp32. Sides: mode
latency (one stream with all threads) and throughput (a stream a thread), each with its threads
pinned to cores and not. Two loads: a call by itself, as an embedded generator is called; and calls
that follow one another, as many in flight as the mode keeps, as a bulk job has them. First the
slices are compared with those of mode latency: the largest difference, and whether there is any.
Then all sides take turns in one run. The limit, in the same rounds, is inference.py's: bare
multiplications in bf16.

Exits 6 where a side makes other slices, or where a mode is not the better one at what it is for: a
single call in mode latency, a row of calls in mode throughput (by more than 3 %, of medians).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
from inference import limits
from inference_models import NETWORKS, Graph, as_graph, inputs, make
from json_file import add_json_option, write_json
from timing import interleave, ratio, summary

from fastmrigan.errors import FastMriganError, UsageError
from fastmrigan.export.parity import difference
from fastmrigan.runtime.backends import Backend, BackendOptions, open_backend
from fastmrigan.runtime.machine import machine, usable_cores

ENGINES = (("openvino", "bf16"), ("openvino", "fp32"), ("onnxruntime", "fp32"))
SIDES = {
    "latency": ("latency", False),
    "latency, pinned": ("latency", True),
    "throughput": ("throughput", False),
    "throughput, pinned": ("throughput", True),
}
ROWS = (("DCGAN-64", 64), ("ResNet-9", 1), ("DCGAN-64", 1), ("ResNet-9", 8))
QUICK = ROWS[:2]
FLOW = 8  # calls that follow one another, a turn
# Below, a side makes other slices. Engines sum instance norms in another order on another number of
# threads, and ResNet-9 amplifies that: OpenVINO's two modes lie 74 dB apart at batch 1 in fp32.
LEAST_DB = {"bf16": 45.0, "fp32": 65.0}
SLACK = 1.03


def flow(engine: Backend, x: np.ndarray) -> None:
    """FLOW calls, as many in flight as the mode keeps."""
    deque(engine.run_all(repeat(x, FLOW)), maxlen=0)


def measure(
    graph: Graph, batch: int, backend: str, precision: str, options: argparse.Namespace
) -> dict[str, Any]:
    """The figures of one network, batch and engine; `wrong` for times where slices differ."""
    facts = NETWORKS[graph.path.stem][1]
    x = inputs(facts.latent_size, facts.slice_size[0], batch)
    engines: dict[str, Backend] = {}
    for name, (mode, pinning) in SIDES.items():
        setting = BackendOptions(batch, precision, options.threads, mode, pinning=pinning)
        engine = open_backend(graph, backend, setting)
        if engine.pinning == pinning:  # else it is another side again
            engines[name] = engine
    made = {name: next(engine.run_all([x])) for name, engine in engines.items()}
    expected = made["latency"]
    apart = {name: float(np.abs(slices - expected).max()) for name, slices in made.items()}
    psnr = {name: difference([expected], [slices])[1] for name, slices in made.items()}
    found: dict[str, Any] = {
        "network": graph.path.stem,
        "batch": batch,
        "engines": {name: engine.describe() for name, engine in engines.items()},
        "max_abs_difference": apart,
        "same_bits": {name: bool((slices == expected).all()) for name, slices in made.items()},
    }
    short = [name for name, db in psnr.items() if not db >= LEAST_DB[precision]]
    if short:
        return found | {
            "wrong": f"{', '.join(short)}: not the slices of mode latency",
            "met": False,
        }
    budget, least = (4, 3) if options.quick else (20, 5)
    calls: dict[str, Callable[[], object]] = {
        name: partial(engine.run, x) for name, engine in engines.items()
    }
    single = interleave(calls, 25, budget=budget, least=least)
    flows: dict[str, Callable[[], object]] = {
        name: partial(flow, engine, x) for name, engine in engines.items()
    }
    bare = limits(options.threads)
    flows |= {name: call for name, (call, _) in bare.items()}
    row = interleave(flows, 25, budget=2 * budget, least=least)
    call_ms, row_ms = summary(single), summary(row)
    middle = {name: times["median_ms"] for name, times in row_ms.items()}
    lone = {name: times["median_ms"] for name, times in call_ms.items()}
    best = {
        mode: (
            min(v for k, v in lone.items() if k.startswith(mode)),
            min(v for k, v in middle.items() if k.startswith(mode)),
        )
        for mode in ("latency", "throughput")
    }
    return found | {
        "call_ms": call_ms,
        "slices_per_s": {n: 1e3 * FLOW * batch / ms for n, ms in middle.items() if n in engines},
        "call_ratio": {n: vars(ratio(single[n], single["latency"])) for n in engines},
        "flow_ratio": {n: vars(ratio(row["latency"], row[n])) for n in engines},
        "limit_gflops": max(work / middle[n] / 1e6 for n, (_, work) in bare.items()),
        "met": best["latency"][0] <= SLACK * best["throughput"][0]
        and best["throughput"][1] <= SLACK * best["latency"][1],
    }


def print_row(found: dict[str, Any]) -> None:
    about = found["engines"]["latency"]
    print(f"{found['network']}, batch {found['batch']}, {about['backend']} in {about['precision']}")
    if "wrong" in found:
        print(f"  WRONG RESULT, not timed: {found['wrong']}", flush=True)
        return
    for name, engine in found["engines"].items():
        apart = found["max_abs_difference"][name]
        same = "same bits" if found["same_bits"][name] else f"differs by {apart:.1e}"
        times, call, row = (found[k][name] for k in ("call_ms", "call_ratio", "flow_ratio"))
        print(
            f"  {name:19} {engine['streams']} x {engine['threads'] // engine['streams']} threads: "
            f"a call {times['median_ms']:8.2f} ms ({call['of_medians']:.2f} of latency's), "
            f"{found['slices_per_s'][name]:8.1f} slices/s ({row['of_medians']:.2f} times as many; "
            f"{row['low']:.2f} to {row['high']:.2f}), {same}"
        )
    print(
        f"  limit: bare multiplications in bf16 {found['limit_gflops']:.0f} GFLOP/s; each mode "
        f"best at its own: {'yes' if found['met'] else 'NO'}",
        flush=True,
    )


def run(options: argparse.Namespace) -> int:
    about = machine() | {
        "threads": options.threads,
        "load_average": os.getloadavg()[0],
        **{name: importlib.metadata.version(name) for name in ("openvino", "onnxruntime")},
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    document: dict[str, Any] = {"benchmark": "modes", "machine": about, "rows": []}
    graphs: dict[str, Graph] = {}
    for network, batch in QUICK if options.quick else ROWS:
        if network not in graphs:
            graphs[network] = as_graph(network, make(network))
        for backend, precision in ENGINES:
            try:
                found = measure(graphs[network], batch, backend, precision, options)
            except UsageError as error:  # a processor without bf16
                print(f"{network}, batch {batch}, {backend} in {precision}: not run: {error}")
                continue
            document["rows"].append(found)
            print_row(found)
            write_json(options.json, document)
    met = [row["met"] for row in document["rows"]]
    document["met"] = all(met)
    write_json(options.json, document)
    print(f"{sum(met)} of {len(met)} as they should be")
    return 0 if all(met) else 6


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two rows, fewer rounds")
    add_json_option(parser)
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    try:
        return run(options)
    except FastMriganError as error:
        print(f"modes: {error}")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
