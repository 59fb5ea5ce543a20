"""Fixtures every room's tests share."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # a GPU machine may have no onnx; tests that need none must still be collected
    import onnx

ROOT = Path(__file__).parents[1]
REAL_DATA = Path(os.environ.get("FASTMRIGAN_REAL_DATA", ROOT.parent / "shared" / "data"))

# Processes that the tests start must find the installed package, not the folder they start in.
os.environ["PYTHONSAFEPATH"] = "1"


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """real_data("yesno-253/yes") is that folder of real slices, or the test skips."""

    def find(name: str) -> Path:
        folder = REAL_DATA / name
        if not folder.exists():
            pytest.skip(f"real data absent: {folder} (point FASTMRIGAN_REAL_DATA at a copy)")
        return folder

    return find


@pytest.fixture
def fastmrigan() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line as a user would: in a process of its own, output captured."""

    def run(*arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fastmrigan", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout)

    return run


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """write_model(document, graph=…) writes a model file; document None leaves metadata out."""
    from tiny_model import metadata, tiny_graph

    def write(
        document: object = "default",
        graph: onnx.ModelProto | None = None,
        name: str = "tiny.onnx",
    ) -> Path:
        model = graph or tiny_graph()
        if document is not None:
            entry = model.metadata_props.add()
            entry.key = "fastmrigan"
            text = metadata() if document == "default" else document
            if isinstance(text, dict) and "graph_sha256" in text:
                text["graph_sha256"] = sha256_without_metadata(model)
            entry.value = text if isinstance(text, str) else json.dumps(text)
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return path

    return write


def sha256_without_metadata(model: onnx.ModelProto) -> str:
    """What metadata calls graph_sha256, by the onnx package's own serialiser."""
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    return hashlib.sha256(bare.SerializeToString()).hexdigest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not cuda_device():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def cuda_device() -> bool:
    import torch

    return torch.cuda.is_available()
