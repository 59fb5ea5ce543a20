"""What a model file says about its generator beyond what is measured while writing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastmrigan.training.checkpoint import LoadedGenerator


@dataclass(frozen=True)
class GeneratorFacts:
    """Where a generator comes from and what it takes and makes."""

    task: str  # "sample" (latent to slice) or "translate" (slice to slice)
    recipe: str
    slice_size: tuple[int, int]  # (H, W)
    latent_size: int | None = None  # "sample" only
    source_contrast: str | None = None  # "translate" only
    target_contrast: str | None = None  # what comes out
    grading: dict[str, Any] | None = None  # how the training slices came to [-1, 1]
    training_data: dict[str, Any] | None = None  # fingerprint, counts, labels
    training: dict[str, Any] | None = None  # step, ema, seed
    source_label: str | None = None  # "translate" only: which slices of a dataset it takes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one item, without the batch axis."""
        return (self.latent_size or 0,) if self.task == "sample" else (1, *self.slice_size)


def facts_of(loaded: LoadedGenerator, back: bool = False) -> GeneratorFacts:
    """What a run's checkpoint knows of its generator."""
    recipe, dataset = loaded.recipe, loaded.dataset
    samples = recipe.task == "sample"
    source, target = dataset.get("source_contrast"), dataset.get("contrast")
    grading = dataset.get("grading")  # of what comes out
    if back:
        source, target = target, source
        grading = dataset.get("source", {}).get("grading")
    apart = ("contrast", "grading")
    # A dataset's facts describe the target, and under "source" what is translated.
    taken = dataset if back else dataset.get("source", {})
    training = {"step": loaded.step, "ema": loaded.averaged, "seed": recipe.seed}
    return GeneratorFacts(
        task=recipe.task,
        recipe=recipe.name,
        slice_size=(recipe.size, recipe.size),
        latent_size=recipe.generator.latent if samples else None,
        source_contrast=None if samples else source,
        target_contrast=target,
        grading=grading,
        training_data={k: v for k, v in dataset.items() if k not in apart},
        training=training if samples else training | {"back": back},
        source_label=None if samples else taken.get("label"),
    )
