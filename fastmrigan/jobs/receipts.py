"""The receipt of a shard: what was put on the disk, and what was not.

A job's folder holds receipts/<name of the shard>.json: the sha256 of each of the shard's files, the
slices that were left out or flagged, each with the reason, and last a sha256 of the receipt itself.
It depends on the shard alone, so that a shard which is made again has the same one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmrigan.errors import InputRejected
from fastmrigan.files import write_whole
from fastmrigan.jobs.plan import Content

FOLDER = "receipts"
SEAL = "receipt_sha256"  # over the receipt as it would be written without it


@dataclass(frozen=True)
class Receipt:
    """What is known of a shard that was made."""

    shard: int
    first: int
    count: int  # slices of the plan; left out or there
    files: dict[str, str]  # name within the job's folder: sha256; none of a volume with a hole
    left_out: dict[int, str]  # index: why
    flagged: dict[int, str]


def path_of(folder: Path, name: str) -> Path:
    """Of the receipt of the shard `name` (a file or folder in a job's `folder`)."""
    return folder / FOLDER / f"{name}.json"


def write(folder: Path, name: str, digests: dict[str, str], content: Content) -> None:
    """Puts the receipt of the shard `name` on the disk. digests: what its format's writer said, or
    nothing of a shard without files."""
    receipt = {
        "shard": content.shard.number,
        "first": content.shard.first,
        "count": content.shard.count,
        "files": {name + inner: digest for inner, digest in digests.items()},
        "left_out": {str(index): why for index, why in sorted(content.left_out.items())},
        "flagged": {str(index): why for index, why in sorted(content.flagged.items())},
    }
    path = path_of(folder, name)
    path.parent.mkdir(exist_ok=True)
    write_whole(path, _rendered(receipt))


def _rendered(receipt: dict[str, Any]) -> bytes:
    seal = hashlib.sha256(json.dumps(receipt, indent=1).encode()).hexdigest()
    return (json.dumps({**receipt, SEAL: seal}, indent=1) + "\n").encode()


def digests_of(shard: Path) -> dict[str, str]:
    """sha256 of the files that a shard on the disk consists of, as `Receipt.files` has them."""
    if shard.is_dir():
        return {f"{shard.name}/{each.name}": _sha256(each) for each in sorted(shard.iterdir())}
    return {shard.name: _sha256(shard)}


def read(path: Path) -> Receipt:
    """Raises InputRejected where it is no receipt, FileNotFoundError where there is none."""
    try:
        content = path.read_bytes()
        document: dict[str, Any] = json.loads(content)
        document.pop(SEAL, None)
        if _rendered(document) != content:  # to the byte: no flip is without effect
            raise ValueError(f"its {SEAL} does not hold")
        return Receipt(
            shard=int(document["shard"]),
            first=int(document["first"]),
            count=int(document["count"]),
            files={str(name): str(digest) for name, digest in document["files"].items()},
            left_out={int(index): str(why) for index, why in document["left_out"].items()},
            flagged={int(index): str(why) for index, why in document["flagged"].items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputRejected(
            f"{path}: not a shard's receipt ({error}); remove it and its shard, and run the job "
            "again"
        ) from error


def left_out(folder: Path) -> dict[int, str]:
    """Index and reason of every slice that the job in `folder` left out."""
    found: dict[int, str] = {}
    for path in sorted((folder / FOLDER).glob("*.json")):
        found |= read(path).left_out
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
