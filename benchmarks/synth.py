"""A bulk job against its engine alone: how much of the engine's rate reaches the disk.

    python benchmarks/synth.py MODEL [--count 20000] [--rounds 5] [--bar 0.92] [--batch 64]
                               [--mode throughput] [--memory] [--folder DIR] [--json FILE]

Both sides run in children of this process, in turn, each first in every other round: the engine
alone on the same inputs, at the same batch in the same mode (no quantising, no disk), and the whole
job to shards, fsync included. A model that samples makes `count` slices; one that translates is
given as many slices of the phantom, prepared before anything is timed, which the engine's side has
in memory and the job reads from the disk. Prints the median slices/s of each, the median of their
ratios within a round, the peak memory of the job and the disk's own rate for files of a shard's
size. --memory: the job's peak at 1,000 and at 100,000 slices instead, once each, one that samples.
Exits 6 where the share is under --bar, the peak over 700 MB, or the two peaks more than 5 % apart.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from json_file import add_json_option, write_json

from fastmrigan.runtime.engine_file import read_model
from fastmrigan.runtime.machine import machine

PEAK_MB, GROWTH = 700, 1.05
FEW, MANY = 1_000, 100_000  # slices
SHARD = 256  # slices


def engine_side(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    from fastmrigan.imaging.dataset import PreparedDataset, open_array
    from fastmrigan.imaging.quantise import to_float
    from fastmrigan.runtime import load

    generator = load(options.model, batch=options.batch, mode=options.mode)
    if generator.metadata.task == "sample":
        generator.sample(options.batch)
        began = time.perf_counter()
        made = sum(map(len, generator.stream(options.count, seed=7)))
    else:
        dataset = PreparedDataset.open(folder / "set")
        slices = to_float(open_array(dataset.path, "slices.npy", dataset.info)[:])
        generator.translate(np.zeros((options.batch, *dataset.info.size), np.float32))
        parts = [slices[at : at + options.batch] for at in range(0, len(slices), options.batch)]
        began = time.perf_counter()
        made = sum(map(len, generator.translate_all(parts)))
    seconds = time.perf_counter() - began
    assert made == options.count
    return {"rate": made / seconds}


def job_side(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    from fastmrigan.imaging.dataset import PreparedDataset
    from fastmrigan.jobs.output import Output
    from fastmrigan.jobs.sampling import JobOptions, synthesise
    from fastmrigan.jobs.translation import translate
    from fastmrigan.runtime import load

    generator = load(options.model, batch=options.batch, mode=options.mode)
    out = folder / "out"
    if generator.metadata.task == "sample":
        generator.sample(options.batch)
        result = synthesise(generator, JobOptions(out, options.count, seed=7, shard_size=SHARD))
    else:
        dataset = PreparedDataset.open(folder / "set")
        generator.translate(np.zeros((options.batch, *dataset.info.size), np.float32))
        result = translate(generator, dataset, Output(out, "shard", SHARD))
    assert result.made == options.count
    shard_bytes = max(path.stat().st_size for path in out.glob("shard-*.tar"))
    shutil.rmtree(out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rate": options.count / result.seconds, "peak_mb": peak, "shard_bytes": shard_bytes}


def disk_rate(folder: Path, shard_bytes: int, shards: int = 40) -> float:
    """Slices/s that writing and fsyncing alone would allow."""
    content = os.urandom(shard_bytes)
    began = time.perf_counter()
    for number in range(shards):
        with (folder / f"disk-{number}").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return SHARD * shards / (time.perf_counter() - began)


def in_child(side: str, options: argparse.Namespace, folder: Path, count: int) -> dict[str, float]:
    settings = ("--count", count, "--batch", options.batch, "--mode", options.mode)
    command = [sys.executable, __file__, options.model, "--side", side, "--folder", folder]
    done = subprocess.run([*map(str, [*command, *settings])], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{side}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def prepare_set(options: argparse.Namespace, folder: Path) -> None:
    """`count` slices of the phantom as a prepared dataset of the model's size."""
    metadata = read_model(options.model).metadata
    if metadata.task == "sample":
        return
    size, fastmrigan = str(max(metadata.slice_size)), [sys.executable, "-P", "-m", "fastmrigan"]
    phantom = ["phantom", "--count", str(options.count), "--size", size, "--contrast", "t1"]
    images, prepared = str(folder / "images"), str(folder / "set")
    for command in (
        [*phantom, "--out", images],
        ["prepare", f"{images}/t1", "--out", prepared, "--size", size],
    ):
        done = subprocess.run([*fastmrigan, *command], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{command[0]}: {done.stderr.strip().splitlines()[-1]}")
    shutil.rmtree(images)


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    prepare_set(options, folder)
    rounds: dict[str, list[dict[str, float]]] = {"engine": [], "job": []}
    for number in range(options.rounds):
        for side in ("engine", "job") if number % 2 == 0 else ("job", "engine"):
            rounds[side].append(in_child(side, options, folder, options.count))
        engine, job = rounds["engine"][-1], rounds["job"][-1]
        print(
            f"round {number + 1}: engine {engine['rate']:,.1f} slices/s, "
            f"job {job['rate']:,.1f} slices/s, {100 * job['rate'] / engine['rate']:.1f} %, "
            f"peak {job['peak_mb']:.0f} MB",
            flush=True,
        )
    rates = {side: [each["rate"] for each in made] for side, made in rounds.items()}
    share = statistics.median(
        job / engine for job, engine in zip(rates["job"], rates["engine"], strict=True)
    )
    peak = max(job["peak_mb"] for job in rounds["job"])
    disk = disk_rate(folder, int(rounds["job"][0]["shard_bytes"]))
    print(
        f"median of {options.rounds} in mode {options.mode}: "
        f"{statistics.median(rates['job']):,.1f} of {statistics.median(rates['engine']):,.1f} "
        f"slices/s, {100 * share:.1f} % (bar {100 * options.bar:.0f} %); peak {peak:.0f} MB "
        f"(bar {PEAK_MB} MB); the disk alone: {disk:,.0f} slices/s"
    )
    held = share >= options.bar and peak <= PEAK_MB
    return {"rates": rates, "share": share, "peak_mb": peak, "disk": disk, "held": held}


def memory(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    peaks = {count: in_child("job", options, folder, count)["peak_mb"] for count in (FEW, MANY)}
    growth = peaks[MANY] / peaks[FEW]
    for count, peak in peaks.items():
        print(f"{count:7,} slices: peak {peak:.1f} MB")
    print(f"{growth:.3f} times as much (bar {GROWTH})")
    held = growth <= GROWTH and peaks[MANY] <= PEAK_MB
    return {"peak_mb": peaks, "growth": growth, "held": held}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--mode", choices=["latency", "throughput"], default="throughput")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bar", type=float, default=0.92, help="of the engine's rate")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument(
        "--folder", type=Path, help="a disk to write to; default: the temporary one"
    )
    add_json_option(parser)
    parser.add_argument("--side", choices=["engine", "job"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side is not None:
        side = engine_side if options.side == "engine" else job_side
        print(json.dumps(side(options, options.folder)))
        return 0
    if options.memory and read_model(options.model).metadata.task != "sample":
        parser.error(f"--memory: {options.model} translates; take a model that samples")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = (memory if options.memory else compare)(options, Path(folder))
    keys = ("batch", "mode") if options.memory else ("count", "batch", "mode", "bar")
    settings = {key: getattr(options, key) for key in keys}
    model = Path(options.model).name
    write_json(options.json, {"machine": machine(), "model": model, **settings, **found})
    return 0 if found["held"] else 6


if __name__ == "__main__":
    sys.exit(main())
