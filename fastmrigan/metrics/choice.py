"""Which measures an evaluation runs: their names for --only and --skip, and which take long."""

from __future__ import annotations

from collections.abc import Iterable

from fastmrigan.errors import UsageError

MEASURES = {
    "pairs": "MAE, PSNR, SSIM and MS-SSIM of translated slices against their true targets",
    "sources": "how far translated slices went from the slices they were made of",
    "frechet": "Frechet distances with their floors; FID where --inception-weights is given",
    "kid": "kernel distances; KID where --inception-weights is given",
    "radiomics": "Frechet distance on radiomic features",
    "manifold": "precision, recall, density and coverage",
    "diversity": "how like each other the synthetic slices are",
    "copies": "training slices that the synthetic ones repeat",
    "two-sample": "how well a classifier tells real from synthetic",
    "classifier": "synthetic slices called tumour by a classifier",
    "utility": "what a tumour classifier learns from synthetic slices",
    "discriminator": "what the run's own discriminator makes of them",
}
SLOW = frozenset({"two-sample", "utility"})  # train networks: a minute or several


def choose(only: Iterable[str], skip: Iterable[str], *, thorough: bool = False) -> frozenset[str]:
    """The measures to run: those named by `only`, or all quick ones (`thorough`: all), less `skip`.

    A name may be several, parted by commas. Raises UsageError for an unknown one, and where
    nothing is left.
    """
    wanted = named("--only", only)
    if not wanted:
        wanted = frozenset(MEASURES) if thorough else frozenset(MEASURES) - SLOW
    left = wanted - named("--skip", skip)
    if not left:
        raise UsageError("--only and --skip leave nothing to measure; name fewer in --skip")
    return left


def named(option: str, given: Iterable[str]) -> frozenset[str]:
    names = [part.strip() for text in given for part in text.split(",")]
    for name in names:
        if name not in MEASURES:
            raise UsageError(f"{option} {name!r}: unknown; choose among {', '.join(MEASURES)}")
    return frozenset(names)
