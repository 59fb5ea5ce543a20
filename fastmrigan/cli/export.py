"""fastmrigan export: a run's generator to one .onnx model file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


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
) -> None:
    """Write a run's generator as one .onnx model file, checked against PyTorch first.

    ONNX Runtime and OpenVINO must both agree with PyTorch within the tolerance at batches of 1, 3
    and 8, and of 64 where it samples; a file that fails is not written.
    """
    from fastmrigan.export.onnx import export_run

    made = export_run(run, out, step=step, ema=ema, back=back, tolerance=tolerance)
    meta, parity = made.metadata, made.parity
    weights = "averaged (EMA) weights" if meta.training["ema"] else "last weights"
    print(
        f"{meta.recipe}, step {meta.training['step']:,}, {weights}, {made.parameters:,} parameters"
    )
    print(f"difference from {parity.against} over {parity.slices} random slices:")
    for engine in parity.engines:
        judged = "" if engine.precision == "fp32" else "  (stated, not judged)"
        print(
            f"  {engine.backend:<12} {engine.version:<10} {engine.precision}  "
            f"max abs error {engine.max_abs_error:.2e}  PSNR {engine.psnr_db:.1f} dB{judged}"
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
