"""libfastmrigan is built once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from c_library import Library, build


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """The build folder, with the library and the C programs."""
    return build(tmp_path_factory.mktemp("c-library"))


@pytest.fixture(scope="session")
def library(built) -> Library:
    return Library(built)
