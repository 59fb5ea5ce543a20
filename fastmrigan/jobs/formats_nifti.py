"""Translated slices as NIfTI: one volume a source series."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from fastmrigan import __version__
from fastmrigan.errors import UsageError
from fastmrigan.imaging.dataset import SliceRecord
from fastmrigan.imaging.emit.nifti import Grid, grid, surroundings, volume_bytes
from fastmrigan.imaging.emit.places import position_of
from fastmrigan.imaging.grading import Grading, ungrade
from fastmrigan.imaging.quantise import to_float
from fastmrigan.jobs.formats_dicom import at_source_size
from fastmrigan.jobs.plan import Content, Origin, Shard

REMEDY = "leave --format out, or take dicom or png"


def series_shards(records: Sequence[SliceRecord], dataset: str) -> tuple[list[int], list[Shard]]:
    """Records ordered by series and by place in it: their indices, and a shard a series.

    records: N >= 1 of the data set `dataset` (named in errors). Raises UsageError where a slice
    has no place in a series, or the slices of a series make no even stack.
    """
    by_series: defaultdict[int, list[SliceRecord]] = defaultdict(list)
    for record in records:
        if record.series is None or record.position is None:
            raise UsageError(
                f"{dataset}: slice {record.index} has no known place in a series (its source is "
                f"{record.mode}), which NIfTI needs; {REMEDY}"
            )
        by_series[record.series].append(record)
    indices: list[int] = []
    shards = []
    for series, members in sorted(by_series.items()):
        if len({record.source_size for record in members}) > 1:
            raise UsageError(f"{dataset}: series {series}: its slices differ in size; {REMEDY}")
        try:
            stack = stack_of(members)
        except ValueError as error:
            raise UsageError(f"{dataset}: series {series}: {error}; {REMEDY}") from error
        shards.append(Shard(series, len(indices), len(members)))
        indices += [members[i].index for i in np.argsort(stack.places)]
    return indices, shards


def stack_of(records: Sequence[SliceRecord]) -> Grid:
    """Where the slices of one series lie. Raises ValueError where they make no even stack."""
    positions = [position for position in map(position_of, records) if position is not None]
    return grid(positions, [record.order for record in records])


def series_volume(content: Content, origin: Origin) -> bytes:
    """The .nii.gz of one series: float32 on the source's scale of grey.

    content: uint16 slices [n, H, W] as graded, of a shard as `series_shards` makes it. A header
    extension of kind "comment" holds the records of all slices as JSON.
    """
    assert origin.sources is not None
    records = [origin.sources.records[index] for index in content.indices]
    gradings = [Grading(r.grading.method, r.grading.low, r.grading.high) for r in records]
    made = np.stack(
        [
            ungrade(to_float(at_source_size(x.astype(np.uint16, copy=False), record)), grading)
            for x, record, grading in zip(content.slices, records, gradings, strict=True)
        ]
    )  # [N, H, W]
    note = {
        "software": f"FastMRIGAN {__version__}",
        "recipe": origin.recipe,
        "contrast": origin.contrast,
        "unit": "none: on the scale of grey of the source slices",
        "slices": [origin.record(index) for index in content.indices],
    }
    text = json.dumps(note, sort_keys=True)
    return volume_bytes(made, stack_of(records), blank=surroundings(made), note=text)
