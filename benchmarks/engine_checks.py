"""How long an engine file that must not run takes to be refused, before anything is deserialised.

    python benchmarks/engine_checks.py [--megabytes 1,4,8,16,25,50]

A fact of the sidecar (a TensorRT version that is not here) and a flipped byte of the sidecar are
found whatever the engine's size. A flipped byte of the engine is found by its sha256 alone: the
limit is sha256 of the same bytes in memory. Neither the driver's start nor Python's is in it.
Exits 6 where a refusal that does not ask for the sha256 takes over 10 ms.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from timing import interleave

from fastmrigan.errors import ModelRefused
from fastmrigan.runtime.engine_file import check_version, read_engine_file, rendered, sidecar_path
from fastmrigan.runtime.machine import processor
from fastmrigan.runtime.model_file import ModelMetadata

BAR_MS = 10.0
FACTS = {
    "kind": "fastmrigan-engine",
    "schema_version": 1,
    "package": "tensorrt",
    "version": "11.1.0.106",
    "compute_capability": "9.0",
    "version_compatible": False,
    "precision": "fp16",
    "buckets": [1, 4, 8, 16, 32],
    "input": "source",
    "output": "slice",
    "model_sha256": "0" * 64,
    "model": ModelMetadata(
        task="translate",
        recipe="benchmark",
        slice_size=(256, 256),
        grading={},
        precision="fp16",
        weights_sha256="0" * 64,
        graph_sha256="0" * 64,
        training_data={},
        parity={},
        versions={},
    ).model_dump(mode="json"),
    "fastmrigan": "benchmark",
}


def written(path: Path, engine: bytes, flipped: Path | None = None) -> Path:
    """An engine file whose sidecar says `engine`; with the last byte but one of a file flipped."""
    facts = FACTS | {"engine_sha256": hashlib.sha256(engine).hexdigest(), "size": len(engine)}
    for each, content in ((path, engine), (sidecar_path(path), rendered(facts))):
        if each == flipped:
            content = content[:-2] + bytes([content[-2] ^ 1]) + content[-1:]
        each.write_bytes(content)
        each.chmod(0o600)
    return path


def refused(call: Callable[[], object]) -> Callable[[], None]:
    """`call`, which must end with ModelRefused."""

    def checked() -> None:
        try:
            call()
        except ModelRefused:
            return
        raise AssertionError("was not refused")

    return checked


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", default="1,4,8,16,25,50")
    print(f"{processor()}; milliseconds, medians (minima)")
    late = False
    for size in map(int, parser.parse_args().megabytes.split(",")):
        engine = np.random.default_rng(0).bytes(size * 1_000_000)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            whole = written(folder / "a.engine", engine)
            bad_engine = written(folder / "b.engine", engine, folder / "b.engine")
            bad_sidecar = written(folder / "c.engine", engine, folder / "c.engine.json")
            assert read_engine_file(whole).data == engine
            sides: dict[str, Callable[[], object]] = {
                "version": refused(lambda p=whole: check_version(read_engine_file(p), "11.2.0.1")),
                "sidecar's byte": refused(lambda p=bad_sidecar: read_engine_file(p)),
                "engine's byte": refused(lambda p=bad_engine: read_engine_file(p).data),
                "sha256 alone": lambda data=engine: hashlib.sha256(data).digest(),
            }
            taken = interleave(sides, 40, budget=6.0)
        medians = {name: 1e3 * statistics.median(times) for name, times in taken.items()}
        told = ", ".join(
            f"{name} {medians[name]:.2f} ({1e3 * min(times):.2f})" for name, times in taken.items()
        )
        print(f"{size:>3} MB: {told}; bar {BAR_MS:g}")
        late |= max(medians["version"], medians["sidecar's byte"]) > BAR_MS
    return 6 if late else 0


if __name__ == "__main__":
    sys.exit(main())
