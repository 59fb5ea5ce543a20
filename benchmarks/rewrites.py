"""What each rewrite of an exported graph is worth: with it and without it, engine by engine.

    python benchmarks/rewrites.py [--network NAME …] [--seconds 200] [--threads 2] [--json FILE]

    constants                  nodes that read nothing but weights are computed once
    batch norms                folded into the layer before them (behind a convolution by PyTorch's
                               exporter, behind a dense layer by us); the graph without it is not
                               through the exporter's optimiser, so a few views and casts stay too
    inert biases               those that an instance norm subtracts again are left out
    transposed convolutions    of kernel 4 and stride 2, to convolution and DepthToSpace

The graphs are those of the recipes' generators, at the recipes' sizes with seeded random weights
and the biases that `--no-speed` leaves in: as `fastmrigan export` writes them ("all"), without one
rewrite at a time where it changes anything, and without any ("none") where there are several.
Engines: OpenVINO in bf16 and fp32, ONNX Runtime in fp32. First the slices of each are held against
PyTorch's; then the graphs of one engine take turns in one run. A ratio is a graph's time over that
of "all": that of the medians, then (the median ratio within a round, and its quartiles). A rewrite
pays where the quartiles lie above 1 and that of the medians above 1.02, and costs where they lie as
far below.

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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from inference_networks import inputs, seeded
from timing import Ratio, interleave, ratio, summary, write_json

from fastmrigan.export.facts import GeneratorFacts
from fastmrigan.export.graph import REWRITES, exported_graph, rewrite
from fastmrigan.export.parity import difference
from fastmrigan.runtime.backends.openvino import HINTS, runs_in, the_core
from fastmrigan.runtime.machine import machine
from fastmrigan.training.checkpoint import faced
from fastmrigan.training.recipe_file import load_recipe
from fastmrigan.training.systems import system_of

ALL, NONE = "all", "none"
LEAST_DB = {"bf16": 40.0, "fp32": 70.0}  # below, a graph makes other slices
LEAST = 0.02  # of a graph's time: less is no difference
ENGINES = (("openvino", "bf16"), ("openvino", "fp32"), ("onnxruntime", "fp32"))
CONVOLUTIONS = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
UNET = "generator={network: unet, width: 64, norm: instance}"

Run = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Network:
    """A recipe's generator, and the batches it is timed at."""

    recipe: str
    overrides: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1,)


# Every rewrite is there on small and on large maps; the other recipes have the same layers.
NETWORKS = {
    "tumour-dcgan64": Network("tumour-dcgan64", (), (1, 64)),
    "tumour-dcgan128": Network("tumour-dcgan128", (), (1, 16)),
    "t1-t2-cyclegan-unet-v1": Network("t1-t2-cyclegan-unet-v1"),
    "U-Net 256": Network("t2-tumour-cyclegan", (UNET,)),
    "style-transfer-gan": Network("style-transfer-gan"),
    "t2-tumour-cyclegan": Network("t2-tumour-cyclegan"),
}


def made(network: Network) -> tuple[torch.nn.Module, GeneratorFacts]:
    """The generator as it is exported, with weights that make slices."""
    recipe = load_recipe(network.recipe, [*network.overrides, "speed=false"])
    samples = recipe.task == "sample"
    latent = recipe.generator.latent if samples else None
    size = recipe.size
    generator = system_of(recipe).make(recipe)["generator"]
    seeded(generator, torch.from_numpy(inputs(latent, size, 16 if samples else 1)))
    with torch.no_grad():
        for layer in generator.modules():
            bias = getattr(layer, "bias", None)
            if isinstance(layer, CONVOLUTIONS) and bias is not None:
                bias.normal_(0, 0.02)  # the exporter itself drops one of zeros
    facts = GeneratorFacts(recipe.task, recipe.name, (size, size), latent_size=latent)
    return faced(generator, recipe), facts


def graphs(
    module: torch.nn.Module, facts: GeneratorFacts
) -> tuple[dict[str, onnx.ModelProto], dict[str, int]]:
    """The graphs by what was left out of them, and how many places each rewrite changed."""
    folded = exported_graph(module, facts)
    bare = folded
    if any(isinstance(layer, torch.nn.BatchNorm2d) for layer in module.modules()):
        bare = exported_graph(module, facts, folded=False)
    found = {ALL: copied(folded)}
    changed = rewrite(found[ALL])
    changed["batch norms"] = sum(node.op_type == "BatchNormalization" for node in bare.graph.node)
    applied = [name for name in REWRITES if changed[name]]
    for name in applied:
        found[name] = copied(bare if name == "batch norms" else folded)
        rewrite(found[name], without=[name])
    if len(applied) > 1:  # else it is the graph without that one
        found[NONE] = bare
    return found, changed


