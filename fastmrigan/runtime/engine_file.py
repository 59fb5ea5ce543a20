"""An engine file: a TensorRT engine, and the sidecar beside it that says what it is.

An engine is executable. Whatever tells it from the one that was built, or this machine from the
one that it was built for, is found before a byte of it is deserialised: first what the sidecar and
the file system say, then the sum of the engine's words, which finds every flipped byte at the speed
of memory, then its sha256, which takes many times as long and finds the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.runtime.cuda_driver import CudaDevice
from fastmrigan.runtime.model_file import ModelFile, ModelMetadata, read_model_file
from fastmrigan.runtime.private_file import check_private, opened_private
from fastmrigan.runtime.sum64 import sum64

KIND, SCHEMA_VERSION = "fastmrigan-engine", 1
SUFFIX = ".engine"
PACKAGE = "tensorrt"  # whose engines the runtime runs
SEAL = "sidecar_sha256"  # over the sidecar as it would be written without it
LARGEST_SIDECAR = 1 << 20  # bytes; they have a few thousand
# Built version-compatible, an engine runs on later versions of its major, and on these besides
# (TensorRT's support matrix, engine portability).
ACROSS_MAJORS = {10: 11}


class Plugin(BaseModel):
    """What must be loaded before the engine."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    library: str  # file name
    sha256: str
    instance_norms: int  # that it makes


class Sidecar(BaseModel):
    """NAME.engine.json, without its seal."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    kind: Literal["fastmrigan-engine"]
    schema_version: Literal[1]
    package: str  # module that built it: tensorrt or tensorrt_rtx
    version: str  # of that module
    compute_capability: str  # that it was built for, e.g. "9.0"
    version_compatible: bool  # later versions may run it
    precision: Literal["fp32", "bf16", "fp16", "int8"]  # that its graph is typed in
    # Rising batch sizes; the place of one is its profile's. JSON has lists alone.
    buckets: tuple[int, ...] = Field(min_length=1, strict=False)
    input: str  # tensor names
    output: str
    engine_sum64: str  # sum64.py
    engine_sha256: str
    size: int  # bytes of the engine
    model_sha256: str  # of the model file it was built from
    model: ModelMetadata  # that file's metadata
    fastmrigan: str  # version that wrote it
    plugin: Plugin | None = None

    @field_validator("buckets")
    @classmethod
    def _rising(cls, buckets: tuple[int, ...]) -> tuple[int, ...]:
        if buckets[0] < 1 or list(buckets) != sorted(set(buckets)):
            raise ValueError("expected rising batch sizes")
        return buckets

    @model_validator(mode="after")
    def _of_its_model(self) -> Self:
        if self.precision != self.model.precision:
            raise ValueError(f"precision: its model is in {self.model.precision}")
        if self.model.task == "sample" and self.model.latent_size is None:
            raise ValueError("model: one that samples must state latent_size")
        return self


@dataclass(frozen=True)
class EngineFile:
    """An engine whose sidecar has passed every check; `data` holds the engine against it."""

    path: Path
    sidecar: Sidecar

    @property
    def metadata(self) -> ModelMetadata:
        """Of the model file it was built from: an engine makes that file's slices."""
        return self.sidecar.model

    @property
    def parity(self) -> dict[str, Any]:
        """The model file's measured differences from PyTorch, by engine."""
        return self.metadata.parity

    @property
    def precision(self) -> str:
        """What the graph is typed in."""
        return self.sidecar.precision

    @property
    def sha256(self) -> str:
        """Of the model file it was built from."""
        return self.sidecar.model_sha256

    @property
    def data(self) -> bytes:
        """The engine, read and checked each time, in two stages.

        First, quickly, the sum of its 64-bit words, over the file in pieces: it finds every change
        within one word, so every flipped byte, and nearly every other damage. Then its sha256, over
        the engine in private memory: it finds whatever keeps the sum as well (words that changed
        places, a change that was made to), and the bytes that are run are those that were hashed.
        Raises UsageError where it cannot be read, ModelRefused where it is another one.
        """
        facts = self.sidecar
        with opened_private(self.path) as file:
            check_size(self.path, os.fstat(file.fileno()).st_size, facts.size)
            self._check("sum64", sum64(file, facts.size), facts.engine_sum64)
            file.seek(0)
            engine = file.read(facts.size)
        self._check("sha256", hashlib.sha256(engine).hexdigest(), facts.engine_sha256)
        return engine

    def _check(self, checksum: str, found: str, expected: str) -> None:
        if found != expected:  # a sum64 has 16 digits
            raise ModelRefused(
                f"{self.path}: is not the engine that was built ({checksum} {found[:16]}, expected "
                f"{expected[:16]}): damaged or altered; build it again"
            )


def read_model(path: str | Path) -> ModelFile | EngineFile:
    """A model file, or where the name ends in .engine an engine file; errors as theirs."""
    path = Path(path)
    return read_engine_file(path) if path.suffix == SUFFIX else read_model_file(path)


def sidecar_path(engine: Path) -> Path:
    return engine.with_name(engine.name + ".json")


