"""The model file: one .onnx whose metadata says what it is, where it comes from and how it did."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from fastmrigan import NOTICE
from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.runtime import onnx_wire

METADATA_KEY = "fastmrigan"
SCHEMA_VERSION = 1
INPUT_NAMES = {"sample": "latent", "translate": "source"}
OUTPUT_NAME = "slice"


Side = Annotated[int, Field(ge=1)]  # of a slice, in pixels
Count = Annotated[int, Field(ge=1)]
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
ENGINES = {
    f"{backend}{suffix}"
    for backend in ("onnxruntime", "openvino")
    for suffix in ("", *(f"-{precision}" for precision in PRECISIONS[1:]))
}


class EngineFigures(BaseModel):
    """What `parity` holds for one engine."""

    model_config = ConfigDict(strict=True)  # no text for a number: others compare them

    version: str
    device: str
    max_abs_error: float | None = None  # on the [-1, 1] scale; None: its outputs were not finite
    psnr_db: FiniteFloat
    ssim: float | None = None  # of int8


class ModelMetadata(BaseModel):
    """The JSON document under the metadata key `fastmrigan`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)  # no "16" for 16

    schema_version: Literal[1] = 1
    task: Literal["sample", "translate"]
    recipe: str
    source_contrast: str | None = None
    target_contrast: str | None = None
    latent_size: int | None = Field(default=None, ge=1)  # task sample
    slice_size: tuple[Side, Side] = Field(strict=False)  # [H, W]; JSON has lists alone
    grading: dict[str, Any]  # how the training slices came to [-1, 1]
    precision: Literal["fp32", "bf16", "fp16", "int8"] = "fp32"  # that the graph is typed in
    weights_sha256: str  # over the generator's parameters, see fastmrigan.export.onnx
    graph_sha256: str  # over all of the file but its metadata, see onnx_wire.graph_sha256
    rewrites: dict[str, Count] = {}  # of the exported graph, and how many places each changed
    training_data: dict[str, Any]  # fingerprint, counts, labels
    training: dict[str, Any] = {}  # step, ema, seed
    parity: dict[str, Any]  # largest differences from PyTorch, by engine
    versions: dict[str, str]
    notice: str = NOTICE

    @field_validator("parity")
    @classmethod
    def _engines(cls, parity: dict[str, Any]) -> dict[str, Any]:
        real = parity.get("real_slices", {})  # the same figures of other inputs
        if not isinstance(real, dict):
            raise ValueError("real_slices: expected an object")
        for figures in (parity, real):
            for engine in ENGINES & figures.keys():
                EngineFigures.model_validate(figures[engine])
        return parity

    @property
    def input_name(self) -> str:
        return INPUT_NAMES[self.task]


@dataclass(frozen=True)
class ModelFile:
    """A model file that has passed every check; `data` is the whole file."""

    path: Path
    data: bytes
    metadata: ModelMetadata

    @property
    def parity(self) -> dict[str, Any]:
        """Measured differences from PyTorch, by engine."""
        return self.metadata.parity

    @property
    def precision(self) -> str:
        """What the graph is typed in."""
        return self.metadata.precision

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def read_model_file(path: str | Path) -> ModelFile:
    """Reads and checks a model file.

    Raises UsageError where it cannot be read, and ModelRefused where it is damaged, carries no
    (or unreadable, or newer) fastmrigan metadata, or keeps weights outside the file.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except IsADirectoryError as error:
        raise UsageError(
            f"{path}: is a folder; name a model file (.onnx) of `fastmrigan export`"
        ) from error
    except OSError as error:
        raise UsageError(f"{path}: cannot read the model file: {error.strerror}") from error
    try:
        entries = onnx_wire.metadata(data)
        external = onnx_wire.has_external_data(data)
        graph_sha256 = onnx_wire.graph_sha256(data)
    except onnx_wire.Malformed as error:
        raise ModelRefused(f"{path}: not a whole ONNX file ({error}); export it again") from error
    if external:
        raise ModelRefused(
            f"{path}: keeps weights in another file (ONNX external data), which is never loaded; "
            "export it again with `fastmrigan export`"
        )
    if METADATA_KEY not in entries:
        raise ModelRefused(
            f"{path}: has no fastmrigan metadata; write model files with `fastmrigan export`"
        )
    metadata = _parse(path, entries[METADATA_KEY])
    if metadata.graph_sha256 != graph_sha256:
        raise ModelRefused(
            f"{path}: its graph is not the one that was exported (sha256 {graph_sha256[:12]}…, "
            f"expected {metadata.graph_sha256[:12]}…): damaged or altered; export it again"
        )
    return ModelFile(path, data, metadata)


def _parse(path: Path, text: str) -> ModelMetadata:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # also for a whole number of 5,000 digits
        raise ModelRefused(f"{path}: its fastmrigan metadata is not JSON ({error})") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ModelRefused(
            f"{path}: its metadata has schema version {version}, this fastmrigan knows up to "
            f"{SCHEMA_VERSION}; upgrade fastmrigan"
        )
    try:
        metadata = ModelMetadata.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        raise ModelRefused(
            f"{path}: its fastmrigan metadata is wrong at {field}: {first['msg']}; export it again"
        ) from error
    if metadata.task == "sample" and metadata.latent_size is None:
        raise ModelRefused(f"{path}: a model that samples must state latent_size; export it again")
    return metadata
