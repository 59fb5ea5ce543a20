"""Every hostile file by itself, through the pool: refused by name and reason, at a bounded cost."""

from __future__ import annotations

import re
from collections.abc import Iterator

import hostile_archives
import hostile_dicom
import hostile_pictures
import hostile_volumes
import pytest
from measured import Cost, measured_open, measured_read

from fastmrigan.imaging.pool import DecodePool
from fastmrigan.imaging.walker import Refused

KINDS = (hostile_dicom, hostile_pictures, hostile_volumes)
HOSTILE = {name: made for kind in KINDS for name, made in kind.HOSTILE.items()}
ODD = {name: make for kind in KINDS for name, make in kind.ODD.items()}
GOOD = {name: make for kind in KINDS for name, make in kind.GOOD.items()}

MAX_SECONDS = 2.0  # of processor time, as in a quiet hour
PATIENCE = 5 * MAX_SECONDS  # until the pool ends it: that clock runs faster on cores of others
MAX_BYTES = 1 << 30

Outcome = Cost | Refused


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) + len(hostile_archives.HOSTILE) >= 40


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """What came of each file, one after the other in one worker that is replaced as it dies."""
    folder = tmp_path_factory.mktemp("hostile")
    makers = {name: make for name, (make, _) in HOSTILE.items()} | ODD | GOOD
    for name, make in makers.items():
        (folder / name).write_bytes(make())
    tasks = [(name, (folder / name, name)) for name in makers]
    with DecodePool(measured_read, workers=1, seconds=PATIENCE, memory=MAX_BYTES) as pool:
        yield dict(zip(makers, pool.run(tasks), strict=True))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """What came of each archive."""
    folder = tmp_path_factory.mktemp("archives")
    (folder / "scratch").mkdir()
    archives = {name: made[0] for name, made in hostile_archives.HOSTILE.items()}
    archives |= {name: made[0] for name, made in hostile_archives.GOOD.items()}
    for name, make in archives.items():
        (folder / name).write_bytes(make())
    tasks = [(name, (folder / name, folder / "scratch")) for name in archives]
    with DecodePool(measured_open, workers=1, seconds=MAX_SECONDS, memory=MAX_BYTES) as pool:
        yield dict(zip(archives, pool.run(tasks), strict=True))
    assert list((folder / "scratch").iterdir()) == []
    assert {path.name for path in folder.iterdir()} == {"scratch", *archives}


def refusal(outcome: Outcome, name: str) -> str:
    """The one reason for which a file was refused, after looking at what it cost."""
    if isinstance(outcome, Refused):  # by the pool, which ended the worker in time
        assert outcome.name == name
        assert "crashed" not in outcome.reason
        return outcome.reason
    cheap(outcome)
    assert outcome.read == {}
    ((refused, reason),) = outcome.refused
    assert refused == name
    return reason


def cheap(cost: Cost) -> None:
    assert cost.seconds < MAX_SECONDS
    assert cost.resident < MAX_BYTES


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_by_name_and_reason(outcomes: dict[str, Outcome], name: str) -> None:
    reason = refusal(outcomes[name], name)
    assert re.search(HOSTILE[name][1], reason), reason
    assert 5 < len(reason) < 300
    assert reason.isprintable()  # one line, no escapes
    assert "DOE" not in reason


@pytest.mark.parametrize("name", ODD)
def test_odd_files_do_no_harm(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    assert isinstance(outcome, Cost), outcome
    cheap(outcome)
    assert len(outcome.refused) + len(outcome.read) == 1


@pytest.mark.parametrize("name", GOOD)
def test_good_files_beside_them_are_read(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    assert isinstance(outcome, Cost), outcome
    assert outcome.refused == []
    assert outcome.read == {name: (18, 20, 24) if ".nii" in name else (1, 32, 40)}


@pytest.mark.parametrize("name", hostile_archives.HOSTILE)
def test_archives_are_refused_by_name_and_reason(opened: dict[str, Outcome], name: str) -> None:
    _, member, expected = hostile_archives.HOSTILE[name]
    outcome = opened[name]
    assert isinstance(outcome, Cost), outcome
    cheap(outcome)
    assert outcome.read == {}
    assert {refused for refused, _ in outcome.refused} <= {name, member}
    reason = dict(outcome.refused)[member or name]
    assert re.search(expected, reason), reason
    assert reason.isprintable()


@pytest.mark.parametrize("name", hostile_archives.GOOD)
def test_good_archives_give_their_images(opened: dict[str, Outcome], name: str) -> None:
    outcome = opened[name]
    assert isinstance(outcome, Cost), outcome
    cheap(outcome)
    assert outcome.read == hostile_archives.GOOD[name][1]
    assert outcome.refused == []
