"""Jobs for workers, faults to give them, and what each test must leave behind: nobody."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from PIL import Image
from worker_jobs import INPUTS, children, command_of, with_threads

from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.jobs import process
from fastmrigan.jobs.output import Output
from fastmrigan.jobs.spec import Engine, JobSpec, Sampled, Translated


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """No test waits for its workers without end."""

    def late(*_: object) -> None:
        raise TimeoutError("the job has come to no end")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def fault(monkeypatch) -> Callable[..., None]:
    """fault(KIND, ARGUMENT) gives every worker that fault; `job_worker.py` lists them."""

    def have(kind: str, argument: object = "") -> None:
        monkeypatch.setattr(process, "COMMAND", command_of(kind, argument))

    return have


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A prepared dataset of 37 slices of noise."""
    folder = tmp_path_factory.mktemp("data")
    dice = np.random.default_rng(0)
    (folder / "png").mkdir()
    for number in range(INPUTS):
        x = dice.integers(0, 256, (tiny.SIZE, tiny.SIZE), dtype=np.uint8)
        Image.fromarray(x).save(folder / "png" / f"{number:02}.png")
    prepare(folder / "png", folder / "set", PrepareOptions(size=tiny.SIZE, contrast="t1", label=""))
    return folder / "set"


@pytest.fixture
def translated(write_model, data, tmp_path) -> Callable[..., JobSpec]:
    """translated(OUT) makes negatives, in 5 shards of 8 slices, two calls each."""
    document = tiny.metadata(task="translate", latent_size=None, source_contrast="t1")
    engine = Engine(write_model(document, tiny.tiny_graph("translate"), "n.onnx"), "auto", "fp32")

    def spec(out: str, inputs: Path = data, format: str = "shard") -> JobSpec:
        output = Output(tmp_path / out, format, 8)
        return JobSpec(with_threads(engine, batch=4), Translated(inputs), output)

    return spec


@pytest.fixture
def sampled(write_model, tmp_path) -> Callable[..., JobSpec]:
    """sampled(OUT, COUNT) makes shards of 16 slices, two calls each."""
    engine = with_threads(Engine(write_model(), "auto", "fp32"), batch=8)

    def spec(out: str, count: int = 100) -> JobSpec:
        return JobSpec(engine, Sampled(count, 7), Output(tmp_path / out, "shard", 16))

    return spec


@pytest.fixture(autouse=True)
def nobody_left() -> Iterator[None]:
    yield
    assert children(os.getpid()) == []
