"""`fastmrigan verify`: every shard of a finished job against its sha256."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out of a job.")],
    discard: Annotated[
        bool,
        typer.Option(
            "--discard",
            help="Remove what is damaged; the command that began the job then makes that again, "
            "and nothing else.",
        ),
    ] = False,
) -> None:
    """Check that a job's folder holds every slice of its plan, once each and as written.

    Exits 6 where it does not.
    """
    from fastmrigan.errors import CheckFailed
    from fastmrigan.imaging.walker import printable
    from fastmrigan.jobs.verify import verify as verified
    from fastmrigan.progress import counted

    found = verified(folder, discard=discard)
    for name, fault in found.damaged.items():
        print(printable(f"{folder / name}: {fault}" + ("; removed" if discard else "")))
    for first in found.missing[:10]:
        print(f"{folder}: from slice {first:,} on some are not there")
    aside = "".join(
        f", {number:,} {what}"
        for number, what in ((found.left_out, "left out"), (found.flagged, "flagged"))
        if number
    )
    print(f"{folder}: {found.slices:,} of {found.count:,} slices are whole{aside}")
    if found.whole:
        return
    if found.damaged and not discard:
        remedy = "--discard removes what is damaged, and the command that began the job"
    else:
        remedy = "the command that began the job"
    damaged = counted(len(found.damaged), "damaged shard")
    lacking = counted(found.count - found.slices - found.left_out, "slice")
    raise CheckFailed(
        f"{folder}: {damaged}, {lacking} not there or damaged; {remedy} makes what is missing"
    )
