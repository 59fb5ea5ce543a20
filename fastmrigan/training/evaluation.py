"""What runs every K epochs: figures of the slices made so far, and which checkpoint is the best.

The measures are those of fastmrigan.metrics, so that a figure in a run folder and one in a report
are the same number. They are imported when asked for: metrics reads this room's checkpoints.
Nothing here draws from a global random stream, so an evaluated run ends with the same bits as one
that was not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastmrigan.errors import UsageError
from fastmrigan.files import write_whole
from fastmrigan.imaging.mask import brain_mask
from fastmrigan.training.logging import as_line, read_metrics

Float32 = npt.NDArray[np.float32]

FEWEST = 4  # real slices of a Frechet distance: its floor's halves need two each
FILE = "evaluation.jsonl"  # in the run folder: a row an evaluation, {"step", "epoch", figures}
DATA_RANGE = 2.0  # slices lie in [-1, 1]

BETTER: dict[str, Literal["higher", "lower"]] = {
    "ssim": "higher",
    "ssim_brain": "higher",
    "psnr": "higher",  # dB
    "psnr_brain": "higher",
    "mae": "lower",  # in units of [-1, 1]
    "mae_brain": "lower",
    "fd_random": "lower",
}


def rows_to_judge(count: int, limit: int, seed: int) -> Tensor:
    """Which of `count` slices to judge: int64 [min(count, limit)], rising, each at most once.

    A seeded draw, and not the first ones: data sets often keep a patient's slices together.
    """
    if count <= limit:
        return torch.arange(count)
    chosen = np.random.default_rng(seed).choice(count, limit, replace=False)
    return torch.from_numpy(np.sort(chosen))


def translation_figures(made: Float32, wanted: Float32) -> dict[str, float]:
    """Means over slices of SSIM, PSNR (dB) and MAE, over the frame and inside the brain.

    made, wanted: float32 [N, H, W] in [-1, 1], slice i of one belonging to slice i of the other,
    H and W >= 11 (SSIM's window). The brain is `brain_mask` of the wanted slice (the head, where
    the skull has not been stripped); `brain_slices` counts the slices that have one, and only
    these enter the `_brain` figures, which are absent where none has.
    Raises UsageError for another shape or type.
    """
    from fastmrigan.metrics.similarity import WINDOW, Similarity, compare

    _check("made", made)
    _check("wanted", wanted)
    if made.shape != wanted.shape:
        raise UsageError(
            f"translation_figures: expected as many slices, of the same size, on both sides, "
            f"got made {list(made.shape)} and wanted {list(wanted.shape)}"
        )

    def means(scores: Similarity, ending: str) -> dict[str, float]:
        return {name + ending: float(np.mean(s)) for name, s in scores._asdict().items()}

    figures = means(compare(made, wanted, DATA_RANGE), "")
    border = WINDOW // 2
    brains = np.stack([brain_mask(slice_) for slice_ in wanted])  # [N, H, W]
    # Those that SSIM has a window in; a blank slice has no brain at all.
    have = brains[:, border:-border, border:-border].any(axis=(1, 2))  # [N]
    if have.any():
        scores = compare(made[have], wanted[have], DATA_RANGE, brains[have])
        figures |= means(scores, "_brain")
    return figures | {"brain_slices": float(have.sum())}


def enough_to_judge(real: int) -> None:
    """UsageError where so few real slices allow no Frechet distance."""
    if real < FEWEST:
        raise UsageError(
            f"evaluation: {real} real slices, and the Frechet distance needs at least {FEWEST} "
            "(two in each half of its floor); prepare more slices, or --set evaluate_every=null"
        )


class RealSide:
    """The real slices of a Frechet distance: their features and floor, computed once a run.

    real: float32 [N, H, W] in [-1, 1], N >= 4, H and W >= 16; seed: of the random halves behind
    the floor. Raises UsageError for fewer slices, another shape or type.
    """

    def __init__(self, real: Float32, seed: int) -> None:
        from fastmrigan.metrics.features import random_features
        from fastmrigan.metrics.frechet import split_half_floor

        _check("real", real)
        enough_to_judge(len(real))
        self._features = random_features(real, shown=False)  # [N, 464]
        self._floor = split_half_floor(self._features, seed)

    def figures(self, made: Float32) -> dict[str, float]:
        """`distribution_figures` of made: float32 [M, H, W], M >= 2, of any size >= 16."""
        from fastmrigan.metrics.features import random_features
        from fastmrigan.metrics.frechet import frechet_distance

        _check("made", made)
        features = random_features(made, shown=False)  # [M, 464]
        return {
            "fd_random": frechet_distance(self._features, features),
            "fd_random_floor": self._floor,
        }


def distribution_figures(made: Float32, real: Float32, seed: int) -> dict[str, float]:
    """`fd_random`, the Frechet distance on the frozen random features, and its split-half floor.

    For slices without a counterpart: made [M, H, W] against real [N, H, W]; see `RealSide`, which
    saves the real side's part of the work when asked more than once.
    """
    return RealSide(real, seed).figures(made)


@dataclass
class Best:
    """The best evaluation so far by one metric of BETTER.

    Raises UsageError for an unknown metric, and where figures do not hold it.
    """

    metric: str
    value: float | None = None  # none yet
    step: int | None = None

    def __post_init__(self) -> None:
        if self.metric not in BETTER:
            raise UsageError(
                f"best_metric {self.metric!r}: unknown; known are "
                + ", ".join(f"{name} ({way} is better)" for name, way in BETTER.items())
            )

    def better(self, figures: Mapping[str, float]) -> bool:
        """True where these figures beat the best; a tie does not, nor does NaN."""
        if self.metric not in figures:
            raise UsageError(
                f"best_metric {self.metric!r}: not among this run's figures; choose one of "
                + ", ".join(name for name in figures if name in BETTER)
            )
        value = figures[self.metric]
        if self.value is None or math.isnan(value):
            return not math.isnan(value)
        return value > self.value if BETTER[self.metric] == "higher" else value < self.value

    def take(self, figures: Mapping[str, float], step: int) -> bool:
        """`better`, and if so these figures are the best from now on."""
        if not self.better(figures):
            return False
        self.value, self.step = float(figures[self.metric]), step
        return True

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"metric": self.metric, "value": self.value, "step": self.step}

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`; UsageError where it is of another metric."""
        if state["metric"] != self.metric:
            raise UsageError(
                f"best_metric {self.metric!r}: the run so far kept its best by "
                f"{state['metric']!r}; resume with best_metric={state['metric']}"
            )
        self.value, self.step = state["value"], state["step"]


def write_figures(run: Path, step: int, epoch: float, figures: Mapping[str, float]) -> None:
    """Adds a row to RUN/evaluation.jsonl; rows of this step and later (a run taken back) go."""
    path = run / FILE
    rows = [row for row in read_metrics(path) if row["step"] < step]
    rows.append({"step": step, "epoch": round(epoch, 4)} | dict(figures))
    write_whole(path, "".join(map(as_line, rows)).encode())


def drop_figures_after(run: Path, step: int) -> None:
    """Forgets the rows of later steps: the run goes on from this one."""
    path = run / FILE
    rows = read_metrics(path)
    kept = [row for row in rows if row["step"] <= step]
    if len(kept) < len(rows):
        write_whole(path, "".join(map(as_line, kept)).encode())


def _check(name: str, slices: Float32) -> None:
    if slices.ndim != 3 or slices.dtype != np.float32 or len(slices) == 0:
        raise UsageError(
            f"evaluation: expected {name} slices as float32 [N, H, W], "
            f"got {slices.dtype} {list(slices.shape)}"
        )
