"""A job file: TOML, settings that all jobs share, then a [[job]] for each.

    format = "dicom-files"

    [[job]]
    model = "dcgan.onnx"
    out = "sampled"
    count = 20000
    seed = 7

    [[job]]
    model = "t1-to-t2.onnx"
    out = "t2"
    inputs = "prepared/t1"

Paths are relative to the file. What a job states goes before what all share; of that, a job which
translates takes no count and no seed, and one which samples nothing that is said of inputs.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastmrigan.errors import UsageError
from fastmrigan.jobs.gate import GateOptions
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.spec import Engine, JobSpec, Sampled, Translated
from fastmrigan.runtime.generator import MAX_BATCH

SAMPLING = ("count", "seed")
TRANSLATING = ("inputs", "split", "label", "allow_burned_in")
BATCH = {"synth": 64, "translate": 8}  # slices an engine call, as the two commands take them


class JobTable(BaseModel):
    """What a [[job]] may say; the options of `synth` and `translate` by their names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str  # path of a model file or an engine
    out: str  # path of the folder for the slices
    count: int | None = Field(default=None, ge=1)  # slices to sample
    seed: int = Field(default=0, ge=0, lt=2**64)
    inputs: str | None = None  # path of a prepared dataset or a folder of images to translate
    split: Literal["all", "train", "test", "guard"] = "all"
    label: str | None = None  # of the slices to translate; None: all
    allow_burned_in: Literal["no", "unknown", "yes"] = "no"  # DICOM inputs, as `prepare` takes it
    format: Literal["shard", "npz", "png", "dicom", "dicom-files", "nifti"] = "shard"
    shard_size: int = Field(default=256, ge=1)
    dtype: Literal["uint8", "uint16"] | None = None  # None: what the format is made for
    backend: Literal["auto", "openvino", "onnxruntime", "onnxruntime-cuda", "tensorrt"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    batch: int | None = Field(default=None, ge=1, le=MAX_BATCH)  # None: 64 sampled, 8 translated
    threads: int | None = Field(default=None, ge=1)  # None: all this process may use
    mode: Literal["throughput", "latency"] = "throughput"
    gate: Literal["drop", "flag"] | None = None
    gate_reference: str | None = None  # path of the prepared dataset that the model saw

    def spec(self, folder: Path) -> JobSpec:
        """The job; paths are relative to `folder`."""

        def path(text: str) -> Path:
            return folder / Path(text).expanduser()

        command = "synth" if self.inputs is None else "translate"
        engine = Engine(
            path(self.model),
            self.backend,
            self.precision,
            self.threads,
            BATCH[command] if self.batch is None else self.batch,
            self.mode,
        )
        inputs: Sampled | Translated
        if self.inputs is not None:
            of = path(self.inputs)
            inputs = Translated(of, self.split, self.label, self.allow_burned_in)
        else:
            inputs = Sampled(self.count or 0, self.seed)
        output = Output(path(self.out), self.format, self.shard_size, self.dtype)
        reference = None if self.gate_reference is None else path(self.gate_reference)
        gate = None if self.gate is None else GateOptions(self.gate, reference)
        return JobSpec(engine, inputs, output, gate)


def read_jobs(path: Path) -> list[JobSpec]:
    """The jobs of a file, in their order; no file that they name is looked at.

    Raises UsageError, which names the file, the job and the key, and where two jobs go into one
    folder.
    """
    shared = _document(path)
    tables = shared.pop("job", None)
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        got = "has none" if tables is None else "has something else of that name"
        raise UsageError(f"{path}: expected a [[job]] for each job, and it {got}; write them so")
    if not tables:
        raise UsageError(f"{path}: holds no job; write a [[job]] for each")
    for key in shared:
        _check_known(f"{path}: {key}", key, shared=True)
    if "out" in shared:
        raise UsageError(f"{path}: out: two jobs cannot share a folder; state it in each [[job]]")
    specs = [_spec(path, number, table, shared) for number, table in enumerate(tables, start=1)]
    _check_apart(path, specs)
    return specs


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a text file; a job file is TOML") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not readable as TOML: {error}; mend it there") from error
    except OSError as error:
        raise UsageError(
            f"{path}: cannot read the job file: {error.strerror}; name a file in TOML"
        ) from error


def _spec(path: Path, number: int, table: dict[str, Any], shared: dict[str, Any]) -> JobSpec:
    where = f"{path}: job {number}"
    for key in table:
        _check_known(f"{where}: {key}", key)
    kinds = {"count", "inputs"}
    stated = kinds & table.keys() or kinds & shared.keys()
    if len(stated) != 1:
        got = "both count and inputs" if stated else "neither count nor inputs"
        raise UsageError(f"{where}: states {got}; state count to sample, or inputs to translate")
    samples = stated == {"count"}
    idle = TRANSLATING if samples else SAMPLING  # what this kind of job has no use for
    for key in idle:
        if key in table:
            raise UsageError(
                f"{where}: {key}: has no meaning for a job that "
                f"{'samples' if samples else 'translates'}; leave it out"
            )
    merged = {key: value for key, value in shared.items() if key not in idle} | table
    if "gate_reference" in merged and "gate" not in merged:
        raise UsageError(
            f"{where}: gate_reference: says nothing without gate; state gate, drop or flag"
        )
    try:
        return JobTable.model_validate(merged).spec(path.parent)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if first["type"] == "missing":
            raise UsageError(f"{where}: {key}: is missing; state it") from error
        where = where if key in table else str(path)
        raise UsageError(f"{where}: {key}: {first['msg']}, got {first['input']!r}") from error


def _check_known(where: str, key: str, *, shared: bool = False) -> None:
    known = [*JobTable.model_fields, *(["job"] if shared else [])]
    if key in known:
        return
    close = difflib.get_close_matches(key, known, 1, 0.5)
    hint = f"the nearest is {close[0]!r}" if close else f"known are {', '.join(known)}"
    raise UsageError(f"{where}: unknown key; {hint}")


def _check_apart(path: Path, specs: list[JobSpec]) -> None:
    """Raises UsageError where two jobs go into one folder."""
    places = [spec.output.out.resolve() for spec in specs]
    for later, place in enumerate(places):
        for earlier, other in enumerate(places[:later]):
            if place == other:
                raise UsageError(
                    f"{path}: jobs {earlier + 1} and {later + 1} go into one folder, "
                    f"{specs[later].output.out}; give each its own out"
                )
