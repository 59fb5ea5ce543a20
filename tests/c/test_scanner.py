"""examples/scanner: built against the installed library, run on a stream of frames."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from c_library import ROOT, cmake, openvino_library
from c_library_models import SIDE, negative, translating, with_metadata

from fastmrigan.imaging.grading import Grading, grade, measure, parse_rule, ungrade

pytestmark = pytest.mark.slow

FMG_OK, FMG_ERROR_DEADLINE = 0, 10
RULE = "percentile:1:99"


@dataclass
class Result:
    frame: int
    code: int
    microseconds: int
    pixels: np.ndarray | None  # int16 [H, W]


def read_results(data: bytes) -> list[Result]:
    results = []
    while data:
        frame, _, microseconds, count = np.frombuffer(data[:16], np.uint32)
        code = int(np.frombuffer(data[4:8], np.int32)[0])
        end = 16 + 2 * int(count)
        pixels = np.frombuffer(data[16:end], np.int16).reshape(SIDE, SIDE) if count else None
        results.append(Result(int(frame), code, int(microseconds), pixels))
        data = data[end:]
    return results


@pytest.fixture(scope="module")
def programs(built, tmp_path_factory) -> Path:
    prefix, folder = tmp_path_factory.mktemp("prefix"), tmp_path_factory.mktemp("scanner")
    cmake("--install", built, "--prefix", prefix)
    source = ROOT / "examples" / "scanner"
    cmake("-S", source, "-B", folder, f"-DCMAKE_PREFIX_PATH={prefix}")
    cmake("--build", folder)
    return folder


@pytest.fixture
def model(tmp_path) -> Path:
    path = tmp_path / "negative.onnx"
    document = translating(grading=parse_rule(RULE).as_dict())
    path.write_bytes(with_metadata(negative(), document))
    return path


def frames(n: int) -> np.ndarray:
    """int16 [n, SIDE, SIDE]"""
    return np.random.default_rng(0).gamma(2.0, 150.0, (n, SIDE, SIDE)).astype(np.int16)


def expected(x: np.ndarray, range_: Grading) -> np.ndarray:
    y = ungrade(-grade(x.astype(np.float32), range_), range_)
    return np.rint(y).astype(np.int16)


def run(*command: object, data: bytes) -> tuple[int, list[Result], str]:
    done = subprocess.run(list(map(str, command)), input=data, capture_output=True, timeout=300)
    return done.returncode, read_results(done.stdout), done.stderr.decode()


def test_stream(programs, model):
    x = frames(12)
    command = (programs / "translate_stream", model, openvino_library(), 0, 900, 10_000)
    status, results, _ = run(*command, data=x.tobytes())
    assert status == 0
    assert [(r.frame, r.code) for r in results] == [(i, FMG_OK) for i in range(12)]
    for result, frame in zip(results, x, strict=True):
        np.testing.assert_array_equal(result.pixels, expected(frame, Grading("window", 0, 900)))


@pytest.mark.parametrize("workers", [1, 3])
def test_series(programs, model, workers):
    x = frames(40)
    command = (programs / "translate_series", model, openvino_library(), workers, 10_000)
    status, results, _ = run(*command, data=x.tobytes())
    assert status == 0
    assert [(r.frame, r.code) for r in results] == [(i, FMG_OK) for i in range(40)]
    found = measure(x[:1].astype(np.float32), parse_rule(RULE))
    for result, frame in zip(results, x, strict=True):
        np.testing.assert_array_equal(result.pixels, expected(frame, found))


@pytest.mark.parametrize("program", ["translate_stream", "translate_series"])
def test_late_frames_have_no_pixels(programs, model, program):
    more = (0, 900, 0.001) if program == "translate_stream" else (1, 0.001)
    command = (programs / program, model, openvino_library(), *more)
    status, results, said = run(*command, data=frames(3).tobytes())
    assert status == 3
    assert [(r.frame, r.code) for r in results] == [(i, FMG_ERROR_DEADLINE) for i in range(3)]
    assert all(result.pixels is None for result in results)
    assert "frame 2: " in said
    assert "deadline" in said


@pytest.mark.parametrize("program", ["translate_stream", "translate_series"])
def test_what_cannot_be_done_is_said(programs, model, tmp_path, program):
    more = (0, 900, 1000) if program == "translate_stream" else (1, 1000)
    status, results, said = run(programs / program, data=b"")
    assert (status, results) == (2, [])
    assert said.startswith("usage: ")
    command = (programs / program, tmp_path / "absent.onnx", "-", *more)
    status, results, said = run(*command, data=b"")
    assert (status, results) == (5, [])
    assert "absent.onnx: cannot read the model file" in said
    command = (programs / program, model, openvino_library(), *more)
    status, results, said = run(*command, data=frames(2).tobytes()[:-10])
    assert len(results) == 1
    assert "the last frame is cut off" in said
    assert status == 3
