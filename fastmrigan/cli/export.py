"""fastmrigan export: a run's generator to one .onnx model file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastmrigan.export.parity import EngineParity


BUCKETS = "1,4,8,16,32"


def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Run folder of `fastmrigan train`; with --engine, a model file."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="File to write: a model file (.onnx), or an engine (.engine).")
    ],
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
    engine: Annotated[
        str | None,
        typer.Option(
            help="Build an engine of a model file: tensorrt (on its GPU) or tensorrt-rtx."
        ),
    ] = None,
    buckets: Annotated[
        str, typer.Option(help="With --engine: batch sizes, an optimisation profile each.")
    ] = BUCKETS,
    compute_capability: Annotated[
        str | None,
        typer.Option(help="With --engine tensorrt-rtx: e.g. 8.9 [default: this machine's GPU]."),
    ] = None,
    version_compatible: Annotated[
        bool,
        typer.Option("--version-compatible", help="With --engine: later versions may load it."),
    ] = False,
    timing_cache: Annotated[
        Path | None, typer.Option(help="With --engine: read where it exists, then written.")
    ] = None,
    plugin: Annotated[
        bool,
        typer.Option(
            "--plugin",
            help="With --engine: instance norm and its activation by our TensorRT plugin.",
        ),
    ] = False,
) -> None:
    """Write a run's generator as one .onnx model file, checked against PyTorch first.

    ONNX Runtime and OpenVINO must both agree with PyTorch within the tolerance at batches of 1, 3
    and 8, and of 64 where it samples; a file that fails is not written. One typed in another
    precision must then reach 45 dB (fp16), 40 dB (bf16), or 35 dB and an SSIM of 0.97 (int8), on
    every engine here that computes in it. On real slices (--parity-data) fp32 must reach 60 dB,
    since their flat background adds up rounding errors. With --engine, build a TensorRT engine of a
    model file, with a sidecar (.engine.json) that says what it is.
    """
    if engine is not None:
        from fastmrigan.cli.bench import numbers
        from fastmrigan.errors import UsageError
        from fastmrigan.export.tensorrt import EngineOptions, build_engine, sidecar_path
        from fastmrigan.runtime.tensorrt_plugin import plugin_library

        of_runs = (step, calibration, parity_data) != (None,) * 3 or precision != "fp32"
        if of_runs or back or not ema:
            raise UsageError(
                "export: --step, --back, --no-ema, --precision, --calibration and --parity-data "
                f"are for a run, and --engine builds from a model file: export {run} to one first"
            )
        options = EngineOptions(
            engine,
            numbers("--buckets", buckets),
            compute_capability,
            version_compatible,
            timing_cache,
            plugin_library("export --plugin") if plugin else None,
        )
        built = build_engine(run, out, options)
        print(
            f"{built['model']['recipe']}, {built['precision']}, by {built['package']} "
            f"{built['version']} for compute capability {built['compute_capability']}, batches "
            f"{', '.join(map(str, built['buckets']))}; built, not run"
        )
        if "plugin" in built:
            norms, library = built["plugin"]["instance_norms"], built["plugin"]["library"]
            print(f"{norms} instance norms by {library}, which must be loaded before the engine")
        print(f"wrote {out} ({built['size'] / 1e6:.1f} MB) and {sidecar_path(out)}")
        return
    of_engines = {
        "--buckets": buckets != BUCKETS,
        "--compute-capability": compute_capability is not None,
        "--version-compatible": version_compatible,
        "--timing-cache": timing_cache is not None,
        "--plugin": plugin,
        f"--out {out}": out.suffix == ".engine",
    }
    for option, given in of_engines.items():
        if given:
            from fastmrigan.errors import UsageError

            raise UsageError(
                f"export {option} is for engines: export the run to a model file (.onnx) first, "
                "then that with --engine tensorrt or tensorrt-rtx"
            )
    from fastmrigan.cli.info import rewrites
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
    print(f"rewrites: {rewrites(meta)}" + (f"; left out {made.left_out}" if made.left_out else ""))
    for report in (made.parity, made.real):
        if report is not None:
            print(f"difference from {report.against} over {report.slices} {report.kind}:")
            print(
                "\n".join(engine_line(engine, engine in report.judged) for engine in report.engines)
            )
    print(f"wrote {made.path} ({made.size / 1e6:.1f} MB, sha256 {made.sha256})")
    path = shlex.quote(str(made.path))
    if meta.task == "sample":
        print(f"{meta.notice}; next: fastmrigan synth {path} --count 1000 --out slices")
    else:
        facts = meta.training_data
        label = (facts if back else facts.get("source", {})).get("label")
        which = f" --label {shlex.quote(label)}" if label else ""
        print(f"{meta.notice}; next: fastmrigan translate {path} --inputs DATA{which} --out slices")


def engine_line(engine: EngineParity, judged: bool) -> str:
    ssim = "" if engine.ssim is None else f"  SSIM {engine.ssim:.4f}"
    return (
        f"  {engine.backend:<12} {engine.version:<10} {engine.precision}  "
        f"max abs error {engine.max_abs_error:.2e}  PSNR {engine.psnr_db:.1f} dB{ssim}"
        f"{'' if judged else '  (stated, not judged)'}"
    )
