"""Whether a job's folder holds what the job put there: every shard of its plan, to the byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.files import TMP
from fastmrigan.jobs import receipts
from fastmrigan.jobs.formats import FORMATS, Format
from fastmrigan.jobs.shards import in_order, remove
from fastmrigan.progress import Progress


@dataclass
class Verified:
    """What `verify` found."""

    count: int  # slices of the plan
    slices: int = 0  # of these, in whole shards
    left_out: int = 0  # of these, decided against by the job and named in a receipt
    flagged: int = 0
    damaged: dict[str, str] = field(default_factory=dict)  # shard: what is wrong with it
    missing: list[int] = field(default_factory=list)  # slices that no shard covers, first of a run

    @property
    def whole(self) -> bool:
        return not self.damaged and not self.missing and self.slices + self.left_out == self.count


def verify(folder: Path, *, discard: bool = False) -> Verified:
    """Reads every shard of a job's folder and holds it against its receipt.

    discard: damaged shards are removed, with their receipts, so that the command that began the job
    makes them again, and them alone. Raises UsageError where the folder is no job's, InputRejected
    where its run.json cannot be read.
    """
    count, fmt = _planned(folder)
    shards = in_order(
        path
        for path in folder.glob(f"{fmt.stem}-*")
        if path.name.endswith(fmt.suffix) and not path.name.endswith(TMP)
    )
    found = Verified(count)
    covered: list[tuple[int, int]] = []  # (first, count) of whole shards
    with Progress("verify", len(shards), "shards") as progress:
        for path in shards:
            receipt, fault = _held(folder, path)
            if fault is None and receipt is not None:
                covered.append((receipt.first, receipt.count))
                found.slices += receipt.count - len(receipt.left_out)
                found.left_out += len(receipt.left_out)
                found.flagged += len(receipt.flagged)
            else:
                found.damaged[path.name] = str(fault)
                if discard:
                    remove(path)
                    remove(receipts.path_of(folder, path.name))
            progress.advance()
    if fmt.entire:
        covered += _without_files(folder, fmt, found, discard)
    found.missing = list(_gaps(sorted(covered), count))
    return found


def _without_files(
    folder: Path, fmt: Format, found: Verified, discard: bool
) -> list[tuple[int, int]]:
    """(first, count) of shards that have a receipt and nothing else, all their slices left out."""
    covered = []
    for path in sorted((folder / receipts.FOLDER).glob(f"{fmt.stem}-*{fmt.suffix}.json")):
        try:
            receipt = receipts.read(path)
        except InputRejected:
            name = path.name.removesuffix(".json")
            if name not in found.damaged:  # as a shard on the disk is
                found.damaged[name] = "has a damaged receipt"
                if discard:
                    remove(path)
            continue
        if not receipt.files and len(receipt.left_out) == receipt.count:
            covered.append((receipt.first, receipt.count))
            found.left_out += receipt.count
    return covered


def _planned(folder: Path) -> tuple[int, Format]:
    path = folder / "run.json"
    try:
        run = json.loads(path.read_bytes())
        return int(run["count"]), FORMATS[run["format"]]
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder}: is no job's folder (it has no run.json); name the --out of one"
        ) from error
    except OSError as error:
        raise UsageError(f"{path}: cannot read it: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise InputRejected(f"{path}: not a job's run.json ({error!r}); make it again") from error


def _held(folder: Path, shard: Path) -> tuple[receipts.Receipt | None, str | None]:
    """The receipt of a shard, and what speaks against the shard."""
    try:
        receipt = receipts.read(receipts.path_of(folder, shard.name))
    except FileNotFoundError:
        return None, "has no receipt"
    except OSError as error:
        return None, f"has a receipt that cannot be read: {error.strerror}"
    except InputRejected:
        return None, "has a damaged receipt"
    try:
        there = receipts.digests_of(shard)
    except OSError as error:
        return receipt, f"cannot be read: {error.strerror}"
    for name in receipt.files.keys() | there.keys():
        if name not in there:
            return receipt, f"lacks {name}"
        if name not in receipt.files:
            return receipt, f"holds {name}, which is none of the job's"
        if there[name] != receipt.files[name]:
            return receipt, f"{name} is not what was written (sha256 {there[name][:12]}…)"
    return receipt, None


def _gaps(covered: list[tuple[int, int]], count: int) -> Iterator[int]:
    """First slices of what lies between rising ranges (first, count) of 0 .. `count` - 1."""
    at = 0
    for first, many in covered:
        if first > at:
            yield at
        at = max(at, first + many)
    if at < count:
        yield at