def rendered(facts: dict[str, Any]) -> bytes:
    """The sidecar's bytes: the facts, and last a sha256 over them."""
    seal = hashlib.sha256(json.dumps(facts, indent=1).encode()).hexdigest()
    return (json.dumps({**facts, SEAL: seal}, indent=1) + "\n").encode()


def read_engine_file(path: str | Path) -> EngineFile:
    """Reads an engine's sidecar and checks all that can be without reading the engine.

    Raises UsageError where either cannot be read. Raises ModelRefused where others may write to
    one of them, where the sidecar is missing, damaged, altered or of a newer schema, or where the
    engine has another size than it says.
    """
    path = Path(path)
    beside = sidecar_path(path)
    try:
        status = path.stat()
    except OSError as error:
        raise UsageError(f"{path}: cannot read the engine file: {error.strerror}") from error
    check_private(path, status)
    if not beside.exists():
        raise ModelRefused(
            f"{path}: has no sidecar {beside.name}, and an engine is not run without one; build "
            "it with `fastmrigan export --engine`"
        )
    with opened_private(beside) as file:
        text = file.read(LARGEST_SIDECAR + 1)
    if len(text) > LARGEST_SIDECAR:
        raise ModelRefused(f"{beside}: is no engine's sidecar (over 1 MiB); build the engine again")
    sidecar = parsed(beside, text)
    check_size(path, status.st_size, sidecar.size)
    return EngineFile(path, sidecar)


def parsed(path: Path, text: bytes) -> Sidecar:
    """A sidecar's facts. Raises ModelRefused where it is not as it was written."""
    try:
        document = json.loads(text)
        facts = document if isinstance(document, dict) else {}
        facts.pop(SEAL, None)
        written = rendered(facts)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{path}: is not JSON ({error}); build the engine again") from error
    if facts.get("kind") != KIND:
        raise ModelRefused(f"{path}: is no engine's sidecar; build the engine again")
    version = facts.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ModelRefused(
            f"{path}: has schema version {version}, this fastmrigan knows up to {SCHEMA_VERSION}; "
            "upgrade fastmrigan"
        )
    if written != text:  # to the byte: no flip is without effect
        raise ModelRefused(
            f"{path}: is not as it was written ({SEAL} does not hold): damaged or altered; build "
            "the engine again"
        )
    try:
        return Sidecar.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        raise ModelRefused(
            f"{path}: is wrong at {field}: {first['msg']}; build the engine again"
        ) from error


def check_size(path: Path, size: int, expected: int) -> None:
    """Raises ModelRefused where an engine is cut short or has grown."""
    if size != expected:
        raise ModelRefused(
            f"{path}: has {'less' if size < expected else 'more'} than the {expected:,} bytes that "
            "its sidecar states: damaged or altered; build it again"
        )


def check_package(engine: EngineFile) -> None:
    """Raises ModelRefused where another package built the engine than the one that runs it."""
    package = engine.sidecar.package
    if package != PACKAGE:
        raise ModelRefused(
            f"{engine.path}: was built by {package}, and engines of {PACKAGE} alone are run here; "
            f"build one with `fastmrigan export --engine {PACKAGE}`"
        )


def check_precision(engine: EngineFile, asked: str) -> None:
    """Raises UsageError where an engine is asked for in a precision that it was not built in."""
    if asked not in ("auto", engine.precision):
        raise UsageError(
            f"precision {asked!r}: {engine.path} was built in {engine.precision} and runs in "
            f"nothing else; take auto, or build one of a model file in {asked}"
        )


def check_version(engine: EngineFile, here: str) -> None:
    """Raises ModelRefused where the TensorRT of version `here` does not run the engine."""
    built = engine.sidecar.version
    if built == here:
        return
    remedy = f"install tensorrt {built}, or build it again with {here}"
    if not engine.sidecar.version_compatible:
        raise ModelRefused(
            f"{engine.path}: was built by TensorRT {built}, {here} is installed, and an engine "
            f"runs on its own version alone; {remedy}"
        )
    old, new = numbers(built), numbers(here)
    if not old or new < old or new[0] not in (old[0], ACROSS_MAJORS.get(old[0])):
        raise ModelRefused(
            f"{engine.path}: was built by TensorRT {built} for later versions that can run it, and "
            f"{here} is none of them; {remedy}"
        )


def numbers(version: str) -> tuple[int, ...]:
    """ "10.13.3.9.post1" to (10, 13, 3, 9); () where there are none."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def check_device(engine: EngineFile, here: CudaDevice | None) -> CudaDevice:
    """The device that runs it. Raises UsageError where there is none, ModelRefused where it has
    another compute capability than the engine was built for."""
    wanted = engine.sidecar.compute_capability
    if here is None:
        raise UsageError(
            f"{engine.path}: no CUDA driver or device here, and the engine was built for compute "
            f"capability {wanted}; run the model file that it was built from on another backend"
        )
    if here.compute_capability != wanted:
        raise ModelRefused(
            f"{engine.path}: was built for compute capability {wanted}, and {here.name} has "
            f"{here.compute_capability}; build it again on this machine"
        )
    return here
