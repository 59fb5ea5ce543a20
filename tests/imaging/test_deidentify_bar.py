"""De-identification over every readable file of pydicom's own test set and the real DICOM data.

The outcome is checked with readers of their own: the one below, dcmtk's dcmdump, and dciodvfy.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dicomanonymizer")

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table  # noqa: E402
from pydicom import Dataset, dcmread  # noqa: E402

from fastmrigan.imaging.deidentify import deidentify_file  # noqa: E402
from fastmrigan.imaging.deidentify_profile import Profile  # noqa: E402
from fastmrigan.imaging.walker import Refused  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # odd values are the point

LISTED = {tag[0] << 16 | tag[1] for tag in table.ALL_TAGS if len(tag) == 2}
REMOVED = {tag[0] << 16 | tag[1] for tag in table.X_TAGS if len(tag) == 2}
UIDS = {tag[0] << 16 | tag[1] for tag in table.U_TAGS}
DATES = {"DA": "19000101", "TM": "000000", "DT": "19000101000000"}
REFERENCES = {tag[0] << 16 | tag[1] for tag in table.X_Z_U_STAR_TAGS}
DUMMIES = {"0", "0.0", "1", "000000"}  # values that may have been a dummy before

POLICY = {
    0x0040_1006,
    0x0040_1007,
    0x0040_2006,
    0x0040_2007,
    0x0012_0062,
    0x0012_0063,
    0x0012_0064,
    0x0028_0303,
}

PACKAGE = Path(pydicom.__file__).parent / "data"
REAL = Path(
    os.environ.get("FASTMRIGAN_REAL_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)


@dataclass(frozen=True)
class Case:
    name: str
    before: Path
    after: Path


@dataclass(frozen=True)
class Outcome:
    cases: list[Case]
    refused: dict[str, str]


def sources() -> Iterator[tuple[str, Path]]:
    for folder in ("test_files", "charset_files"):
        for path in sorted((PACKAGE / folder).rglob("*")):
            yield f"pydicom/{path.relative_to(PACKAGE / folder)}", path
    for path in sorted((REAL / "dicom").rglob("*")):
        yield f"real/{path.relative_to(REAL / 'dicom')}", path


def readable(path: Path) -> bool:
    try:
        dcmread(path)
    except Exception:
        return False
    return True


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """All files de-identified under one salt."""
    folder = tmp_path_factory.mktemp("bar")
    profile = Profile(b"one salt for all of them")
    found = Outcome([], {})
    for number, (name, source) in enumerate(sources()):
        if not source.is_file():
            continue
        before, after = folder / f"{number}.before.dcm", folder / f"{number}.after.dcm"
        packed = source.read_bytes()
        before.write_bytes(gzip.decompress(packed) if source.suffix == ".gz" else packed)
        if not readable(before):
            continue
        try:
            after.write_bytes(deidentify_file(before, name, profile, "yes").content)
        except Refused as error:
            found.refused[name] = error.reason
        else:
            found.cases.append(Case(name, before, after))
    return found


Leaf = tuple[tuple[int, ...], str, str]  # tags and item numbers that lead there, VR, value


def leaves(dataset: Dataset, at: tuple[int, ...] = ()) -> Iterator[Leaf]:
    """Every value at every depth; what cannot be read as its VR is given as bytes."""
    for tag in sorted(dataset.keys()):
        try:
            element = dataset[tag]
            vr, value = element.VR, element.value
        except Exception:
            raw = dataset.get_item(tag)
            vr, value = str(raw.VR), raw.value
        if vr == "SQ":
            for number, item in enumerate(value):
                yield from leaves(item, (*at, int(tag), number))
            if not value:
                yield (*at, int(tag)), vr, ""
        else:
            yield (*at, int(tag)), vr, "" if value is None or len(str(value)) == 0 else str(value)


def is_leak(leaf: Leaf) -> bool:
    """Whether the table wants this value gone, itself or with the sequence that it lies in."""
    path, vr, value = leaf
    if not value or value in DUMMIES:
        return False
    if path[-1] in LISTED - REFERENCES:
        return True
    if not LISTED.intersection(path) - REFERENCES:
        return False
    return vr != "CS" and not pydicom.datadict.keyword_for_tag(path[-1]).endswith("ClassUID")


def dataset_and_meta(path: Path) -> Iterator[Leaf]:
    dataset = dcmread(path)
    yield from leaves(dataset.file_meta)
    yield from leaves(dataset)


def test_every_readable_file_is_written(outcome: Outcome) -> None:
    assert len(outcome.cases) > 150
    for name, reason in outcome.refused.items():
        assert re.search("a DICOMDIR|without SOP|NumberOfFrames is not", reason), (name, reason)


def test_nothing_of_the_table_is_left_unchanged_at_any_depth(outcome: Outcome) -> None:
    looked_at = 0
    for case in outcome.cases:
        before = {leaf for leaf in dataset_and_meta(case.before) if is_leak(leaf)}
        after = set(dataset_and_meta(case.after))
        assert before & after == set(), case.name
        assert not [path for path, _, _ in after if REMOVED.intersection(path)], case.name
        looked_at += len(before)
    assert looked_at > 2000


def test_dates_are_valid_and_uids_are_one_to_one_over_all_files(outcome: Outcome) -> None:
    uids: dict[str, str] = {}
    for case in outcome.cases:
        before = {path: value for path, _, value in leaves(dcmread(case.before))}
        for path, vr, value in leaves(dcmread(case.after)):
            if path[-1] in LISTED and vr in DATES:
                assert value in ("", DATES[vr]), (case.name, path, value)
            if path[-1] in UIDS and before.get(path):
                assert uids.setdefault(before[path], value) == value, (case.name, path)
                assert value != before[path]
    assert len(set(uids.values())) == len(uids) > 100


def test_all_else_is_kept(outcome: Outcome) -> None:
    looked_at = 0
    for case in outcome.cases:
        before = {leaf for leaf in leaves(dcmread(case.before)) if is_to_be_kept(leaf)}
        assert before <= set(leaves(dcmread(case.after))), case.name
        looked_at += len(before)
    assert looked_at > 5000


def is_to_be_kept(leaf: Leaf) -> bool:
    """Whether neither the table nor the policy asks for a change of this value."""
    path, vr, value = leaf
    tags = [tag for tag in path if tag > 0xFFFF]  # the others are numbers of items
    if LISTED.intersection(tags) or not value or vr in ("PN", "UI", "DA", "TM", "DT"):
        return False
    if vr in ("LT", "ST", "UC", "UR", "UT") and not 0x0008_0100 <= tags[-1] <= 0x0008_0123:
        return False
    if any(tag >> 16 & 1 or tag >> 24 in (0x50, 0x60) or not tag & 0xFFFF for tag in tags):
        return False
    return all(map(pydicom.datadict.dictionary_has_tag, tags)) and tags[-1] not in POLICY


def test_names_and_uids_are_nowhere_in_the_bytes(outcome: Outcome) -> None:
    looked_for = 0
    for case in outcome.cases:
        content = case.after.read_bytes()
        for tag, value in names_and_uids(dcmread(case.before)):
            if len(value) >= 8 and not value.startswith(b"1.2.840.10008."):
                assert value not in content, (case.name, tag, value)
                looked_for += 1
    assert looked_for > 500


def names_and_uids(dataset: Dataset) -> Iterator[tuple[int, bytes]]:
    """Listed person names and UIDs at every depth, in the bytes of the file."""
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if tag in LISTED and element.is_raw and element.value:
            if pydicom.datadict.dictionary_VR(tag) in ("UI", "PN"):
                yield int(tag), element.value.rstrip(b"\0 ")
        elif element.VR == "SQ":
            for item in dataset[tag].value:
                yield from names_and_uids(item)


def test_pixels_are_untouched(outcome: Outcome) -> None:
    for case in outcome.cases:
        before, after = dcmread(case.before), dcmread(case.after)
        for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
            assert before.get(keyword) == after.get(keyword), (case.name, keyword)


def test_dcmdump_finds_nothing_private_and_nothing_to_be_removed(outcome: Outcome) -> None:
    if shutil.which("dcmdump") is None:
        pytest.skip("no dcmdump; apt-get install dcmtk")
    assert len(dumped(outcome.cases[0].before)) > 20
    for case in outcome.cases:
        tags = dumped(case.after)
        assert not [t for t in tags if t >> 16 & 1], case.name
        assert not [t for t in tags if t >> 24 in (0x50, 0x60)], case.name
        assert tags.isdisjoint(REMOVED), case.name


def dumped(path: Path) -> set[int]:
    """The tags at all depths, as dcmtk reads them."""
    text = subprocess.run(["dcmdump", "-q", str(path)], capture_output=True, check=True).stdout
    found = re.findall(rb"^ *\(([0-9a-f]{4}),([0-9a-f]{4})\)", text, re.MULTILINE)
    return {int(g, 16) << 16 | int(e, 16) for g, e in found if g != b"fffe"}


def test_dciodvfy_finds_no_more_errors_than_before(outcome: Outcome) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy; apt-get install dicom3tools")
    paths = [path for case in outcome.cases for path in (case.before, case.after)]
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(paths, pool.map(errors, paths), strict=True))
    assert sum(len(found[case.before]) for case in outcome.cases) > 100
    for case in outcome.cases:
        before, after = found[case.before], found[case.after]
        assert len(after) <= len(before), (case.name, sorted(set(after) - set(before)))


def errors(path: Path) -> list[str]:
    run = subprocess.run(["dciodvfy", str(path)], capture_output=True, timeout=300)
    lines = (run.stdout + run.stderr).decode("latin-1").splitlines()
    return [line for line in lines if line.startswith("Error")]
