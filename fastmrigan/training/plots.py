"""Loss curves of a run, drawn from its metrics.jsonl."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from fastmrigan.files import write_whole
from fastmrigan.training.logging import read_metrics

LOSSES = {"loss_d": "discriminator", "loss_g": "generator"}
COMPONENTS = {
    "loss_g_target": "adversarial, target",
    "loss_g_source": "adversarial, source",
    "loss_cycle_target": "cycle, target",
    "loss_cycle_source": "cycle, source",
    "loss_identity_target": "identity, target",
    "loss_identity_source": "identity, source",
    "loss_structure_target": "structure, target",
    "loss_structure_source": "structure, source",
    "loss_patches_target": "patches, target",
    "loss_patches_source": "patches, source",
    "loss_transport_target": "transport, target",
    "loss_tone_target": "grey levels, target",
    "loss_tone_source": "grey levels, source",
    "loss_g_adversarial": "adversarial",
    "loss_l1": "L1",
    "loss_style": "style",
    "wasserstein": "Wasserstein distance",
}
ACCURACIES = {"d_real_accuracy": "real called real", "d_fake_accuracy": "fake called fake"}
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
    drawn = [
        (LOSSES, "loss", None),
        (COMPONENTS, "part of the loss", None),
        (ACCURACIES, "share of the batch", (-0.02, 1.02)),
    ]
    drawn = [part for part in drawn if any(key in rows[-1] for key in part[0])]
    for axes, (names, label, limits) in zip(
        figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0], drawn, strict=True
    ):
        for key, name in names.items():
            if key not in rows[-1]:
                continue
            values = np.array([row[key] for row in rows])
            smooth, width = moving_mean(values, SMOOTHING)
            (line,) = axes.plot(epochs[width - 1 :], smooth, label=name)
            axes.plot(epochs, values, color=line.get_color(), alpha=0.2, linewidth=0.5)
        axes.legend(loc="upper right")
        axes.grid(alpha=0.3)
        axes.set_ylabel(label)
        axes.set_ylim(limits)
    axes.set_xlabel("epoch")
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    target.parent.mkdir(exist_ok=True)
    write_whole(target, buffer.getvalue())


def moving_mean(values: np.ndarray, width: int) -> tuple[np.ndarray, int]:
    """Means over `width` neighbours (a tenth of a short series), and the width taken."""
    width = max(1, min(width, len(values) // 10))
    return np.convolve(values, np.full(width, 1 / width), mode="valid"), width