def copied(graph: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    return copy


def opened(
    backend: str, precision: str, graph: bytes, x: np.ndarray, threads: int
) -> tuple[Run, bool]:
    """A call on `x`, and whether any of the graph is computed in `precision`.

    Not through the runtime's backends, which refuse a graph that OpenVINO runs in fp32 throughout
    where bf16 was asked: that such a graph is one is a finding here.
    """
    if backend == "onnxruntime":
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.log_severity_level = 4
        session = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: x})[0], True
    model = the_core().read_model(graph)
    model.reshape(list(x.shape))
    setting = {"INFERENCE_PRECISION_HINT": HINTS[precision], "NUM_STREAMS": 1}
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
    engine: tuple[str, str],
    found: dict[str, bytes],
    x: np.ndarray,
    expected: np.ndarray,
    *,
    threads: int,
    budget: float,
) -> dict[str, Any]:
    """The figures of one engine; `wrong` in place of times where slices differ too much."""
    backend, precision = engine
    sides, computed, psnr = {}, {}, {}
    for name, graph in found.items():
        sides[name], computed[name] = opened(backend, precision, graph, x, threads)
        psnr[name] = difference([expected], [sides[name]()])[1]
    row: dict[str, Any] = {"engine": f"{backend} {precision}", "psnr_db": psnr}
    row["as_asked"] = computed  # False: every operator ran in another precision
    short = [
        f"{name}: {db:.1f} dB, at least {LEAST_DB[precision]:.0f} wanted"
        for name, db in psnr.items()
        if not db >= LEAST_DB[precision]  # written so that NaN fails
    ]
    if short:
        return row | {"wrong": "; ".join(short)}
    alone = {name: timed(call) for name, call in sides.items()}
    seconds = interleave(sides, 40, budget=budget, turn=1e-2, least=5, alone=alone)
    ratios = {name: vars(ratio(seconds[name], seconds[ALL])) for name in found if name != ALL}
    return row | {"rounds": len(seconds[ALL]), "times": summary(seconds), "ratios": ratios}


def show(row: dict[str, Any]) -> None:
    if "wrong" in row:
        print(f"  {row['engine']}: WRONG RESULT, not timed: {row['wrong']}", flush=True)
        return
    time = row["times"][ALL]
    print(
        f"  {row['engine']:16} {ALL}: {time['median_ms']:.2f} ms (min {time['min_ms']:.2f}), "
        f"{row['psnr_db'][ALL]:.1f} dB, {row['rounds']} rounds"
    )
    for name, found in row["ratios"].items():
        what = NONE if name == NONE else f"without {name}"
        precision = "" if row["as_asked"][name] else "; computed in fp32 throughout"
        print(
            f"    {what:31} {row['times'][name]['median_ms']:8.2f} ms, {Ratio(**found)}{precision}",
            flush=True,
        )


def verdicts(rows: list[dict[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Of each rewrite, the rows in which it pays, costs, and makes no difference."""
    said: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        for name, found in row.get("ratios", {}).items():
            if name == NONE:
                continue
            kind = "neither"
            if found["low"] > 1 and found["of_medians"] > 1 + LEAST:
                kind = "pays"
            elif found["high"] < 1 and found["of_medians"] < 1 - LEAST:
                kind = "costs"
            where = f"{row['network']}, batch {row['batch']}, {row['engine']}"
            kinds = said.setdefault(name, {"pays": [], "costs": [], "neither": []})
            kinds[kind].append(f"{where}: {found['of_medians']:.2f}x")
    for name, kinds in said.items():
        print(f"{name}: " + ", ".join(f"{kind} in {len(each)}" for kind, each in kinds.items()))
        for where in kinds["costs"]:
            print(f"  costs: {where}")
    return said


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
    document: dict[str, Any] = {"benchmark": "rewrites", "machine": about, "rows": rows}
    able = the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    engines = [each for each in ENGINES if each[1] == "fp32" or each[1].upper() in able]
    document["left_out"] = [" ".join(each) for each in ENGINES if each not in engines]
    if document["left_out"]:
        print(f"left out, since this processor has no bf16: {', '.join(document['left_out'])}")
    names = options.network or list(NETWORKS)
    blocks = sum(len(NETWORKS[name].batches) for name in names) * len(engines)
    for name in names:
        if time.perf_counter() - began > options.seconds:
            document["left_out"].append(name)
            print(f"{name}: left out, past {options.seconds:.0f} s", flush=True)
            continue
        module, facts = made(NETWORKS[name])
        variants, changed = graphs(module, facts)
        found = {each: graph.SerializeToString() for each, graph in variants.items()}
        del variants
        places = ", ".join(f"{each} {count}" for each, count in changed.items())
        for batch in NETWORKS[name].batches:
            print(f"{name}, batch {batch} (places changed: {places})")
            x = inputs(facts.latent_size, facts.slice_size[0], batch)
            with torch.inference_mode():
                expected = module(torch.from_numpy(x)).numpy()
            call = partial(measure, found=found, x=x, expected=expected, threads=options.threads)
            for engine in engines:
                left = options.seconds - (time.perf_counter() - began)
                if left < 0:
                    where = f"{name}, batch {batch}, {' '.join(engine)}"
                    document["left_out"].append(where)
                    print(f"{where}: left out, past {options.seconds:.0f} s", flush=True)
                    continue
                row = {"network": name, "batch": batch, "changed": changed}
                # What is left also pays for graphs that are yet to be made and compiled.
                row |= call(engine, budget=0.6 * left / blocks)
                rows.append(row)
                blocks -= 1
                show(row)
                write_json(options.json, document)
    document |= {"verdicts": verdicts(rows), "seconds": time.perf_counter() - began}
    write_json(options.json, document)
    wrong = sum("wrong" in row for row in rows)
    print(f"{wrong} of {len(rows)} rows wrong, {document['seconds']:.0f} s")
    return 6 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", action="append", choices=list(NETWORKS), metavar="NAME")
    parser.add_argument("--seconds", type=float, default=200.0, help="shared out over the rows")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
