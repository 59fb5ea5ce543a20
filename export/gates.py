"""What a graph must reach before it becomes a model file."""

from __future__ import annotations

import math
from pathlib import Path

from fastmrigan.errors import CheckFailed, UsageError
from fastmrigan.export.parity import EngineParity, ParityReport

TOLERANCE = 1e-4  # max abs error in fp32, on the [-1, 1] scale; a uint8 grey level is 7.8e-3 wide
LARGEST_TOLERANCE = 0.1  # beyond it two engines need not show the same slice
# Least PSNR in dB, peak 2. Untrained generators reach 67 to 88 in fp16 and 18 less in bf16, which
# has three bits less; but ct-mri-cyclegan-resnet's, whose 41 instance norms amplify the rounding,
# 48 and 31. int8 is also held to LEAST_SSIM, both on held-out slices. On real slices fp32 has a
# floor as well: engines sum planes in single precision, where a flat background adds up the same
# rounding error 65,536 times, and instance norms amplify it. ResNet-9 reaches 71 to 84 dB in
# OpenVINO (2.7e-3 off at the worst pixel of T2 slices) and 90 to 99 in ONNX Runtime.
FLOORS = {"fp32": 60.0, "fp16": 45.0, "bf16": 40.0, "int8": 35.0}
LEAST_SSIM = 0.97


def check_tolerance(tolerance: float) -> None:
    """Raises UsageError for a tolerance that is no gate."""
    if not 0 <= tolerance <= LARGEST_TOLERANCE:  # written so that NaN fails
        raise UsageError(
            f"--tolerance {tolerance:g}: expected 0 to {LARGEST_TOLERANCE:g} on the [-1, 1] scale; "
            f"{TOLERANCE:g} is the usual one"
        )


def limits(report: ParityReport, tolerance: float) -> dict[str, float]:
    """What a graph is held to on these inputs, as its metadata states it."""
    if report.exact:
        return {"tolerance": tolerance}
    ssim = {"least_ssim": LEAST_SSIM} if report.precision == "int8" else {}
    return {"least_psnr_db": FLOORS[report.precision], **ssim}


def judge(out: Path, report: ParityReport, tolerance: float) -> None:
    """Raises CheckFailed where an engine that computes the graph as it is typed is too far from
    PyTorch; `out` is for the message."""
    worst = report.worst
    engine = f"{worst.backend} {worst.version} in {worst.precision}"
    if report.exact:
        if not report.max_abs_error <= tolerance:  # written so that NaN fails
            raise CheckFailed(
                f"{out}: not written, since {engine} is {report.max_abs_error:.3g} away from "
                f"{report.against} (tolerance {tolerance:g}, {report.slices} {report.kind}): "
                "report it with the recipe, or raise --tolerance knowingly"
            )
        return
    floor = FLOORS[report.precision]
    if not worst.psnr_db >= floor:
        raise CheckFailed(
            f"{out}: not written, since {engine} reaches {worst.psnr_db:.1f} dB of {floor:g} "
            f"against {report.against} ({report.slices} {report.kind}); {remedy(report.precision)}"
        )
    if report.precision == "int8":
        least = min(report.judged, key=_ssim)
        if not _ssim(least) >= LEAST_SSIM:
            raise CheckFailed(
                f"{out}: not written, since {least.backend} {least.version} in int8 has an SSIM of "
                f"{_ssim(least):.4f} ({LEAST_SSIM:g} wanted) against {report.against} "
                f"({report.slices} {report.kind}); {remedy('int8')}"
            )


def remedy(precision: str) -> str:
    return {
        "fp32": "report it with the recipe",
        "fp16": "take --precision bf16 or fp32",
        "bf16": "take --precision fp16 or fp32",
        "int8": "train longer, calibrate with more slices, or take --precision bf16",
    }[precision]


def _ssim(engine: EngineParity) -> float:
    """NaN, or none at all, is further than any number."""
    return -math.inf if engine.ssim is None or math.isnan(engine.ssim) else engine.ssim
