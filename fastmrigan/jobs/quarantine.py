"""Inputs that ended the processes which worked on them, named in the job's folder.

quarantine.jsonl has a line for each: the index of its slice, the hash that the prepared dataset
keeps of its source's name, and the reason. A job that goes on leaves the same ones out, whether its
workers or this process make the rest, so that the bytes are the same.
"""

from __future__ import annotations

import json
from pathlib import Path

from fastmrigan.errors import UsageError
from fastmrigan.files import write_whole
from fastmrigan.jobs.locks import QUARANTINE, alone

NAME = "quarantine.jsonl"


def read(out: Path) -> dict[int, str]:
    """Index and reason of each input that is left out; none where the folder names none.

    Raises UsageError where the file is not ours.
    """
    path = out / NAME
    try:
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        return {int(entry["index"]): str(entry["reason"]) for entry in entries}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path}: not a job's list of inputs ({error!r}); remove it, and they are tried again"
        ) from error


def add(out: Path, index: int, source: str, reason: str) -> None:
    """Names one more input; the file appears whole or not at all. Raises OSError, DiskFull."""
    path = out / NAME
    line = json.dumps({"index": index, "source": source, "reason": reason})
    with alone(out, QUARANTINE):  # a job of other shards may name one at the same moment
        known = path.read_text() if path.exists() else ""
        write_whole(path, f"{known}{line}\n".encode())
