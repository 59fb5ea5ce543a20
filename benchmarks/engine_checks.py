"""How long an engine file that must not run takes to be refused, before anything is deserialised.

    python benchmarks/engine_checks.py [--megabytes 1,4,8,16,25,50] [--json FILE]

    version          a TensorRT version that is not here: the sidecar is read, the engine is not
    sidecar's byte   flipped
    engine's byte    flipped: the sum of its words finds it, over the file in pieces
    swapped words    which keep the sum: its sha256 finds them, and takes what hashing takes; no bar
    whole            the engine that was built, through every check and refused by none; no bar
    read alone       the file in the same pieces, nothing summed: the limit of `engine's byte`
    sha256 alone     of the same bytes in memory: the limit of the two before it

The files are in the system's cache; neither the driver's start nor Python's is in it. Exits 6 where
one of the first three takes over 10 ms at any size.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from json_file import add_json_option, write_json
from timing import interleave, summary

from fastmrigan.errors import ModelRefused
from fastmrigan.runtime.engine_file import check_version, read_engine_file, rendered, sidecar_path
from fastmrigan.runtime.machine import machine
from fastmrigan.runtime.model_file import ModelMetadata
from fastmrigan.runtime.sum64 import PIECE, sum64

BAR_MS = 10.0
UNDER_IT = ("version", "sidecar's byte", "engine's byte")
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


def written(path: Path, engine: bytes) -> Path:
    """An engine file with the sidecar that says so."""
    facts = FACTS | {
        "engine_sum64": sum64(BytesIO(engine), len(engine)),
        "engine_sha256": hashlib.sha256(engine).hexdigest(),
        "size": len(engine),
    }
    for each, content in ((path, engine), (sidecar_path(path), rendered(facts))):
        each.write_bytes(content)
        each.chmod(0o600)
    return path


def flip(path: Path) -> None:
    """The last byte but one: of a sidecar one that its JSON needs."""
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])


def swap_words(path: Path) -> None:
    words = np.fromfile(path, "<u8")
    words[[0, -1]] = words[[-1, 0]]
    words.tofile(path)


def refused(call: Callable[[], object], why: str) -> Callable[[], None]:
    """`call`, which must end with ModelRefused for the reason `why`."""

    def checked() -> None:
        try:
            call()
        except ModelRefused as error:
            if why in str(error):
                return
            raise
        raise AssertionError("was not refused")

    return checked


def read_in_pieces(path: Path) -> None:
    piece = bytearray(PIECE)
    with path.open("rb") as file:
        while file.readinto(piece):
            pass


def sides(folder: Path, engine: bytes) -> dict[str, Callable[[], object]]:
    names = ("whole", "sidecar", "byte", "words")
    whole, sidecar, byte, words = (written(folder / f"{name}.engine", engine) for name in names)
    flip(sidecar_path(sidecar))
    flip(byte)
    swap_words(words)
    assert read_engine_file(whole).data == engine
    return {
        "version": refused(
            lambda: check_version(read_engine_file(whole), "11.2.0.1"), "was built by TensorRT"
        ),
        "sidecar's byte": refused(lambda: read_engine_file(sidecar), "is not JSON"),
        "engine's byte": refused(lambda: read_engine_file(byte).data, "(sum64 "),
        "swapped words": refused(lambda: read_engine_file(words).data, "(sha256 "),
        "whole": lambda: read_engine_file(whole).data,
        "read alone": lambda: read_in_pieces(whole),
        "sha256 alone": lambda: hashlib.sha256(engine).digest(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", default="1,4,8,16,25,50")
    add_json_option(parser)
    options = parser.parse_args()
    document: dict[str, Any] = {
        "benchmark": "engine_checks",
        "machine": machine(),
        "bar_ms": BAR_MS,
        "rows": [],
    }
    print(f"{document['machine']['cpu']}; milliseconds, medians (minima)")
    late = False
    for megabytes in map(int, options.megabytes.split(",")):
        engine = np.random.default_rng(0).bytes(megabytes * 1_000_000)
        with tempfile.TemporaryDirectory() as name:
            taken = summary(interleave(sides(Path(name), engine), 40, budget=6.0))
        told = ", ".join(
            f"{side} {ms['median_ms']:.2f} ({ms['min_ms']:.2f})" for side, ms in taken.items()
        )
        missed = [side for side in UNDER_IT if taken[side]["median_ms"] > BAR_MS]
        print(
            f"{megabytes:>3} MB: {told}; bar {BAR_MS:g}"
            f"{' missed by ' + ', '.join(missed) if missed else ''}",
            flush=True,
        )
        document["rows"].append({"megabytes": megabytes, "sides": taken, "missed": missed})
        write_json(options.json, document)
        late |= bool(missed)
    return 6 if late else 0


if __name__ == "__main__":
    sys.exit(main())
