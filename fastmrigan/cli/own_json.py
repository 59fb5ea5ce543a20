"""A report's JSON may replace an earlier one of its kind, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from fastmrigan.errors import UsageError


def check_own_json(path: Path, kind: str, option: str) -> None:
    """Raises UsageError where `path` holds anything but JSON whose `kind` is this one.

    option: the one of the command line that names the file, for the message.
    """
    if not path.exists():
        return
    if not path.is_file() or kind_of(path) != kind:
        raise UsageError(
            f"{path}: is there already and is no report of kind {kind}, so it is not overwritten; "
            f"give {option} another name"
        )


def kind_of(path: Path) -> object:
    """The `kind` of a JSON file; None where it has none or is no JSON."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    return document.get("kind") if isinstance(document, dict) else None
