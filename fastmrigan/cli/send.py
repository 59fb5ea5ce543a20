"""`fastmrigan send`: DICOM files to a peer over C-STORE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastmrigan.cli.refusals import print_refused
from fastmrigan.progress import counted


def send(
    to: Annotated[str, typer.Option(help="The peer: AET@HOST:PORT, as ORTHANC@localhost:4242.")],
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER_OR_SHARDS",
            help="Folder (or one file) of DICOM files and of tar shards (shard-*.tar) with them.",
        ),
    ] = None,
    calling: Annotated[
        str, typer.Option("--from", help="AE title we go by: some peers must know it.")
    ] = "FASTMRIGAN",
    timeout: Annotated[
        float,
        typer.Option(help="Seconds to wait for a connection, an association or an answer."),
    ] = 30.0,
    associations: Annotated[
        int, typer.Option(help="Associations at once, where the peer takes as many.")
    ] = 4,
    max_pdu: Annotated[
        int,
        typer.Option(help="Bytes of the longest PDU to send; 0: as long as the peer takes."),
    ] = 1 << 18,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps what was sent (sent.jsonl) and what was not (rejects.jsonl); "
            "by default FOLDER_OR_SHARDS.send beside it."
        ),
    ] = None,
    allow_identified: Annotated[
        bool,
        typer.Option(
            "--allow-identified",
            help="Send files too that say neither that they are synthetic nor de-identified.",
        ),
    ] = False,
    echo: Annotated[bool, typer.Option("--echo", help="C-ECHO alone: is the peer there?")] = False,
) -> None:
    """Send DICOM files to a peer (PACS) over C-STORE: each once, resumable at any moment."""
    from fastmrigan.errors import EXIT_SOME_REJECTED, UsageError
    from fastmrigan.imaging import send as room

    peer = room.Peer.parse(to, calling)
    limits = room.Limits(timeout, max_pdu)
    limits.check()
    if echo:
        if source is not None:
            raise UsageError(f"--echo sends no files; leave {source} out")
        print(f"{peer} answered C-ECHO in {1e3 * room.echo(peer, limits):.0f} ms")
        return
    if source is None:
        raise UsageError("send: name a folder of DICOM files (or --echo to ask for the peer alone)")
    options = room.SendOptions(limits, associations, state, allow_identified)
    done = room.send(source, peer, options)
    if done.echo_seconds is None:
        print(f"{peer} takes no C-ECHO; sent without asking")
    earlier = f", {done.earlier:,} sent earlier" if done.earlier else ""
    if done.sent:
        rate, megabytes = done.sent / done.seconds, done.bytes / 1e6
        way = counted(done.associations, "association")
        print(
            f"{peer}: stored {counted(done.sent, 'file')}{earlier}; {megabytes:,.1f} MB in "
            f"{done.seconds:.1f} s over {way}: {rate:,.0f} files/s"
        )
    else:
        print(f"{peer}: nothing stored now{earlier}")
    for text, count in sorted(done.warnings.items()):
        print(f"stored with a warning: {counted(count, 'file')} ({text})")
    if done.unmarked:
        are = counted(done.unmarked, "of these files is", "of these files are")
        print(f"--allow-identified: {are} marked neither synthetic nor de-identified")
    if done.ignored:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(done.ignored.items()))
        print(f"ignored files that are not DICOM: {kinds}")
    print(f"kept in {done.state}: the same command sends only what is missing there")
    print_refused(done.refused, done.rejects, "not sent")
    if done.refused:
        raise typer.Exit(EXIT_SOME_REJECTED)
