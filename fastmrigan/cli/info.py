"""fastmrigan info: what a model file says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fastmrigan.runtime.model_file import ModelFile


def info(
    model: Annotated[Path, typer.Argument(metavar="FILE", help="Model file (.onnx).")],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document instead of lines.")
    ] = False,
) -> None:
    """Print what a model file says about itself."""
    from fastmrigan.runtime.model_file import read_model_file

    file = read_model_file(model)
    if as_json:
        import json

        facts = {"file": str(file.path), "bytes": len(file.data), "sha256": file.sha256}
        print(json.dumps(facts | file.metadata.model_dump(mode="json"), indent=2))
    else:
        for label, text in lines(file):
            print(f"{label:<16} {text}")


def lines(file: ModelFile) -> list[tuple[str, str]]:
    """(label, text) of every line `info` prints."""
    meta = file.metadata
    height, width = meta.slice_size
    contrast = meta.target_contrast or "contrast not stated"
    if meta.task == "sample":
        job = f"samples {height}x{width} slices ({contrast}) from latents of {meta.latent_size}"
    else:
        source = meta.source_contrast or "source not stated"
        job = f"translates {height}x{width} slices, {source} to {contrast}"
    found = [
        ("file", str(file.path)),
        ("size", f"{len(file.data):,} bytes"),
        ("sha256", file.sha256),
        ("task", job),
        ("recipe", meta.recipe),
        ("precision", meta.precision),
        ("weights sha256", meta.weights_sha256),
        ("grading", flat(meta.grading)),
        ("training data", flat(meta.training_data)),
        ("training", flat(meta.training)),
        *parity_lines(meta.parity),
        ("versions", ", ".join(f"{k} {v}" for k, v in meta.versions.items())),
        ("schema", str(meta.schema_version)),
        ("notice", meta.notice),
    ]
    return found


def parity_lines(parity: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures against PyTorch, an engine a line."""
    if not parity:
        return [("parity", "not stated")]
    engines = {name: value for name, value in parity.items() if isinstance(value, dict)}
    overall = {name: value for name, value in parity.items() if name not in engines}
    return [("parity", flat(overall)), *((f"  {n}", engine_line(v)) for n, v in engines.items())]


def engine_line(figures: dict[str, Any]) -> str:
    if "psnr_db" not in figures:
        return flat(figures)
    return (
        f"max abs error {figures['max_abs_error']}, PSNR {figures['psnr_db']} dB "
        f"({figures['device']}, version {figures['version']})"
    )


def flat(values: dict[str, Any]) -> str:
    """A small dict on one line: `a 1, b 2, c (d 3)`."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return f"({flat(value)})"
        if isinstance(value, list):
            return f"[{', '.join(map(text, value))}]"
        if isinstance(value, bool) or value is None:
            return {True: "yes", False: "no", None: "none"}[value]
        return f"{value:,}" if isinstance(value, int) else str(value)

    return ", ".join(f"{k.replace('_', ' ')} {text(v)}" for k, v in values.items()) or "not stated"
