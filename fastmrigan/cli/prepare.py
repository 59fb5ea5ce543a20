"""`fastmrigan prepare`: a folder of images to a prepared data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SHOWN = 5  # refused files named on the terminal; all are in rejects.jsonl


def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC", help="Folder (or one file) of PNG, JPEG, TIFF, DICOM or NIfTI images."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make; it appears whole or not at all.")],
    size: Annotated[int, typer.Option(help="Side of the prepared slices, in pixels.")] = 64,
    label: Annotated[
        str | None,
        typer.Option(help="Label of every slice; by default the folder each file lies in."),
    ] = None,
    contrast: Annotated[
        str, typer.Option(help="t1, t1gd, t2, flair, pd, dwi, ct or unknown.")
    ] = "unknown",
    target_contrast: Annotated[
        str, typer.Option(help="The same, for the twins of a paired set.")
    ] = "unknown",
    grading: Annotated[
        str,
        typer.Option(
            help="How intensities go to [-1, 1]: percentile[:LOW:HIGH], minmax or window:LOW:HIGH."
        ),
    ] = "percentile",
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Registered twins: a folder with the same relative names (extensions aside), "
            "or a CSV with the columns source,target relative to SRC."
        ),
    ] = None,
    group_pattern: Annotated[
        str | None,
        typer.Option(
            help="Regular expression whose first group, found in the relative name, tells patients "
            r"apart, e.g. '(head\d+)_'. By default DICOM's PatientID, and each volume for itself."
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(help="auto, patient, duplicates, or block (for a set that is one subject)."),
    ] = "auto",
    test_fraction: Annotated[float, typer.Option(help="Share of slices to test on.")] = 0.1,
    min_brain: Annotated[
        float, typer.Option(help="Slices of volumes with no more than this share of brain go.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a different data set in --out.")
    ] = False,
) -> None:
    """Make a prepared data set: read, check, grade, resize, group duplicates, split."""
    from fastmrigan.errors import EXIT_SOME_REJECTED
    from fastmrigan.imaging import prepare as room
    from fastmrigan.imaging.options import PrepareOptions

    options = PrepareOptions(
        size=size,
        label=label,
        contrast=contrast,
        target_contrast=target_contrast,
        grading=grading,
        pairs=pairs,
        group_pattern=group_pattern,
        split=split,
        test_fraction=test_fraction,
        min_brain=min_brain,
        seed=seed,
        force=force,
    )
    made = room.prepare(source, out, options)
    info = made.info
    labels = ", ".join(f"{name or '(no label)'} {count:,}" for name, count in info.labels.items())
    counts = ", ".join(f"{count:,} {side}" for side, count in info.split.counts.items())
    kind = "pairs of slices" if info.paired else "slices"
    print(f"prepared {info.count:,} {kind} of {size}x{size} in {out}: {labels}")
    print(f"split by {info.split.by} ({made.split_reason}): {counts}")
    if made.nameless and info.split.by == "duplicates" and "test" in info.split.counts:
        which = "" if made.nameless == info.count else f" of {made.nameless:,} slices"
        print(
            f"warning: patients{which} are unknown: slices of one patient may stand on both sides; "
            "tell them apart with --group-pattern"
        )
    if made.empty:
        print(f"left out {made.empty:,} slices with at most {min_brain:.0%} brain")
    if made.ignored:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(made.ignored.items()))
        print(f"ignored files that are no images: {kinds}")
    print(f"look at {out / 'contact_sheet.png'}")
    if made.refused:
        files = "1 file" if len(made.refused) == 1 else f"{len(made.refused):,} files"
        print(f"refused {files}, named with the reason in {out / 'rejects.jsonl'}:")
        for refused in made.refused[:SHOWN]:
            print(f"  {refused}")
        if made.refused[SHOWN:]:
            print(f"  and {len(made.refused) - SHOWN:,} more")
        raise typer.Exit(EXIT_SOME_REJECTED)
