"""What goes into a generator to see how close an engine's slices are to PyTorch's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fastmrigan.errors import UsageError
from fastmrigan.export.facts import GeneratorFacts
from fastmrigan.export.parity import ParityReport, check_parity, random_inputs
from fastmrigan.imaging.dataset import PreparedDataset, open_array
from fastmrigan.imaging.quantise import to_float

Float32 = npt.NDArray[np.float32]

BATCHES = {"sample": (1, 3, 8, 64), "translate": (1, 3, 8)}
HELD_OUT = 64  # slices of a dataset at most, spread over it
CALIBRATION = 128  # likewise
REAL_BATCH = 8


@dataclass(frozen=True)
class Probe:
    """Inputs, and what PyTorch makes of them."""

    inputs: list[Float32]  # [batch, latent] or [batch, 1, H, W]
    expected: list[Float32]  # [batch, 1, H, W]
    dataset: str | None  # fingerprint of the dataset they come from

    def check(self, graph: bytes, precision: str) -> ParityReport:
        against = f"PyTorch {torch.__version__.split('+')[0]} fp32"
        return check_parity(
            graph, self.inputs, self.expected, against, precision=precision, dataset=self.dataset
        )


def random_probe(module: torch.nn.Module, facts: GeneratorFacts, seed: int = 0) -> Probe:
    inputs = random_inputs(facts.task, facts.input_shape, BATCHES[facts.task], seed)
    return Probe(inputs, outputs(module, inputs), None)


def real_probe(
    module: torch.nn.Module, facts: GeneratorFacts, dataset: PreparedDataset, option: str
) -> Probe:
    """Held-out slices of a prepared dataset, of its "test" split. `option` is for messages.

    Raises UsageError where the generator samples, or the dataset has no such slices of its size.
    """
    inputs = real_inputs(facts, dataset, "test", HELD_OUT, option)
    return Probe(inputs, outputs(module, inputs), dataset.info.fingerprint)


def outputs(module: torch.nn.Module, inputs: list[Float32]) -> list[Float32]:
    with torch.inference_mode():
        return [module(torch.from_numpy(x)).numpy() for x in inputs]


def calibration_inputs(facts: GeneratorFacts, dataset: PreparedDataset | None) -> list[Float32]:
    """What int8 is calibrated on: training slices, or latents for a generator that samples.

    Raises UsageError where a translating generator is given no dataset, or one that does not fit.
    """
    if facts.task == "sample" and dataset is None:
        return random_inputs("sample", facts.input_shape, [REAL_BATCH] * (CALIBRATION // 8), seed=1)
    if dataset is None:
        raise UsageError(
            "--precision int8: needs --calibration DATASET, a prepared dataset of slices such as "
            "the generator was trained to translate"
        )
    return real_inputs(facts, dataset, "train", CALIBRATION, "--calibration")


def real_inputs(
    facts: GeneratorFacts, dataset: PreparedDataset, split: str, most: int, option: str
) -> list[Float32]:
    """Source slices of one split, at most `most`, in batches: float32 [<= 8, 1, H, W]."""
    where = f"{option} {dataset.path}"
    if facts.task == "sample":
        raise UsageError(f"{where}: {facts.recipe} samples from latents, not slices; leave it out")
    if dataset.info.size != facts.slice_size:
        (height, width), wanted = dataset.info.size, facts.slice_size
        raise UsageError(
            f"{where}: slices are {height}x{width}, {facts.recipe} translates "
            f"{wanted[0]}x{wanted[1]}; prepare them with --size {max(wanted)}"
        )
    label = facts.source_label if facts.source_label in dataset.info.labels else None
    chosen = dataset.select(split, label)  # int64 [N]
    if not len(chosen):
        of_label = f" labelled {label!r}" if label is not None else ""
        raise UsageError(
            f"{where}: no slices{of_label} in split {split}; prepare more slices, or with a "
            "larger --test-fraction"
        )
    dataset.check_fingerprint()
    spread = np.linspace(0, len(chosen) - 1, min(most, len(chosen))).astype(np.int64)
    back = (facts.training or {}).get("back", False)
    name = "targets.npy" if back and dataset.info.paired else "slices.npy"
    slices = open_array(dataset.path, name, dataset.info)  # uint16 [all, H, W], on disk
    found = to_float(slices[chosen[spread]])[:, None]  # [<= most, 1, H, W]
    return [found[start : start + REAL_BATCH] for start in range(0, len(found), REAL_BATCH)]
