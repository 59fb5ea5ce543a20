"""`fastmrigan prepare`: a folder of images to a prepared data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastmrigan.cli.refusals import SHOWN, print_refused
from fastmrigan.progress import counted


def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC",
            help="Folder of PNG, JPEG, TIFF, DICOM or NIfTI images and of .zip or .tar archives of "
            "them; or one image, one archive or one DICOMDIR.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make; it appears whole or not at all.")],
    size: Annotated[int, typer.Option(help="Side of the prepared slices, in pixels.")] = 64,
    label: Annotated[
        str | None,
        typer.Option(help="Label of every slice; by default the folder each file lies in."),
    ] = None,
    contrast: Annotated[
        str,
        typer.Option(
            help="t1, t1gd, t2, flair, pd, dwi, ct or unknown; auto asks dcm2niix for each DICOM "
            "series."
        ),
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
    label_maps: Annotated[
        str | None,
        typer.Option(
            help="NIfTI label maps of NIfTI volumes: a folder with the same relative names, or a "
            "pattern of names in SRC, e.g. '{folder}/seg.nii.gz' or '{folder}/{stem}_seg.nii.gz'. "
            "Slices become tumour or normal, and the maps are kept."
        ),
    ] = None,
    tumour_area: Annotated[
        float, typer.Option(help="Area of labels, in mm², from which a slice is tumour.")
    ] = 20.0,
    group_pattern: Annotated[
        str | None,
        typer.Option(
            help="Regular expression whose first group, found in the relative name, tells patients "
            r"apart, e.g. '(head\d+)_'. By default DICOM's PatientID, and each volume for itself."
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE.csv",
            help="Instead: a CSV with the columns file (relative to SRC) and group, the patient "
            "each file shows.",
        ),
    ] = None,
    plane: Annotated[
        str, typer.Option(help="axial, sagittal, coronal or any: other slices are left out.")
    ] = "any",
    isotropic: Annotated[
        str | None,
        typer.Option(
            metavar="MM|finest",
            help="Resample slices in their plane to square pixels of MM, or of their finer side.",
        ),
    ] = None,
    rgb: Annotated[
        str, typer.Option(help="Colour DICOM: refuse, or convert to grey. Pictures are converted.")
    ] = "refuse",
    allow_burned_in: Annotated[
        str,
        typer.Option(
            help="no quarantines DICOM whose BurnedInAnnotation is YES or absent; unknown allows "
            "absent ones; yes allows all."
        ),
    ] = "no",
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
    workers: Annotated[
        int | None, typer.Option(help="Processes that decode; by default one a processor.")
    ] = None,
) -> None:
    """Make a prepared data set: read, check, grade, resize, group duplicates, split.

    Interrupted (Ctrl-C, a kill), the same command goes on where it stopped.
    """
    from fastmrigan.errors import EXIT_SOME_REJECTED
    from fastmrigan.imaging import prepare as room
    from fastmrigan.imaging import quarantine
    from fastmrigan.imaging.options import PrepareOptions
    from fastmrigan.imaging.walker import printable

    options = PrepareOptions(
        size=size,
        label=label,
        contrast=contrast,
        target_contrast=target_contrast,
        grading=grading,
        pairs=pairs,
        label_maps=label_maps,
        tumour_area=tumour_area,
        plane=plane,
        isotropic=isotropic,
        rgb=rgb,
        allow_burned_in=allow_burned_in,
        group_pattern=group_pattern,
        groups=groups,
        split=split,
        test_fraction=test_fraction,
        min_brain=min_brain,
        seed=seed,
        force=force,
        workers=workers,
    )
    made = room.prepare(source, out, options)
    info = made.info
    labels = ", ".join(f"{name or '(no label)'} {count:,}" for name, count in info.labels.items())
    counts = ", ".join(f"{count:,} {side}" for side, count in info.split.counts.items())
    kind = ("pair of slices", "pairs of slices") if info.paired else ("slice",)
    prepared = counted(info.count, *kind)
    print(f"prepared {prepared} of {size}x{size} in {out}: {printable(labels)}")
    print(f"split by {info.split.by} ({made.split_reason}): {counts}")
    remedy = (
        "tell them apart with --group-pattern or --groups"
        if groups is None
        else f"{groups} has no row for them"
    )
    if made.nameless and info.split.by == "duplicates" and "test" in info.split.counts:
        which = "" if made.nameless == info.count else f" of {counted(made.nameless, 'slice')}"
        print(
            f"warning: patients{which} are unknown: slices of one patient may stand on both sides; "
            f"{remedy}"
        )
    if made.assumed > 1 and info.split.by == "patient" and "test" in info.split.counts:
        print(
            f"warning: {made.assumed:,} volumes are each taken for a patient: several of one "
            f"patient may stand on both sides; {remedy}"
        )
    if made.empty:
        print(f"left out {counted(made.empty, 'slice')} with at most {min_brain:.0%} brain")
    if made.elsewhere:
        others = counted(made.elsewhere, "slice that is", "slices that are")
        print(f"left out {others} not {plane}, or not known to be")
    for warning in made.warnings[:SHOWN]:
        print(f"warning: {warning}")
    if made.warnings[SHOWN:]:
        print(f"warning: and {len(made.warnings) - SHOWN:,} more of the kind")
    for note in info.notes[:SHOWN]:
        print(f"note: {note}")
    if info.notes[SHOWN:]:
        rest = counted(len(info.notes) - SHOWN, "more note")
        print(f"and {rest} in {out / 'dataset.json'}")
    if made.ignored:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(made.ignored.items()))
        print(f"ignored files that are no images: {printable(kinds)}")
    print(f"look at {out / 'contact_sheet.png'}")
    if made.quarantined:
        print(
            f"quarantined {counted(len(made.quarantined), 'DICOM file')}, named in "
            f"{out / 'quarantine.jsonl'}: {quarantine.remedy(made.quarantined)}"
        )
    print_refused(made.refused, out / "rejects.jsonl")
    if made.refused or made.quarantined:
        raise typer.Exit(EXIT_SOME_REJECTED)
