"""A folder of images as the inputs of a job: prepared first, beside the slices that come of it.

It becomes OUT/inputs, a prepared dataset: of the model's size, graded as the model's training
slices were, every slice of every series kept. Labels are left out, since they are names of folders
and may tell who it is. What was prepared once is taken as it is by every later run.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.imaging.collect import find, request_of
from fastmrigan.imaging.dataset import read_info
from fastmrigan.imaging.grading import parse_rule
from fastmrigan.imaging.options import CONTRASTS, PrepareOptions
from fastmrigan.imaging.prepare import Prepared, prepare
from fastmrigan.imaging.walker import Refused
from fastmrigan.jobs.locks import INPUTS, alone
from fastmrigan.jobs.spec import JobSpec, Translated
from fastmrigan.jobs.translation import check_task
from fastmrigan.runtime.engine_file import EngineFile
from fastmrigan.runtime.model_file import ModelFile

FOLDER = "inputs"  # in the job's
SET_FILES = ("dataset.json", "index.jsonl", "slices.npy")


@dataclass(frozen=True)
class PreparedInputs:
    """A folder of images as a prepared dataset."""

    source: Path
    path: Path  # of the dataset
    refused: tuple[Refused, ...]  # files, listed in its rejects.jsonl
    quarantined: tuple[Refused, ...]  # files, listed in its quarantine.jsonl
    seconds: float  # that it took now; 0 where it was there
    warnings: tuple[str, ...] = ()


def of_images(spec: JobSpec) -> Translated | None:
    """The job's inputs, where they are no prepared dataset, whole or broken."""
    inputs = spec.inputs
    if not isinstance(inputs, Translated):
        return None
    return None if any((inputs.inputs / name).exists() for name in SET_FILES) else inputs


def check_images(spec: JobSpec, model: ModelFile | EngineFile) -> None:
    """Raises UsageError where the folder of images that `spec` names cannot be prepared for the
    model, as far as names tell."""
    inputs = of_images(spec)
    if inputs is None:
        return
    check_task(model)
    source, out = inputs.inputs, spec.output.out
    if out.resolve().is_relative_to(source.resolve()):
        raise UsageError(
            f"{out}: lies within the inputs, {source}, and would be read as one of them; take "
            "another --out"
        )
    options = options_for(model, inputs)
    options.check()
    _is_ready(source, out / FOLDER, options)
    if inputs.split != "all" or inputs.label is not None:
        option = f"--split {inputs.split}" if inputs.split != "all" else f"--label {inputs.label}"
        raise UsageError(
            f"{option}: {source} is not a prepared data set, and every slice of a folder of images "
            "is translated; make a set with `fastmrigan prepare`, or leave the option out"
        )


def prepare_images(
    spec: JobSpec, model: ModelFile | EngineFile, at: Path | None = None
) -> tuple[JobSpec, PreparedInputs]:
    """Prepares the folder of images that `spec` names, unless that has been done, into `at` or
    OUT/inputs; the job that takes them from there, and what was prepared.

    Of several jobs of one OUT, one prepares and the others wait for it. Errors as those of
    `imaging.prepare`; interrupted, the next call goes on.
    """
    check_images(spec, model)
    inputs = of_images(spec)
    assert inputs is not None
    source, done, options = inputs.inputs, spec.output.out / FOLDER, options_for(model, inputs)
    warnings = []
    if _rule_of(model) is None:
        warnings = [f"{model.path}: records no grading; {source} is graded by {options.grading}"]
    seconds = 0.0
    if _is_ready(source, done, options):
        at = done
    else:
        began = time.perf_counter()
        made = _in_turn(source, done, options) if at is None else _aside(source, at, options)
        at = at or done
        if made is not None:
            warnings += [*made.warnings, *made.info.notes]
            seconds = time.perf_counter() - began
    images = PreparedInputs(
        source,
        at,
        _listed(at / "rejects.jsonl"),
        _listed(at / "quarantine.jsonl"),
        seconds,
        tuple(warnings),
    )
    return replace(spec, inputs=Translated(at)), images


def _in_turn(source: Path, done: Path, options: PrepareOptions) -> Prepared | None:
    """Prepares OUT/inputs; None where another job had done it when its turn was over."""

    def waiting() -> None:
        print(f"{done}: another job is preparing it; waiting for that", file=sys.stderr, flush=True)

    done.parent.mkdir(parents=True, exist_ok=True)
    with alone(done.parent, INPUTS, waiting):
        return None if _is_ready(source, done, options) else prepare(source, done, options)


def _aside(source: Path, at: Path, options: PrepareOptions) -> Prepared:
    """Prepares a dry run's own copy."""
    try:
        return prepare(source, at, options)
    except InputRejected as error:
        raise InputRejected(f"{error}; a dry run does not keep that list") from error


def options_for(model: ModelFile | EngineFile, inputs: Translated) -> PrepareOptions:
    """How inputs of the model are prepared. Raises UsageError for one that translates no squares.

    Nothing is set aside for testing, no slice is left out for showing little brain or lying in
    another plane, and no label is kept.
    """
    height, width = model.metadata.slice_size
    if height != width:
        raise UsageError(
            f"{model.path}: translates slices of {height}x{width}, and a folder of images becomes "
            "squares; give a prepared dataset of that size"
        )
    contrast = model.metadata.source_contrast
    return PrepareOptions(
        size=height,
        label="",
        contrast=contrast if contrast in CONTRASTS else "unknown",
        grading=_rule_of(model) or "percentile",
        allow_burned_in=inputs.allow_burned_in,
        test_fraction=0,
        min_brain=None,
    )


def _rule_of(model: ModelFile | EngineFile) -> str | None:
    """The grading of the slices that the model was trained to translate, as `parse_rule` reads it;
    None where the model file records none. Raises UsageError where it records nonsense."""
    metadata = model.metadata
    of_source = metadata.training_data.get("source")
    rule: dict[str, Any] = metadata.grading
    if isinstance(of_source, dict) and not metadata.training.get("back"):
        rule = of_source.get("grading") or rule  # `grading` itself is that of what comes out
    if not rule:
        return None
    bounds = [f"{rule[name]}" for name in ("low", "high") if name in rule]
    text = ":".join([str(rule.get("method")), *bounds])
    try:
        parse_rule(text)
    except UsageError as error:
        raise UsageError(
            f"{model.path}: its metadata records the grading {text!r}, which is none; give a "
            "prepared dataset"
        ) from error
    return text


def _listed(path: Path) -> tuple[Refused, ...]:
    """The files that `prepare` named there."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    named = [json.loads(line) for line in lines]
    return tuple(Refused(each["name"], each["reason"]) for each in named)


def _is_ready(source: Path, at: Path, options: PrepareOptions) -> bool:
    """Whether `at` holds what preparing `source` would make. Raises UsageError where it holds
    another set, or `source` no images."""
    found = find(source, options)
    if not (at / "dataset.json").is_file():
        return False
    try:
        request = read_info(at).request
    except InputRejected as error:
        raise UsageError(f"{error}; remove {at}, and run the same command") from error
    if request != request_of(found, options):
        raise UsageError(
            f"{at}: was prepared of other files than {source} holds now, or for another model; "
            "take another --out"
        )
    return True
