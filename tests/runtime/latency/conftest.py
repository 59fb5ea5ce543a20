"""One short, real run of the bench, which its tests look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bench_model import write_model

from fastmrigan.runtime import latency
from fastmrigan.runtime.latency import BenchOptions


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "hand.onnx", "sample")


@pytest.fixture(scope="module")
def document(model: Path) -> dict[str, Any]:
    """One short bench of both CPU backends."""
    options = BenchOptions(
        backends=("openvino", "onnxruntime"),
        batches=(1, 3),
        seconds=0.2,
        rounds=2,
        threads=(1,),
        rates=(100.0,),
        cold_starts=1,
    )
    return latency.bench(model, options)
