"""One storage SCP for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from recording_scp import Recorder, recording_scp


@pytest.fixture(scope="module")
def shared() -> Iterator[Recorder]:
    with recording_scp() as recorder:
        yield recorder


@pytest.fixture
def scp(shared: Recorder) -> Recorder:
    shared.reset()
    return shared
