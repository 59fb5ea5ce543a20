"""What workers and their supervisor say to each other: errors stay what they are."""

from __future__ import annotations

import pickle
import re

import pytest

from fastmrigan.errors import MissingDependency, UsageError
from fastmrigan.jobs.messages import Failed


class OddError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Stateful(Exception):
    """What it says is not in its arguments."""

    def __str__(self) -> str:
        return self.text


def stateful() -> Stateful:
    error = Stateful()
    error.text = "remembered"
    return error


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (UsageError("told"), UsageError, "told"),
        (MissingDependency("pydicom", "dicom", "reading"), MissingDependency, "pip install"),
        (OSError(28, "No space left", "x"), OSError, r"\[Errno 28\] No space left: 'x'"),
        (FileNotFoundError(2, "No such file", "y"), FileNotFoundError, "'y'"),
        (KeyError("k"), KeyError, "'k'"),
        (OddError("one", "two"), OddError, "one and two"),
        (stateful(), RuntimeError, "Stateful: remembered"),
        (ValueError(lambda: None), RuntimeError, "ValueError: <function"),
        (type("Local", (Exception,), {})("a"), RuntimeError, "Local: a"),
    ],
)
def test_errors_cross_processes(error, kind, text):
    try:
        raise error from ValueError("two\nlines")
    except Exception as raised:
        sent = pickle.dumps(Failed.of(raised))
    again = pickle.loads(sent).error()
    assert type(again) is kind
    assert re.search(text, str(again))
    assert getattr(again, "errno", None) == getattr(error, "errno", None)
    assert getattr(again, "filename", None) == getattr(error, "filename", None)
    assert str(again.__cause__) == "two\nlines"
    assert "In a worker: " in again.__notes__[0]
    assert "test_errors_cross_processes" in again.__notes__[0]
