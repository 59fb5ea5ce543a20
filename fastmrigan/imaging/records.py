"""What dataset.json and index.jsonl say, field by field.

Schema 2 added the series, position, contrast and technical tags of each slice, label maps, notes
and the checksum of dataset.json; sets of schema 1 are read as they are.
"""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict, Field

from fastmrigan.imaging.position import SlicePosition
from fastmrigan.imaging.split import Side, Unit

SCHEMA = 2

Vector = tuple[float, float, float]


class SplitInfo(BaseModel):
    model_config = ConfigDict(extra="forbid")

    by: Unit
    seed: int
    test_fraction: float  # as asked for; the counts are what came of it
    counts: dict[Side, int]


class DatasetInfo(BaseModel):
    """dataset.json"""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_version: int = Field(default=SCHEMA, alias="schema")
    count: int
    size: tuple[int, int]  # [H, W]
    grading: dict[str, str | float]  # the rule; each slice's own range is in the index
    labels: dict[str, int]  # slices of each label
    split: SplitInfo
    contrast: str  # of all slices; "unknown" where they differ, each has its own in the index
    target_contrast: str | None  # of paired sets
    paired: bool
    label_maps: bool = False  # whether there is a labels.npy
    notes: list[str] = []  # what is odd about series, by their numbers
    request: str  # sha256 of the options and the list of source files
    fingerprint: str  # sha256 of index.jsonl, slices.npy, targets.npy and labels.npy
    version: str  # of the fastmrigan that wrote it
    checksum: str | None = None  # sha256 of all of the above

    def sealed(self) -> DatasetInfo:
        """The same with its checksum."""
        bare = self.model_copy(update={"checksum": None})
        text = bare.model_dump_json(by_alias=True)
        return self.model_copy(update={"checksum": hashlib.sha256(text.encode()).hexdigest()})


class SliceGrading(BaseModel):
    model_config = ConfigDict(extra="forbid")

    method: str
    low: float  # the source's own unit
    high: float


class RecordedPosition(BaseModel):
    """position.SlicePosition of a slice of `source_size` pixels: LPS, mm."""

    model_config = ConfigDict(extra="forbid")

    origin: Vector  # the centre of pixel [0, 0]
    row: Vector  # unit vector to the next column
    column: Vector  # unit vector to the next row
    spacing: tuple[float, float]  # between rows, between columns
    thickness: float | None = None

    def slice_position(self) -> SlicePosition:
        return SlicePosition(self.origin, self.row, self.column, self.spacing, self.thickness)


class SliceRecord(BaseModel):
    """One line of index.jsonl. No name, number or date that could tell who was imaged."""

    model_config = ConfigDict(extra="forbid")

    index: int
    source: str  # 16 hex digits: the source's relative name under a key that is kept nowhere
    label: str
    source_size: tuple[int, int]  # [H, W] before padding and resizing, but after --isotropic
    mode: str  # the source's format and pixel type
    group: str | None  # patient, numbered in order of appearance
    exact_group: int | None
    near_group: int | None
    split: Side
    grading: SliceGrading
    target_grading: SliceGrading | None = None  # of paired sets
    series: int | None = None  # volume or DICOM series, numbered in order of appearance
    order: int | None = None  # place in it along the normal, empty slices counted
    position: RecordedPosition | None = None
    contrast: str | None = None  # one of options.CONTRASTS
    tags: dict[str, str | float] = {}  # technical, from an allow-list
