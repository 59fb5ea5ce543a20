"""The slices of a shard as DICOM files.

Sampled slices: each is an axial slice of a head of its own. A run is a study of one invented
patient, a shard is a series, and a slice's number in the shard is its level, STEP_MM apart, so
that nothing overlaps in a viewer; the file says that neighbours show no common anatomy.

Translated slices: every source series is a series of its own, with the position, orientation and
spacing of the source in a new frame of reference, its size in pixels and its scale of grey. Slices
whose source has no known place (PNG, JPEG, …) are set out as sampled ones, a series a shard and
patient.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fastmrigan.imaging.dataset import SliceRecord
from fastmrigan.imaging.emit.dicom import SeriesWriter, SliceHeader, UInt16
from fastmrigan.imaging.emit.header import SeriesHeader
from fastmrigan.imaging.emit.places import STEP_MM, invented, position_of
from fastmrigan.imaging.geometry import unfit_square
from fastmrigan.imaging.position import SlicePosition
from fastmrigan.imaging.quantise import to_float, to_uint16
from fastmrigan.jobs.plan import Content, Origin, Parts, Shard

Numbered = Iterable[tuple[int, UInt16]]  # (index, stored values [H, W]) of slices

SAMPLED = (
    "Every slice was sampled by itself: slices of a series show no common anatomy. Position, "
    "orientation and spacing are invented."
)
TRANSLATED = (
    "Every slice was translated by itself from a slice of another contrast. The scale of grey is "
    "that of the source slice and no unit of this contrast."
)
INHERITED = "Position, orientation and spacing are those of the source slice."
INVENTED = "The source has no position, orientation or spacing: those given here are invented."


def dicom_files(content: Content, origin: Origin) -> Iterator[tuple[int, Parts]]:
    """(index, DICOM file in parts) of each slice of a shard, whose slices are uint16.

    Of translated slices, `origin.sources.records` must be there. Raises MissingDependency.
    """
    numbered = zip(content.indices, content.slices.astype(np.uint16, copy=False), strict=True)
    if origin.sources is None:
        return _sampled_files(content.shard, numbered, content.slices.shape[1:], origin)
    return _translated_files(content.shard, numbered, origin, origin.sources.records)


def _sampled_files(
    shard: Shard, numbered: Numbered, size: tuple[int, ...], origin: Origin
) -> Iterator[tuple[int, Parts]]:
    height, width = size
    writer = SeriesWriter(
        SeriesHeader(
            run=origin.run,
            series=f"shard {shard.number}",
            patient="",
            number=shard.number + 1,
            size=(height, width),
            geometry=_common(invented((height, width), 0)),
            model=origin.recipe,
            model_sha256=origin.model_sha256,
            contrast=origin.contrast,
            derivation=SAMPLED,
            step_mm=STEP_MM,
            patient_position="HFS",
        )
    )
    for index, stored in numbered:
        offset = index - shard.first
        place, note = invented((height, width), offset), comment(origin, index)
        slice = SliceHeader(index, offset + 1, place.origin, comment=note)
        yield index, writer.parts(slice, stored)


def _translated_files(
    shard: Shard, numbered: Numbered, origin: Origin, records: Sequence[SliceRecord]
) -> Iterator[tuple[int, Parts]]:
    writers: dict[SeriesHeader, SeriesWriter] = {}
    for index, stored in numbered:
        offset = index - shard.first
        record = records[index]
        place = position_of(record)
        if place is None:
            place = invented(record.source_size, offset)
            number, header = offset + 1, _set_out(origin, shard, record, place)
        else:
            number = 1 + (record.index if record.order is None else record.order)
            header = _inherited(origin, record, place)
        if header not in writers:
            writers[header] = SeriesWriter(header)
        scale, note = (record.grading.low, record.grading.high), comment(origin, index)
        slice = SliceHeader(index, number, place.origin, scale, note)
        yield index, writers[header].parts(slice, at_source_size(stored, record))


def comment(origin: Origin, index: int) -> str:
    """A slice's record, as shards of arrays have it beside them but for its source's name."""
    return json.dumps(origin.record(index), sort_keys=True)


def at_source_size(stored: UInt16, record: SliceRecord) -> UInt16:
    """A translated slice, uint16 [size, size], padding cut off and resized to its source's."""
    if stored.shape == record.source_size:
        return stored
    return to_uint16(unfit_square(to_float(stored), *record.source_size))


def _inherited(origin: Origin, record: SliceRecord, place: SlicePosition) -> SeriesHeader:
    """The series of a slice whose source has a place; alone in it where it had no series."""
    alone = record.series is None
    series = f"slice {record.source}" if alone else f"series {record.series}"
    step = record.tags.get("SpacingBetweenSlices")
    return SeriesHeader(
        run=origin.run,
        series=series,
        patient=record.group or series,
        number=1 + record.index if record.series is None else record.series,
        size=record.source_size,
        geometry=_common(place),
        model=origin.recipe,
        model_sha256=origin.model_sha256,
        contrast=origin.contrast,
        derivation=f"{TRANSLATED} {INHERITED}",
        step_mm=step if isinstance(step, float) and step > 0 else None,
        patient_position=str(record.tags.get("PatientPosition", "")),
    )


def _set_out(
    origin: Origin, shard: Shard, record: SliceRecord, place: SlicePosition
) -> SeriesHeader:
    """The series of a slice whose source has no place: with its patient's, of the same shard."""
    patient = record.group or "unknown"
    return SeriesHeader(
        run=origin.run,
        series=f"shard {shard.number} of {patient} at {record.source_size}",
        patient=patient,
        number=shard.number + 1,
        size=record.source_size,
        geometry=_common(place),
        model=origin.recipe,
        model_sha256=origin.model_sha256,
        contrast=origin.contrast,
        derivation=f"{TRANSLATED} {INVENTED}",
        patient_position="HFS",
    )


def _common(place: SlicePosition) -> SlicePosition:
    """A position without what is the slice's own, so that headers of one series are equal."""
    return SlicePosition((0.0, 0.0, 0.0), place.row, place.column, place.spacing, place.thickness)
