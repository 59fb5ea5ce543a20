"""The whole FID of two folders of 660 PNG slices, against pytorch-fid's own.

    python benchmarks/fid.py [--quick] [--weights FILE] [--rounds 2] [--batches] [--json FILE]

Both sides start from the folders and end with the number: reading, the network with its weights,
features of every slice, the Frechet distance. pytorch-fid runs its `calculate_fid_given_paths` with
the defaults of its command line (batch 50, a reading process a core). Each run is a process of its
own, timed from within after its imports; the sides take turns, and their order is turned round.

    fp32   at least 2.8x pytorch-fid
    bf16   shown, with what it does to FID; without a bar

Weights: pt_inception-2015-12-05-6726825d.pth by --weights or FASTMRIGAN_INCEPTION; without it both
sides get the same seeded random ones, which takes as long, and the figures say so. First, features
of a few slices must agree to 1e-4, and the two FIDs to 1e-3 (relative above 1). --batches shows
what a slice costs at other batch sizes, on each engine. Slices are the phantom's at 256x256.
pytorch-fid needs torchvision's Python files beside it (see requirements-peers*.txt). Exits 6 where
a result is wrong or the bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from json_file import add_json_option, write_json
from peers import pytorch_fid
from PIL import Image

from fastmrigan.imaging.phantom import phantom_slices
from fastmrigan.imaging.quantise import to_float, to_uint8
from fastmrigan.jobs.shards import read_slices
from fastmrigan.metrics.extraction import FeatureNetwork, inception_network, of_inception
from fastmrigan.metrics.frechet import frechet_distance
from fastmrigan.metrics.inception import ENVIRONMENT, of_state, random_inception
from fastmrigan.runtime.machine import processor

BAR = 2.8
SIDES = ("ours", "pytorch-fid", "ours, bf16")
FEATURES_OFF, FID_OFF = 1e-4, 1e-3
BATCHES = (1, 2, 4, 8, 16, 32, 50)
ENGINES = ("openvino", "onnxruntime", "torch")


def write_folder(path: Path, slices: np.ndarray) -> Path:
    """As `fastmrigan synth --format png` writes one."""
    (path / "shard-000000").mkdir(parents=True)
    for number, each in enumerate(to_uint8(slices)):
        Image.fromarray(each).save(path / "shard-000000" / f"{number:09}.png")
    return path


def ours(folders: list[Path], weights: Path, published: bool, precision: str) -> float:
    network = our_network(weights, published, precision)
    rows = []
    for folder in folders:
        slices = to_float(np.stack([x for _, x in read_slices(folder)]))  # [N, H, W]
        rows.append(network(slices, label=folder.name))
    return frechet_distance(*rows)


def our_network(weights: Path, published: bool, precision: str = "fp32") -> FeatureNetwork:
    if published:
        return inception_network(weights, precision)
    network = of_state(torch.load(weights, weights_only=True))
    return of_inception(network, "Inception v3, random weights", precision)


def theirs(folders: list[Path], weights: Path) -> Callable[[], float]:
    module = pytorch_fid(weights)
    workers = min(len(os.sched_getaffinity(0)), 8)
    paths = [str(folder / "shard-000000") for folder in folders]
    return lambda: float(module.calculate_fid_given_paths(paths, 50, "cpu", 2048, workers))


def child(options: argparse.Namespace) -> dict[str, float]:
    if options.side == "pytorch-fid":
        call = theirs(options.folders, options.weights)
    else:
        precision = "bf16" if options.side.endswith("bf16") else "fp32"

        def call() -> float:
            return ours(options.folders, options.weights, options.published, precision)

    began = time.perf_counter()
    value = call()
    seconds = time.perf_counter() - began
    # VmHWM and not ru_maxrss, which a process inherits from the one that started it
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return {"seconds": seconds, "fid": value, "peak_mb": peak}


def in_child(side: str, folders: list[Path], weights: Path, published: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--side", side, "--weights", str(weights)]
    command += ["--folders", *map(str, folders), *(["--published"] if published else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        raise AssertionError(f"{side} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def check_features(slices: np.ndarray, weights: Path, published: bool) -> None:
    """Ours on the engine against pytorch-fid's network on the same 8-bit slices."""
    found = our_network(weights, published)(slices, shown=False)
    module = pytorch_fid(weights)
    network = module.InceptionV3([module.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
    grey = torch.from_numpy(to_uint8(slices)).unsqueeze(1) / 255
    with torch.no_grad():
        expected = network(grey.expand(-1, 3, -1, -1))[0][:, :, 0, 0].numpy()
    off = float(np.abs(found - expected).max())
    print(
        f"features: at most {off:.1e} from pytorch-fid's on {len(slices)} slices "
        f"(their spread {expected.std():.2f})"
    )
    if not off <= FEATURES_OFF:
        raise AssertionError(f"features are {off:.2g} off, at most {FEATURES_OFF:g} expected")


def show_batches(weights: Path, slices: np.ndarray, quick: bool) -> list[dict[str, Any]]:
    """Milliseconds a slice by engine and batch: the best of three turns, the ways interleaved."""
    network = of_state(torch.load(weights, weights_only=True))
    batches = (1, 8) if quick else BATCHES
    best = {(backend, batch): float("inf") for backend in ENGINES for batch in batches}
    for _ in range(1 if quick else 3):
        for backend, batch in best:
            features = of_inception(network, "Inception v3", backend=backend, batch=batch)
            part = slices[: max(batch, 16 // batch * batch)]
            features(part[:batch], shown=False)
            began = time.perf_counter()
            features(part, shown=False)
            seconds = (time.perf_counter() - began) / len(part)
            best[backend, batch] = min(best[backend, batch], seconds)
    rows = []
    for (backend, batch), seconds in best.items():
        print(f"{backend:12} fp32, batch {batch:2}: {1e3 * seconds:.1f} ms a slice", flush=True)
        rows.append({"engine": backend, "batch": batch, "ms": 1e3 * seconds})
    return rows


def measure(
    sides: tuple[str, ...], rounds: int, folders: list[Path], weights: Path, published: bool
) -> tuple[dict[str, Any], bool]:
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides[:: 1 if number % 2 == 0 else -1]:
            found[side].append(in_child(side, folders, weights, published))
            last = found[side][-1]
            print(
                f"{side:12} {last['seconds']:.1f} s, FID {last['fid']:.6f}, "
                f"peak {last['peak_mb']:,.0f} MB",
                flush=True,
            )
    seconds = {side: [run["seconds"] for run in runs] for side, runs in found.items()}
    per_round = [t / o for t, o in zip(seconds["pytorch-fid"], seconds["ours"], strict=True)]
    ratio = statistics.median(seconds["pytorch-fid"]) / statistics.median(seconds["ours"])
    values = {side: runs[0]["fid"] for side, runs in found.items()}
    off = abs(values["ours"] - values["pytorch-fid"]) / max(1.0, values["pytorch-fid"])
    met = ratio >= BAR
    print(
        f"pytorch-fid / ours {ratio:.2f}x (rounds {min(per_round):.2f} to {max(per_round):.2f}), "
        f"at least {BAR}x: {'met' if met else 'MISSED'}; FID off by {off:.1e}"
    )
    row = {"runs": found, "ratio": ratio, "per_round": per_round, "bar": BAR, "met": met}
    if "ours, bf16" in values:
        faster = statistics.median(seconds["pytorch-fid"]) / statistics.median(
            seconds["ours, bf16"]
        )
        moved = values["ours, bf16"] - values["ours"]
        print(f"pytorch-fid / ours in bf16 {faster:.2f}x; bf16 moves FID by {moved:+.4g}")
        row |= {"bf16_ratio": faster, "bf16_moves_fid_by": moved}
    if not off <= FID_OFF:
        raise AssertionError(f"FID is {off:.2g} off, at most {FID_OFF:g} expected")
    return row, met


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="24 slices a folder, one round, no bar"
    )
    parser.add_argument("--weights", type=Path, help="the published file; default: random weights")
    parser.add_argument("--rounds", type=int, default=2, help="of all sides, about 3 minutes each")
    parser.add_argument("--batches", action="store_true", help="batch sizes too, some minutes")
    add_json_option(parser)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folders", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--published", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(child(options)))
        return 0

    weights = options.weights or os.environ.get(ENVIRONMENT)
    machine = {"cpu": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    document: dict[str, Any] = {"benchmark": "fid", "machine": machine}
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    count = 24 if options.quick else 660
    with tempfile.TemporaryDirectory() as work:
        published = bool(weights)
        path = Path(weights) if weights else Path(work) / "random.pth"
        if not published:
            torch.save(random_inception().state_dict(), path)
        document |= {"slices": count, "weights": "published" if published else "random"}
        print(f"{count} slices a folder, Inception's {document['weights']} weights")
        sets = [
            2 * phantom_slices(count, 256, tumour=share, seed=seed).signals["t2"] - 1
            for seed, share in enumerate((0.5, 1.0))
        ]
        folders = [
            write_folder(Path(work) / name, slices)
            for name, slices in zip(("real", "made"), sets, strict=True)
        ]
        try:
            check_features(sets[0][:4], path, published)
            if options.batches:
                document["batches"] = show_batches(path, sets[0][:50], options.quick)
            sides = SIDES if has_bf16() else SIDES[:2]
            rounds = 1 if options.quick else options.rounds
            row, met = measure(sides, rounds, folders, path, published)
        except (AssertionError, ImportError) as wrong:
            print(f"WRONG RESULT: {wrong}", flush=True)
            row, met = {"met": False, "wrong": str(wrong)}, False
    write_json(options.json, document | row)
    return 0 if met or (options.quick and "wrong" not in row) else 6


def has_bf16() -> bool:
    from fastmrigan.runtime.backends.openvino import the_core

    return "BF16" in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


if __name__ == "__main__":
    sys.exit(main())
