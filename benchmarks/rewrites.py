"""What each rewrite of an exported graph is worth, engine by engine, and whether export chose well.

    python benchmarks/rewrites.py [--network NAME …] [--precision fp32 …] [--seconds 200]
                                  [--threads 2] [--json FILE]

    constants                  nodes that read nothing but weights are computed once
    batch norms                folded into the layer before them (behind a convolution by PyTorch's
                               exporter, behind a dense layer by us); the graph without it is not
                               through the exporter's optimiser, so a few views and casts stay too
    inert biases               those that an instance norm subtracts again are left out
    transposed convolutions    of kernel 4 and stride 2, to convolution and DepthToSpace

The graphs are those of the recipes' generators, at the recipes' sizes with seeded random weights
and the biases that `--no-speed` leaves in: with the rewrites that fastmrigan.export.choice takes
for what the row computes in ("chosen"), with one of them fewer or another one more wherever it
changes anything, and with none. --precision: what the graphs are typed in; fp32 ones run through
OpenVINO in bf16 and fp32 and ONNX Runtime in fp32, the others as they are typed, with batch norms
folded, int8 calibrated on inputs such as are timed. A row of fp32 stands for a file that `auto`
does not run in bf16.

First the slices of each are held against PyTorch's; then the graphs of one row take turns in one
run. A ratio is the time without a rewrite over that with it (of "none", over that of "chosen"):
that of the medians, then (the median ratio within a round, and its quartiles). A rewrite pays where
the quartiles lie above 1 and that of the medians above 1.02, and costs where they lie as far below.
The choice was right where nothing chosen costs and nothing else pays.

Rows share --seconds, and those past them are left out, and said so. Exits 6 where slices are wrong;
what pays is reported, not judged.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import torch
from json_file import add_json_option, write_json
from rewrites_graphs import CHOSEN, NETWORKS, NONE, Graphs, graphs_of, side
from timing import Ratio, interleave, ratio, summary

from fastmrigan.errors import MissingDependency
from fastmrigan.export.choice import REWRITES, chosen
from fastmrigan.export.int8 import need_nncf
from fastmrigan.export.parity import difference
from fastmrigan.runtime.backends.openvino import HINTS, TYPED, runs_in, the_core
from fastmrigan.runtime.machine import machine
from fastmrigan.runtime.model_file import PRECISIONS

# Below, a graph makes other slices. In int8 an untrained U-Net reaches 19 dB.
LEAST_DB = {"bf16": 40.0, "fp32": 70.0, "fp16": 45.0, "int8": 15.0}
LEAST = 0.02  # of a graph's time: less is no difference
# Of graphs typed in a precision, who runs them and in what.
ENGINES = {
    "fp32": (("openvino", "bf16"), ("openvino", "fp32"), ("onnxruntime", "fp32")),
    "bf16": (("openvino", "bf16"),),
    "fp16": (("openvino", "fp16"), ("onnxruntime", "fp16")),
    "int8": (("openvino", "int8"), ("onnxruntime", "int8")),
}

Run = Callable[[], np.ndarray]


def opened(
    engine: tuple[str, str], typed: str, graph: bytes, x: np.ndarray, threads: int
) -> tuple[Run, bool]:
    """A call on `x`, and whether any of the graph is computed in the precision asked for. typed:
    what the graph is typed in.

    Not through the runtime's backends, which refuse a graph that OpenVINO runs in fp32 throughout
    where bf16 was asked: that such a graph is one is a finding here.
    """
    backend, precision = engine
    if backend == "onnxruntime":
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.log_severity_level = 4
        session = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: x})[0], True
    model = the_core().read_model(graph)
    model.reshape(list(x.shape))
    hint = HINTS[precision] if typed == "fp32" else TYPED[typed]
    setting = {"INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": 1}
    setting |= {"INFERENCE_NUM_THREADS": threads}
    compiled = the_core().compile_model(model, "CPU", setting)
    request: Any = compiled.create_infer_request()

    def run() -> np.ndarray:
        request.infer({0: x}, share_inputs=True, share_outputs=True)
        return np.array(request.get_output_tensor(0).data)

    return run, precision == "fp32" or runs_in(compiled, precision)


def timed(call: Run) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(
    engine: tuple[str, str], graphs: Graphs, batch: int, *, threads: int, budget: float
) -> dict[str, Any]:
    """The figures of one engine; `wrong` in place of times where slices differ too much."""
    precision = engine[1]
    found = graphs.sides(chosen(graphs.facts.task, precision))
    x = graphs.given(batch)
    expected = graphs.expected(x)
    sides, computed, psnr = {}, {}, {}
    for name, rewrites in found.items():
        sides[name], computed[name] = opened(engine, graphs.typed, graphs.of(rewrites), x, threads)
        psnr[name] = difference([expected], [sides[name]()])[1]
    row: dict[str, Any] = {
        "changed": graphs.changed,
        "chosen": [name for name in REWRITES if name in found[CHOSEN]],
        "psnr_db": psnr,
        "as_asked": computed,  # False: all was computed in another precision
    }
    short = [
        f"{name}: {db:.1f} dB, at least {LEAST_DB[precision]:.0f} wanted"
        for name, db in psnr.items()
        if not db >= LEAST_DB[precision]  # written so that NaN fails
    ]
    if short:
        return row | {"wrong": "; ".join(short)}
    alone = {name: timed(call) for name, call in sides.items()}
    seconds = interleave(sides, 40, budget=budget, turn=1e-2, least=5, alone=alone)
    ratios = {}
    for name in [*REWRITES, NONE]:
        took = name in found[CHOSEN] or name == NONE
        other = NONE if name == NONE else side(name, took)
        if other in found:
            pair = (seconds[other], seconds[CHOSEN]) if took else (seconds[CHOSEN], seconds[other])
            ratios[name] = vars(ratio(*pair))
    row |= {"rounds": len(seconds[CHOSEN]), "times": summary(seconds), "ratios": ratios}
    return row | {"better": better(row)}


def kind(found: dict[str, float]) -> str:
    """What a rewrite with that ratio does: "pays", "costs" or "neither"."""
    if found["low"] > 1 and found["of_medians"] > 1 + LEAST:
        return "pays"
    if found["high"] < 1 and found["of_medians"] < 1 - LEAST:
        return "costs"
    return "neither"


def better(row: dict[str, Any]) -> list[str]:
    """The sides that were faster than what is chosen; none where the choice was right."""
    taken = {*row["chosen"], NONE}
    wrong = [
        name
        for name, found in row["ratios"].items()
        if kind(found) == ("costs" if name in taken else "pays")
    ]
    return [name if name == NONE else side(name, name in taken) for name in wrong]


def show(row: dict[str, Any]) -> None:
    if "wrong" in row:
        print(f"  WRONG RESULT, not timed: {row['wrong']}", flush=True)
        return
    time = row["times"][CHOSEN]
    print(
        f"  chosen ({', '.join(row['chosen']) or NONE}): "
        f"{time['median_ms']:.2f} ms (min {time['min_ms']:.2f}), "
        f"{row['psnr_db'][CHOSEN]:.1f} dB, {row['rounds']} rounds"
    )
    for name, found in row["ratios"].items():
        what = NONE if name == NONE else side(name, name in row["chosen"])
        precision = "" if row["as_asked"][what] else "; all of it computed in another precision"
        print(
            f"    {what:31} {row['times'][what]['median_ms']:8.2f} ms, {Ratio(**found)}{precision}"
        )
    beaten = f"no: faster {', '.join(row['better'])}" if row["better"] else "yes"
    print(f"    chosen well: {beaten}", flush=True)


def verdicts(rows: list[dict[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Of each rewrite, the rows in which it pays, costs, and makes no difference; printed with the
    rows in which another choice would have been faster."""
    said: dict[str, dict[str, list[str]]] = {}
    whole = [row for row in rows if "ratios" in row]
    for row in whole:
        for name, found in row["ratios"].items():
            if name != NONE:
                kinds = said.setdefault(name, {"pays": [], "costs": [], "neither": []})
                kinds[kind(found)].append(f"{where(row)}: {found['of_medians']:.2f}x")
    for name, kinds in said.items():
        print(f"{name}: " + ", ".join(f"{each} in {len(of)}" for each, of in kinds.items()))
        print(f"  chosen as it is since: {REWRITES[name].why}")
        for place in kinds["costs"]:
            print(f"  costs: {place}")
    wrong = [row for row in whole if row["better"]]
    print(f"what is chosen was right in {len(whole) - len(wrong)} rows of {len(whole)}")
    for row in wrong:
        print(f"  {where(row)}: faster {', '.join(row['better'])}")
    return said


