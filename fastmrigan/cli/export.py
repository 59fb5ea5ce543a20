"""fastmrigan export: a run's generator to one .onnx model file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastmrigan.export.parity import EngineParity


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of `fastmrigan train`.")],
    out: Annotated[Path, typer.Option(help="Model file to write, ending in .onnx.")],
    step: Annotated[
        int | None,
        typer.Option(
            help="Checkpoint to take [default: the newest; run.json names the best one, where "
            "best_metric was set].",
            min=0,
        ),
    ] = None,
    ema: Annotated[
        bool, typer.Option("--ema/--no-ema", help="The averaged weights, or the last step's.")
    ] = True,
    back: Annotated[
        bool, typer.Option("--back", help="CycleGAN: the generator from target to source.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option(help="Largest error allowed against PyTorch, on the [-1, 1] scale.")
    ] = 1e-4,
    precision: Annotated[
        str,
        typer.Option(
            help="fp32, or what the graph is typed in: bf16, fp16 (instance-norm statistics stay "
            "in fp32) or int8 (calibrated by NNCF)."
        ),
    ] = "fp32",
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="Prepared dataset for int8: its training slices give the ranges, its held-out "
            "slices the verdict. A generator that samples is calibrated on latents instead.",
        ),
    ] = None,
    parity_data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="Prepared dataset on whose held-out slices a file that translates is checked too.",
        ),
    ] = None,
) -> None:
    """Write a run's generator as one .onnx model file, checked against PyTorch first.

    ONNX Runtime and OpenVINO must both agree with PyTorch within the tolerance at batches of 1, 3
    and 8, and of 64 where it samples; a file that fails is not written. One typed in another
    precision must then reach 45 dB (fp16), 40 dB (bf16), or 35 dB and an SSIM of 0.97 (int8), on
    every engine here that computes in it.
    """
    from fastmrigan.export.onnx import export_run

    made = export_run(
        run,
        out,
        step=step,
        ema=ema,
        back=back,
        tolerance=tolerance,
        precision=precision,
        calibration=calibration,
        parity_data=parity_data,
    )
    meta = made.metadata
    weights = "averaged (EMA) weights" if meta.training["ema"] else "last weights"
    print(
        f"{meta.recipe}, step {meta.training['step']:,}, {weights}, {made.parameters:,} parameters"
        f", {meta.precision}"
    )
    for report in (made.parity, made.real):
        if report is not None:
            print(f"difference from {report.against} over {report.slices} {report.kind}:")
            print(
                "\n".join(engine_line(engine, engine in report.judged) for engine in report.engines)
            )
    print(f"wrote {made.path} ({made.size / 1e6:.1f} MB, sha256 {made.sha256})")
    if meta.task == "sample":
        print(f"{meta.notice}; next: fastmrigan synth {made.path} --count 1000 --out slices")
    else:
        facts = meta.training_data
        label = (facts if back else facts.get("source", {})).get("label")
        which = f" --label {shlex.quote(label)}" if label else ""
        print(
            f"{meta.notice}; next: fastmrigan translate {made.path} --inputs DATA{which} "
            "--out slices"
        )


def engine_line(engine: EngineParity, judged: bool) -> str:
    ssim = "" if engine.ssim is None else f"  SSIM {engine.ssim:.4f}"
    return (
        f"  {engine.backend:<12} {engine.version:<10} {engine.precision}  "
        f"max abs error {engine.max_abs_error:.2e}  PSNR {engine.psnr_db:.1f} dB{ssim}"
        f"{'' if judged else '  (stated, not judged)'}"
    )
