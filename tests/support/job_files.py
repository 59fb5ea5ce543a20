"""The files that a job leaves: their digests, and its status."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def digests(out: Path, *more: str) -> dict[str, str]:
    """sha256 of every file of all shards and series, and of those that `more` patterns match."""
    patterns = ("shard-*", "shard-*/*", "series-*", *more)
    files = {path for pattern in patterns for path in out.glob(pattern)}
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
        if path.is_file()
    }


def pinned(out: Path) -> Path:
    """A folder of which a job has taken hold."""
    (out / "run.json").write_text('{"count": 64, "seed": 7}')
    return out


def status_of(out: Path) -> dict[str, object]:
    return json.loads((out / "status.json").read_text())
