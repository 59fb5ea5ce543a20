"""The files of a run folder as its page needs them: whatever can be read of them.

Each reader returns what there is and adds to `missing`, in a sentence, what there is not: a run may
be in the middle of writing, cut short or damaged, and its page is wanted all the same.
"""

from __future__ import annotations

import json
import re
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import yaml

from fastmrigan.errors import InputRejected
from fastmrigan.training.logging import read_metrics

Values = npt.NDArray[np.float64]


@dataclass
class Columns:
    """metrics.jsonl by column: a step's row becomes one number in each of its columns."""

    steps: dict[str, array[int]] = field(default_factory=dict)
    values: dict[str, array[float]] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)  # the last row
    unreadable: int = 0  # lines

    def series(self, key: str) -> tuple[Values, Values]:
        """Steps and values [N] of a column, the finite ones."""
        steps = np.array(self.steps[key], np.float64)
        values = np.array(self.values[key], np.float64)
        finite = np.isfinite(values)
        return steps[finite], values[finite]

    def keys(self, pattern: str) -> list[str]:
        """Columns whose name matches the whole of `pattern` and that hold a finite number."""
        return [k for k in self.values if re.fullmatch(pattern, k) and len(self.series(k)[0])]


def read_document(path: Path, parse: Any, missing: list[str]) -> dict[str, Any]:
    """A mapping from a JSON or YAML file; empty where there is none."""
    try:
        document = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        missing.append(f"{path.name} is not there yet.")
        return {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        missing.append(f"{path.name} cannot be read ({type(error).__name__}).")
        return {}
    if not isinstance(document, dict):
        missing.append(f"{path.name} cannot be read (it holds no fields).")
        return {}
    return document


def read_columns(path: Path, missing: list[str]) -> Columns:
    """metrics.jsonl a line at a time: as dicts, the rows of a long run take gigabytes."""
    columns = Columns()
    try:
        file = path.open("rb")
    except OSError:
        missing.append(f"{path.name} is not there yet.")
        return columns
    with file:
        for line in file:
            if not line.endswith(b"\n"):
                break  # being written
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            step = row.get("step") if isinstance(row, dict) else None
            if not is_number(step) or isinstance(step, float):
                columns.unreadable += 1
                continue
            columns.last = row
            for key, value in row.items():
                if key != "step" and is_number(value):
                    columns.steps.setdefault(key, array("q")).append(step)
                    columns.values.setdefault(key, array("d")).append(value)
    if columns.unreadable:
        missing.append(f"{path.name}: unreadable lines left out: {columns.unreadable:,}.")
    elif not columns.last:
        missing.append(f"{path.name} holds no step yet.")
    return columns


def read_evaluations(path: Path, missing: list[str]) -> list[dict[str, Any]]:
    """The rows of evaluation.jsonl; a run need not have any."""
    try:
        return read_metrics(path)
    except (InputRejected, OSError) as error:
        missing.append(f"{path.name} cannot be read ({type(error).__name__}).")
        return []


def is_number(value: object) -> TypeGuard[int | float]:
    """An int that fits 64 bits, or any float."""
    if isinstance(value, int):
        return not isinstance(value, bool) and -(2**63) <= value < 2**63
    return isinstance(value, float)