def where(row: dict[str, Any]) -> str:
    typed = "" if row["typed"] == "fp32" else ", typed"
    return f"{row['network']}, batch {row['batch']}, {row['engine']}{typed}"


def run(options: argparse.Namespace) -> int:
    began = time.perf_counter()
    torch.set_num_threads(options.threads)
    about = machine() | {
        "threads": options.threads,
        "load_average": os.getloadavg()[0],
        **{name: importlib.metadata.version(name) for name in ("torch", "openvino", "onnxruntime")},
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    document: dict[str, Any] = {"benchmark": "rewrites", "machine": about, "rows": rows}
    document["left_out"] = left_out

    def leave_out(what: str, why: str) -> None:
        left_out.append(what)
        print(f"{what}: left out, {why}", flush=True)

    engines = {typed: usable(typed, leave_out) for typed in options.precision or ["fp32"]}
    jobs = [
        (name, typed, batch, engine)
        for name in options.network or NETWORKS
        for typed in engines
        for batch in NETWORKS[name].batches
        for engine in engines[typed]
    ]
    for number, (name, typed, batch, engine) in enumerate(jobs):
        row: dict[str, Any] = {"network": name, "batch": batch, "engine": " ".join(engine)}
        row["typed"] = typed
        left = options.seconds - (time.perf_counter() - began)
        if left < 0:
            leave_out(where(row), f"past {options.seconds:.0f} s")
            continue
        graphs = graphs_of(NETWORKS[name], typed)
        places = ", ".join(f"{each} {count}" for each, count in graphs.changed.items())
        print(f"{where(row)} (places: {places})")
        # What is left also pays for graphs that are yet to be made and compiled.
        budget = 0.6 * left / (len(jobs) - number)
        row |= measure(engine, graphs, batch, threads=options.threads, budget=budget)
        rows.append(row)
        show(row)
        write_json(options.json, document)
    document |= {"verdicts": verdicts(rows), "seconds": time.perf_counter() - began}
    write_json(options.json, document)
    wrong = sum("wrong" in row for row in rows)
    print(f"{wrong} of {len(rows)} rows wrong, {document['seconds']:.0f} s")
    return 6 if wrong else 0


def usable(typed: str, leave_out: Callable[[str, str], None]) -> list[tuple[str, str]]:
    """The engines of ENGINES that compute graphs of that type here."""
    if typed == "int8":
        try:
            need_nncf()
        except MissingDependency as error:
            leave_out(typed, str(error))
            return []
    able = the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    found = []
    for engine in ENGINES[typed]:
        if engine[0] == "openvino" and engine[1].upper() not in able:
            leave_out(" ".join(engine), f"since this processor has no {engine[1]}")
        else:
            found.append(engine)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", action="append", choices=list(NETWORKS), metavar="NAME")
    parser.add_argument("--precision", action="append", choices=PRECISIONS, help="default: fp32")
    parser.add_argument("--seconds", type=float, default=200.0, help="shared out over the rows")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add_json_option(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
