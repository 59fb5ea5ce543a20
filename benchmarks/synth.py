"""Bulk generation against the engine alone: how much of the engine's rate reaches the disk.

    python benchmarks/synth.py model.onnx [--count 20000] [--mode throughput] [--rounds 3]

Both sides run in this process's children, in turn: the engine alone on the same latents, at the
same batch in the same mode (no quantising, no disk), and the whole job to shards, fsync included.
Prints the median slices/s of each, their ratio, the peak memory of the job and the disk's own rate
for files of a shard's size. Exits 6 under the bars (85 %, 700 MB).
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

BAR_SHARE, BAR_MB = 0.85, 700


def engine_side(model: str, count: int, batch: int, mode: str) -> dict[str, float]:
    from fastmrigan.runtime import load

    generator = load(model, batch=batch, mode=mode)
    generator.sample(batch)
    began = time.perf_counter()
    for _ in generator.stream(count, seed=7):
        pass
    return {"rate": count / (time.perf_counter() - began)}


def job_side(model: str, count: int, batch: int, mode: str, folder: str) -> dict[str, float]:
    from fastmrigan.jobs.sampling import JobOptions, synthesise
    from fastmrigan.runtime import load

    generator = load(model, batch=batch, mode=mode)
    generator.sample(batch)
    out = Path(folder) / "out"
    result = synthesise(generator, JobOptions(out, count, seed=7))
    assert result.made == count
    shutil.rmtree(out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rate": count / result.seconds, "peak_mb": peak}


def disk_rate(folder: str, shard_bytes: int, shards: int = 40) -> float:
    """Slices/s (256 a shard) that writing and fsyncing alone would allow."""
    content = os.urandom(shard_bytes)
    began = time.perf_counter()
    for number in range(shards):
        with (Path(folder) / f"disk-{number}").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return 256 * shards / (time.perf_counter() - began)


def in_child(side: str, options: argparse.Namespace, folder: str) -> dict[str, float]:
    command = [sys.executable, __file__, options.model, "--side", side, "--folder", folder]
    command += [
        "--count",
        str(options.count),
        "--batch",
        str(options.batch),
        "--mode",
        options.mode,
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--mode", choices=["latency", "throughput"], default="throughput")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="a disk to write to; default: the temporary folder")
    parser.add_argument("--side", choices=["engine", "job"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    sides = (options.model, options.count, options.batch, options.mode)
    if options.side == "engine":
        print(json.dumps(engine_side(*sides)))
        return 0
    if options.side == "job":
        print(json.dumps(job_side(*sides, options.folder)))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        engine, job = [], []
        for number in range(options.rounds):
            engine.append(in_child("engine", options, folder))
            job.append(in_child("job", options, folder))
            share = job[-1]["rate"] / engine[-1]["rate"]
            print(
                f"round {number + 1}: engine {engine[-1]['rate']:,.0f} slices/s, "
                f"job {job[-1]['rate']:,.0f} slices/s, {100 * share:.1f} %, "
                f"peak {job[-1]['peak_mb']:.0f} MB",
                flush=True,
            )
        disk = disk_rate(folder, shard_bytes=256 * 6144)
    share = statistics.median(j["rate"] / e["rate"] for j, e in zip(job, engine, strict=True))
    peak = max(j["peak_mb"] for j in job)
    print(
        f"median of {options.rounds} in mode {options.mode}: "
        f"{statistics.median(j['rate'] for j in job):,.0f} of "
        f"{statistics.median(e['rate'] for e in engine):,.0f} slices/s, {100 * share:.1f} % "
        f"(bar {100 * BAR_SHARE:.0f} %); peak {peak:.0f} MB (bar {BAR_MB} MB); "
        f"the disk alone: {disk:,.0f} slices/s"
    )
    return 0 if share >= BAR_SHARE and peak <= BAR_MB else 6


if __name__ == "__main__":
    sys.exit(main())
