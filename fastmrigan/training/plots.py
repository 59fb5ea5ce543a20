"""Loss curves of a run, drawn from its metrics.jsonl."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from fastmrigan.files import write_whole
from fastmrigan.training.logging import read_metrics

SMOOTHING = 50  # the bold lines average over this many steps, fewer in short runs


def plot_losses(run: Path, target: Path, *, title: str, upto_step: int | None = None) -> None:
    """Losses and the discriminator's accuracies by epoch, as a PNG at `target`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [
        row
        for row in read_metrics(run / "metrics.jsonl")
        if upto_step is None or row["step"] <= upto_step
    ]
    epochs = np.array([row["epoch"] for row in rows])
    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    losses, accuracies = figure.subplots(2, 1, sharex=True)
    for axes, keys in (
        (losses, {"loss_d": "discriminator", "loss_g": "generator"}),
        (
            accuracies,
            {"d_real_accuracy": "real called real", "d_fake_accuracy": "fake called fake"},
        ),
    ):
        for colour, (key, name) in zip(("tab:blue", "tab:orange"), keys.items(), strict=True):
            values = np.array([row[key] for row in rows])
            smooth, width = moving_mean(values, SMOOTHING)
            axes.plot(epochs, values, color=colour, alpha=0.2, linewidth=0.5)
            axes.plot(epochs[width - 1 :], smooth, color=colour, label=name)
        axes.legend(loc="upper right")
        axes.grid(alpha=0.3)
    losses.set_ylabel("loss (nats)")
    accuracies.set_ylabel("share of the batch")
    accuracies.set_ylim(-0.02, 1.02)
    accuracies.set_xlabel("epoch")
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    target.parent.mkdir(exist_ok=True)
    write_whole(target, buffer.getvalue())


def moving_mean(values: np.ndarray, width: int) -> tuple[np.ndarray, int]:
    """Means over `width` neighbours (a tenth of a short series), and the width taken."""
    width = max(1, min(width, len(values) // 10))
    return np.convolve(values, np.full(width, 1 / width), mode="valid"), width
