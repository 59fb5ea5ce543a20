"""Phantom slices to a folder: one file a slice and contrast, its maps, and a manifest.

    DIR/<contrast>/<tumour|normal>/head0003_slice07.png   the slice
    DIR/tissue/<tumour|normal>/head0003_slice07.png       its tissue map, values of Tissue
    DIR/tumour_mask/<tumour|normal>/head0003_slice07.png  255 where the tumour is
    DIR/manifest.csv                                      one row a slice, written last
    DIR/phantom.json                                      the settings, written first

The same stem in every folder is the same anatomy: the contrasts are registered twins.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fastmrigan.errors import UsageError
from fastmrigan.files import write_whole
from fastmrigan.imaging.phantom.formats import (
    EXTENSIONS,
    SliceInfo,
    dicom_bytes,
    nifti_bytes,
    png_bytes,
    stored,
)
from fastmrigan.imaging.phantom.slices import PhantomBatch, PhantomSettings, phantom_batches
from fastmrigan.progress import Progress

SETTINGS_FILE, MANIFEST_FILE = "phantom.json", "manifest.csv"
COLUMNS = ("stem", "head", "slice", "label", "tumour_area_mm2", "pixel_mm", "level_mm", "seed")


def write_phantom(
    out: Path,
    count: int,
    settings: PhantomSettings,
    *,
    file_format: str = "png",
) -> int:
    """Writes slices 0 .. count - 1 under `out`, showing progress; returns the number of files.

    Files are 16-bit grey PNG (MR round(signal * 65535), CT HU + 1024), gzipped NIfTI (MR float32
    in [0, 1], CT int16 HU) or DICOM (the numbers of PNG). Maps are 8-bit PNG, in NIfTI uint8
    volumes. The same settings over an earlier, even unfinished, run write the same files again.
    Raises UsageError where `out` is not empty and was not made with these settings, or cannot be
    written; MissingDependency where nibabel or pydicom is needed and absent.
    """
    if file_format not in EXTENSIONS:
        raise UsageError(
            f"phantom: unknown format {file_format!r}, expected one of {', '.join(EXTENSIONS)}"
        )
    batches = phantom_batches(count, settings)
    request = json.dumps(
        {"schema": 1, "count": count, "format": file_format, **asdict(settings)}, indent=2
    )
    _open_folder(out, request + "\n")
    rows: list[tuple[object, ...]] = []
    files = 0
    with Progress("phantom", count, "slices") as progress:
        for batch in batches:
            for n in range(len(batch)):
                rows.append(_row(batch, n, settings.seed))
                files += _write_slice(out, batch, n, file_format, request)
                progress.advance()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    _write(out / MANIFEST_FILE, text.getvalue().encode())
    return files


def _open_folder(out: Path, request: str) -> None:
    """Makes `out`, or checks that it was made for the same request."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        kept = out / SETTINGS_FILE
        if any(out.iterdir()):
            if not kept.is_file() or kept.read_bytes() != request.encode():
                raise UsageError(
                    f"{out}: not empty, and not made with these settings; "
                    "choose another --out or empty it"
                )
            (out / MANIFEST_FILE).unlink(missing_ok=True)
        _write(kept, request.encode())
    except FileExistsError:
        raise UsageError(f"{out}: is a file; --out must name a folder") from None
    except (PermissionError, NotADirectoryError, FileNotFoundError) as error:
        raise UsageError(
            f"{out}: cannot be written ({error.strerror}); choose another --out"
        ) from None


def _row(batch: PhantomBatch, n: int, seed: int) -> tuple[object, ...]:
    area = int(batch.tumour_mask[n].sum()) * batch.pixel_mm**2
    head, number = int(batch.head[n]), int(batch.slice[n])
    return (
        _stem(head, number),
        head,
        number,
        batch.label[n],
        f"{area:.1f}",
        f"{batch.pixel_mm:.6g}",
        f"{batch.level_mm[n]:.2f}",
        seed,
    )


def _stem(head: int, number: int) -> str:
    return f"head{head:04d}_slice{number:02d}"


def _write_slice(out: Path, batch: PhantomBatch, n: int, file_format: str, request: str) -> int:
    """The files of slice `n` of the batch; returns how many."""
    head, number, label = int(batch.head[n]), int(batch.slice[n]), batch.label[n]
    stem = _stem(head, number)
    digest = hashlib.sha256(request.encode()).hexdigest()
    maps = {"tissue": batch.tissue[n], "tumour_mask": batch.tumour_mask[n] * np.uint8(255)}
    for name in (*batch.signals, *maps):
        info = SliceInfo(digest, name, head, number, float(batch.level_mm[n]), batch.pixel_mm)
        extension = EXTENSIONS[file_format]
        if name in maps:
            content = png_bytes(maps[name])
            if file_format == "nifti":
                content = nifti_bytes(maps[name], info)
            else:
                extension = EXTENSIONS["png"]
        elif file_format == "png":
            content = png_bytes(stored(batch.signals[name][n], name))
        elif file_format == "nifti":
            signal = batch.signals[name][n]
            whole = np.rint(signal).astype(np.int16) if name == "ct" else signal
            content = nifti_bytes(whole, info)
        else:
            content = dicom_bytes(batch.signals[name][n], info)
        _write(out / name / label / (stem + extension), content)
    return len(batch.signals) + len(maps)


def _write(path: Path, content: bytes) -> None:
    """Puts `content` at `path` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content, sync=False)
