"""A model file to a TensorRT engine with a sidecar that says what it was built from.

An engine is executable: it is built on the machine that runs it (or for its compute capability, by
tensorrt_rtx), readable and writable by its owner alone, and used only where the sidecar's facts and
its checksums hold. Not run: the builder of `tensorrt` itself, and every engine.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import fastmrigan
from fastmrigan.errors import MissingDependency, ModelRefused, UsageError
from fastmrigan.export.plugin import graph_for
from fastmrigan.files import beside, write_whole
from fastmrigan.runtime.engine_file import KIND, SCHEMA_VERSION, SUFFIX, rendered, sidecar_path
from fastmrigan.runtime.model_file import OUTPUT_NAME, ModelFile, read_model_file
from fastmrigan.runtime.sum64 import sum64

PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
BUCKETS = (1, 4, 8, 16, 32)  # slices a call; a smaller batch is filled up to the next


@dataclass(frozen=True)
class EngineOptions:
    """What is built."""

    engine: str = "tensorrt"  # one of PACKAGES
    buckets: tuple[int, ...] = BUCKETS  # an optimisation profile each
    compute: str | None = None  # e.g. "8.9"; tensorrt-rtx only, None takes this machine's GPU
    version_compatible: bool = False  # later TensorRT versions may load it, somewhat slower
    timing_cache: Path | None = None  # read where it exists, written afterwards
    plugin: Path | None = None  # library of csrc/tensorrt_plugin, which then makes instance norm


def build_engine(model_path: Path, out: Path, options: EngineOptions) -> dict[str, Any]:
    """Writes `out` (.engine) and its sidecar `out`.json, and returns the sidecar.

    Raises UsageError for options that cannot be, MissingDependency where the package is not
    installed, ModelRefused where the model file is refused or no engine can be built of it.
    """
    check(options, out)
    model = read_model_file(model_path)
    package = PACKAGES[options.engine]
    if find_spec(package) is None:
        if options.engine == "tensorrt":
            raise MissingDependency(package, "gpu", "export --engine tensorrt")
        raise UsageError(
            "export --engine tensorrt-rtx needs the package tensorrt_rtx, which is not installed: "
            "pip install tensorrt-rtx"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = beside(out)
    try:
        with graph_for(model.path, options.plugin) as (graph, plugin):
            told = in_child(model, graph, aside, options)
        engine = aside.read_bytes()
    finally:
        aside.unlink(missing_ok=True)
    document = sidecar(model, engine, options, told, plugin)
    sidecar_path(out).unlink(missing_ok=True)  # of an older engine, which it would not fit
    write_whole(out, engine)
    out.chmod(0o600)
    write_whole(sidecar_path(out), rendered(document))
    sidecar_path(out).chmod(0o600)
    return document


def check(options: EngineOptions, out: Path) -> None:
    """Raises UsageError for options that cannot be."""
    if options.engine not in PACKAGES:
        raise UsageError(f"--engine {options.engine!r}: choose one of {', '.join(PACKAGES)}")
    if out.suffix != SUFFIX:
        raise UsageError(f"{out}: an engine's name ends in .engine; use --out {out.stem}.engine")
    buckets = options.buckets
    if not buckets or min(buckets) < 1 or list(buckets) != sorted(set(buckets)):
        raise UsageError(
            f"--buckets {','.join(map(str, buckets))}: expected rising batch sizes, e.g. 1,4,8"
        )
    if options.plugin is not None and options.engine == "tensorrt-rtx":
        raise UsageError("--plugin: networks of tensorrt-rtx take none; take --engine tensorrt")
    if options.compute is not None:
        if options.engine == "tensorrt":
            raise UsageError(
                "--compute-capability: tensorrt builds for the GPU of this machine; leave it out, "
                "or take --engine tensorrt-rtx"
            )
        major, dot, minor = options.compute.partition(".")
        if not (major.isdecimal() and dot and minor.isdecimal()):
            raise UsageError(f"--compute-capability {options.compute!r}: expected e.g. 8.9")


def in_child(model: ModelFile, graph: Path, engine: Path, options: EngineOptions) -> dict[str, str]:
    """Runs tensorrt_build on `graph`; what it tells, with the engine written."""
    cache = options.timing_cache
    job = {
        "package": PACKAGES[options.engine],
        "model": str(graph),
        "engine": str(engine),
        "buckets": options.buckets,
        "compute": options.compute,
        "version_compatible": options.version_compatible,
        "timing_cache": None if cache is None else str(cache),
        "plugin": None if options.plugin is None else str(options.plugin),
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fastmrigan.export.tensorrt_build", json.dumps(job)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelRefused(
            f"{model.path}: {options.engine} ended with {done.returncode} while it built the "
            f"engine: {last}"
        )
    told: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    if "error" in told:
        raise ModelRefused(f"{model.path}: {options.engine} builds no engine: {told['error']}")
    return told


def sidecar(
    model: ModelFile,
    engine: bytes,
    options: EngineOptions,
    told: dict[str, str],
    plugin: dict[str, str | int] | None = None,
) -> dict[str, Any]:
    """What must hold before the engine is deserialised, and what it does."""
    facts = model.metadata
    return {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "package": PACKAGES[options.engine],
        "version": told["version"],
        "compute_capability": told["compute"],
        "version_compatible": options.version_compatible,
        "precision": facts.precision,
        "buckets": list(options.buckets),  # the place of one is its profile's number
        "input": facts.input_name,
        "output": OUTPUT_NAME,
        "engine_sum64": sum64(BytesIO(engine), len(engine)),
        "engine_sha256": hashlib.sha256(engine).hexdigest(),
        "size": len(engine),
        "model_sha256": model.sha256,
        "model": facts.model_dump(mode="json"),
        "fastmrigan": fastmrigan.__version__,
        **({} if plugin is None else {"plugin": plugin}),  # a library to load before the engine
    }
