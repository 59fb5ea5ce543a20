"""The figures of the parity check, against scikit-image and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from fastmrigan.export.parity import EngineParity, ParityReport, difference, random_inputs
from fastmrigan.runtime.model_file import EngineFigures


@pytest.mark.parametrize("noise", [1e-6, 1e-3, 0.3])
def test_difference_agrees_with_scikit_image(noise: float) -> None:
    rng = np.random.default_rng(1)
    expected = [rng.uniform(-1, 1, (n, 1, 8, 8)).astype(np.float32) for n in (1, 3, 8)]
    got = [x + rng.normal(0, noise, x.shape).astype(np.float32) for x in expected]
    worst, psnr = difference(expected, got)
    flat, flat_got = (np.concatenate(x).astype(np.float64) for x in (expected, got))
    assert worst == np.abs(flat - flat_got).max()
    assert psnr == pytest.approx(peak_signal_noise_ratio(flat, flat_got, data_range=2.0))


def test_identical_arrays_score_the_cap_and_nan_is_kept() -> None:
    x = [np.zeros((2, 1, 4, 4), np.float32)]
    assert difference(x, x) == (0.0, 200.0)
    broken = x[0].copy()
    broken[1, 0, 2, 2] = np.nan
    assert all(math.isnan(v) for v in difference(x, [broken]))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"shapes \(1, 2\) and \(2, 1\) differ"):
        difference([np.zeros((1, 2), np.float32)], [np.zeros((2, 1), np.float32)])


@pytest.mark.parametrize(("task", "low"), [("sample", -6.0), ("translate", -1.0)])
def test_random_inputs(task: str, low: float) -> None:
    inputs = random_inputs(task, (5,), (1, 300), seed=3)
    assert [x.shape for x in inputs] == [(1, 5), (300, 5)]
    assert all(x.dtype == np.float32 for x in inputs)
    assert low <= inputs[1].min() < -0.9
    assert np.array_equal(inputs[1], random_inputs(task, (5,), (1, 300), seed=3)[1])


def engine(backend: str, precision: str, error: float) -> EngineParity:
    return EngineParity(backend, "1.0", precision, "CPU", error, 60.04)


def test_report_judges_fp32_alone() -> None:
    engines = (engine("onnxruntime", "fp32", 1.234e-6), engine("openvino", "bf16", 0.02))
    report = ParityReport("PyTorch", (1, 3), engines)
    assert report.max_abs_error == 1.234e-6
    assert report.as_metadata({"tolerance": 1e-4}) == {
        "max_abs_error": 1.2e-6,
        "tolerance": 1e-4,
        "slices": 4,
        "batches": [1, 3],
        "against": "PyTorch",
        "onnxruntime": {
            "version": "1.0",
            "device": "CPU",
            "max_abs_error": 1.2e-6,
            "psnr_db": 60.0,
        },
        "openvino-bf16": {
            "version": "1.0",
            "device": "CPU",
            "max_abs_error": 0.02,
            "psnr_db": 60.0,
        },
    }


def test_nan_of_one_engine_is_not_lost_behind_another() -> None:
    engines = (engine("onnxruntime", "fp32", 1e-6), engine("openvino", "fp32", math.nan))
    report = ParityReport("PyTorch", (1,), engines)
    assert math.isnan(report.max_abs_error)
    record = engines[1].as_metadata()
    assert "max_abs_error" not in record
    assert EngineFigures.model_validate(record).psnr_db < -100  # further away than any other
