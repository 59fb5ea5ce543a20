"""`fastmrigan style-transfer`: real slices' content in generated slices' style."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastmrigan.progress import counted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

IMAGE_SIZE = 256  # of a content that has no prepared size of its own


def style_transfer(
    content: Annotated[
        Path, typer.Option(help="Real slices: a prepared dataset, generated slices or one image.")
    ],
    style: Annotated[
        Path,
        typer.Option(
            help="Generated slices, the same kinds; content i takes style i modulo their number."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; resumed if it has some.")],
    vgg_weights: Annotated[
        Path | None,
        typer.Option(
            help="VGG19 weights in torchvision's format (vgg19-dcbb9e9d.pth); without it the "
            "filters are random, and the outputs say so."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of random filters and of a noise start.")] = 0,
    steps: Annotated[int, typer.Option(help="L-BFGS iterations a slice.")] = 200,
    size: Annotated[
        int | None,
        typer.Option(help="Side in pixels. Default: the content's; 256 for an image file."),
    ] = None,
    content_weight: Annotated[float, typer.Option(help="Weight of the content loss.")] = 1.0,
    style_weight: Annotated[float, typer.Option(help="Weight of the style loss.")] = 1000.0,
    smooth_edges: Annotated[
        float,
        typer.Option(
            metavar="SIGMA",
            help="Gaussian smoothing of the result's edges, in pixels, as for Pix2Pix; 0: none.",
        ),
    ] = 0.0,
    start: Annotated[
        str, typer.Option(help="Where the optimisation begins: content, or noise.")
    ] = "content",
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many contents.")] = None,
    dtype: Annotated[str, typer.Option(help="uint8 or uint16, of the PNG files.")] = "uint8",
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")
    ] = "auto",
) -> None:
    """Transfer style by optimisation on VGG19's features: real content, generated style."""
    from fastmrigan.errors import MissingDependency, UsageError

    try:
        import torch
    except ImportError as error:
        raise MissingDependency("torch", "train", "fastmrigan style-transfer") from error

    from fastmrigan.style.folder import QUANTISERS
    from fastmrigan.style.job import style_transfer as run_transfer
    from fastmrigan.style.transfer import StyleSettings
    from fastmrigan.style.weights import load_weights, random_weights

    if dtype not in QUANTISERS:
        raise UsageError(f"--dtype {dtype}: unknown; choose one of {', '.join(QUANTISERS)}")
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device!r}: expected auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this torch finds no CUDA device; use --device cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"

    # Weights are judged first: reading slices may take long.
    settings = StyleSettings(
        size=IMAGE_SIZE if size is None else size,
        steps=steps,
        content_weight=content_weight,
        style_weight=style_weight,
        smooth_edges=smooth_edges,
        start=start,
        seed=seed,
    )
    settings.check()
    if vgg_weights is not None:
        weights = load_weights(vgg_weights)
        print(f"style-transfer: {vgg_weights}, {weights.label}", file=sys.stderr)
    else:
        weights = random_weights(seed)
        print(
            f"style-transfer: no --vgg-weights, so VGG19's filters are {weights.label}; "
            "the outputs are labelled so",
            file=sys.stderr,
        )
    contents = read_slices(content, "--content", size, limit)
    settings = StyleSettings(**{**vars(settings), "size": contents.shape[1]})
    settings.check()
    styles = read_slices(style, "--style", settings.size, len(contents))
    print(
        f"style-transfer: {counted(len(contents), 'slice')} of {settings.size}x{settings.size}, "
        f"{counted(len(styles), 'style')}, {device}, {counted(torch.get_num_threads(), 'thread')}",
        file=sys.stderr,
    )
    result = run_transfer(
        contents,
        styles,
        weights,
        out,
        settings,
        dtype=dtype,
        device=device,
        resume_command=shlex.join(["fastmrigan", *sys.argv[1:]]),
    )
    slices = counted(result.slices, "slice")
    print(f"{out}: {slices}, {result.made:,} made now, filters {weights.label}")
    print(f"look at {out / 'contact_sheet.png'}")


def read_slices(
    path: Path, option: str, size: int | None, limit: int | None
) -> npt.NDArray[np.float32]:
    """A prepared dataset, a folder of `fastmrigan synth`, or one image, as squares of `size`.

    size None: the slices' own, or 256 for an image. Returns float32 [N, size, size] in [-1, 1],
    N at most `limit`. Raises UsageError or InputRejected.
    """
    from itertools import islice

    import numpy as np

    from fastmrigan.errors import UsageError
    from fastmrigan.imaging.dataset import PreparedDataset
    from fastmrigan.imaging.geometry import fit_square
    from fastmrigan.imaging.quantise import to_float
    from fastmrigan.jobs import shards

    if path.is_file():
        return read_image(path, option, size or IMAGE_SIZE)
    if not path.is_dir():
        raise UsageError(
            f"{option} {path}: no such file or folder; give a prepared dataset, generated slices "
            "or an image"
        )
    if (path / "dataset.json").is_file():
        dataset = PreparedDataset.open(path)
        dataset.check_fingerprint()
        slices = list(dataset.slices("all")[:limit])
    elif any(path.glob("shard-*")):
        slices = [to_float(x) for _, x in islice(shards.read_slices(path), limit)]
    else:
        raise UsageError(
            f"{option} {path}: neither a prepared dataset nor generated slices; make one with "
            "`fastmrigan prepare`"
        )
    if not slices:
        raise UsageError(f"{option} {path}: holds no slices")
    side = size or max(slices[0].shape)
    return np.stack([x if x.shape == (side, side) else fit_square(x, side) for x in slices])


def read_image(path: Path, option: str, size: int) -> npt.NDArray[np.float32]:
    """One image file, graded by the default rule, as float32 [1, size, size]."""
    from fastmrigan.errors import InputRejected, UsageError
    from fastmrigan.imaging.geometry import fit_square
    from fastmrigan.imaging.grading import grade, measure, parse_rule
    from fastmrigan.imaging.readers import read

    slices = read(path, str(path)).slices  # [N, H, W]
    if len(slices) != 1:
        raise UsageError(
            f"{option} {path}: a volume of {len(slices)} slices; make a prepared dataset of it "
            "with `fastmrigan prepare`"
        )
    try:
        graded = grade(slices[0], measure(slices, parse_rule("percentile")))
    except ValueError as error:
        raise InputRejected(f"{option} {path}: {error}; give another image") from error
    return fit_square(graded, size)[None]
