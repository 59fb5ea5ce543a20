"""The package as it is installed."""

from __future__ import annotations

import os
import re
from importlib.metadata import metadata, version
from pathlib import Path

import pytest

import fastmrigan

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif("FASTMRIGAN_EXPECT_WHEEL" not in os.environ, reason="not run by make")
def test_it_is_the_wheel_that_is_tested():
    assert ROOT / "fastmrigan" not in Path(fastmrigan.__file__).parents
    assert "site-packages" in fastmrigan.__file__


def test_version_and_licence_are_stated_once_and_agree():
    assert version("fastmrigan") == fastmrigan.__version__
    assert metadata("fastmrigan")["License-Expression"] == "Apache-2.0"


def test_the_base_install_has_no_torch():
    needs = metadata("fastmrigan").get_all("Requires-Dist")
    base = {re.match(r"[\w-]+", need)[0].lower() for need in needs if "extra ==" not in need}
    assert base == {
        *("nanobind-backend", "numpy", "openvino", "pillow"),
        *("pydantic", "pyyaml", "rich", "typer"),
    }
