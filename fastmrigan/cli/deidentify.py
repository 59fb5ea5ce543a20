"""`fastmrigan deidentify`: DICOM files re-emitted without identity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastmrigan.cli.refusals import print_refused
from fastmrigan.progress import counted


def deidentify(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder (or one file) of DICOM.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder for the new files: new, or empty.")
    ],
    salt: Annotated[
        str | None,
        typer.Option(
            help="Secret that UIDs and patient IDs are hashed with: the same one gives the same "
            "IDs over runs. By default random, and never written. Others on this machine can see "
            "it: prefer --salt-file."
        ),
    ] = None,
    salt_file: Annotated[
        Path | None, typer.Option(help="File that holds the salt. Keep it as you keep the names.")
    ] = None,
    allow_burned_in: Annotated[
        str,
        typer.Option(
            help="Images let through by BurnedInAnnotation: no, unknown (also where it is absent) "
            "or yes. The others go to quarantine: they are refused."
        ),
    ] = "no",
) -> None:
    """Re-emit DICOM without identity: PS3.15 annex E headers, pixels as they are.

    Faces are not removed: from a head volume they can be rebuilt.
    """
    from fastmrigan.errors import EXIT_SOME_REJECTED
    from fastmrigan.imaging import deidentify as room

    options = room.DeidentifyOptions(read_salt(salt, salt_file), allow_burned_in)
    done = room.deidentify(source, out, options)
    written = counted(done.written, "file")
    print(f"de-identified {written} in {out} ({len(done.series):,} series)")
    if done.present:
        was = "was" if done.present == 1 else "were"
        print(f"{done.present:,} {was} there already, byte for byte")
    if done.twins:
        twins = counted(done.twins, "file shares its", "files share their")
        print(f"warning: {twins} SOP Instance UID with another")
    if options.salt is None and done.written:
        print("the salt was random: no later run gives these UIDs again")
    if done.ignored:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(done.ignored.items()))
        print(f"ignored files that are no DICOM: {kinds}")
    print_refused(done.refused, room.rejects_path(out.absolute()))
    if done.refused:
        raise typer.Exit(EXIT_SOME_REJECTED)


def read_salt(salt: str | None, salt_file: Path | None) -> bytes | None:
    """The salt given by one of the two options, without the line's end."""
    from fastmrigan.errors import UsageError

    if salt is not None and salt_file is not None:
        raise UsageError("--salt and --salt-file: give one of them")
    if salt_file is not None:
        return salt_file.read_bytes().rstrip(b"\r\n")
    return None if salt is None else salt.encode("utf-8", "surrogateescape")
