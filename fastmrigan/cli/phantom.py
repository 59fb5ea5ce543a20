"""`fastmrigan phantom`: synthetic head slices with known truth, from nothing but a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastmrigan.progress import counted


def phantom(
    count: Annotated[int, typer.Option(help="How many slices.")],
    out: Annotated[
        Path, typer.Option(help="Folder to fill; must be new, empty or this job's own.")
    ],
    size: Annotated[int, typer.Option(help="Side of a slice in pixels, 32 to 1024.")] = 64,
    contrast: Annotated[
        str,
        typer.Option(help="One or more of t1, t2, pd, flair, ct, with commas: registered twins."),
    ] = "t2",
    tumour: Annotated[float, typer.Option(help="Fraction of slices with a tumour, 0 to 1.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Slice i depends on the settings, seed and i.")] = 0,
    format: Annotated[str, typer.Option(help="png (16 bit), nifti or dicom.")] = "png",
    noise: Annotated[
        float, typer.Option(help="Sigma of the Rician noise as a share of full signal.")
    ] = 0.02,
    bias: Annotated[float, typer.Option(help="Range of the MR bias field; 0.2 is 20 %.")] = 0.2,
) -> None:
    """Make phantom brain slices, each with its tissue map, tumour mask and twins."""
    from fastmrigan.imaging.phantom.slices import PhantomSettings
    from fastmrigan.imaging.phantom.writer import write_phantom

    contrasts = tuple(name.strip() for name in contrast.split(",") if name.strip())
    settings = PhantomSettings(size, contrasts, tumour, seed, noise, bias)
    files = write_phantom(out, count, settings, file_format=format)
    print(
        f"{out}: {counted(count, 'slice')} of {size}x{size} in {', '.join(contrasts)}, with tissue "
        f"maps and tumour masks ({counted(files, 'file')}), listed in manifest.csv"
    )
