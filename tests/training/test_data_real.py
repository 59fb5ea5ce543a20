"""Real slices: pairs of T1 and T2, T2 with two labels."""

import csv

import torch
import torch.nn.functional as F

from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.training.data import (
    DataOptions,
    load_paired,
    load_unpaired,
)
from fastmrigan.training.order import TwoSidedOrder


def pairs_of_t1t2(root, table):
    """The set's own registration: T1 #n is T2 #(n + 60) up to 40, #(n + 70) beyond."""
    numbers = sorted(int(p.stem.split("#")[1]) for p in (root / "TrainT1").glob("*.png"))
    rows = [(n, n + (60 if n <= 40 else 70)) for n in numbers]
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "target"])
        for one, other in rows:
            if (root / "TrainT2" / f"Image #{other}.png").exists():
                writer.writerow([f"TrainT1/Image #{one}.png", f"TrainT2/Image #{other}.png"])


def test_real_t1_t2_paired_and_taken_as_unpaired(tmp_path, real_data):
    root = real_data("t1t2-upgrad")
    pairs_of_t1t2(root, tmp_path / "pairs.csv")
    options = PrepareOptions(
        size=64, pairs=tmp_path / "pairs.csv", contrast="t1", target_contrast="t2", label=""
    )
    prepare(root, tmp_path / "set", options)
    asked = DataOptions(64, 4, recipe="t1-t2")
    paired, unpaired = load_paired(tmp_path / "set", asked), load_unpaired(tmp_path / "set", asked)
    assert paired.paired
    assert not unpaired.paired
    assert torch.equal(paired.slices, unpaired.slices)
    assert torch.equal(paired.sources, unpaired.sources)
    assert paired.count >= 15  # the split by blocks sets many aside
    assert torch.equal(paired.held_out.sources, unpaired.held_out.sources)
    assert torch.equal(paired.held_out.sources, unpaired.held_out.sources)
    assert paired.held_out.paired
    assert unpaired.held_out.paired
    assert nearest_twins(paired.slices, paired.sources) > 0.8  # registered, in the same order
    order = TwoSidedOrder(paired.count, paired.count, 16, seed=0)
    target, source = unpaired.batch(order.batch_of(0))
    assert target.shape == source.shape == (16, 1, 64, 64)
    assert nearest_twins(target, source) < 0.3


def nearest_twins(target, source):
    """Share of the slices whose edges are most like those of the slice in the same place."""
    edges = [x.diff(dim=2)[..., 1:].abs() + x.diff(dim=3)[:, :, 1:].abs() for x in (target, source)]
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in edges)  # [N, pixels]
    alike = F.normalize(a) @ F.normalize(b).T  # [N, N]
    return float((alike.argmax(1) == torch.arange(len(alike))).float().mean())


def test_real_t2_with_two_labels(tmp_path, real_data):
    root = real_data("t2-tumour-nontumour")
    for label in ("tumour", "nontumour"):
        (tmp_path / "in" / label).mkdir(parents=True)
        for path in sorted((root / label).iterdir())[:: 20 if label == "tumour" else 15]:
            (tmp_path / "in" / label / path.name).symlink_to(path)
    prepare(tmp_path / "in", tmp_path / "set", PrepareOptions(size=64, contrast="t2"))
    data = load_unpaired(
        tmp_path / "set",
        DataOptions(64, 2, recipe="t2"),
        target_label="tumour",
        source_label="nontumour",
    )
    assert data.sources is not None
    assert len(data.slices) != len(data.sources)
    counts = PreparedDataset.open(tmp_path / "set").info.split.counts
    assert len(data.slices) + len(data.sources) == counts["train"]
    assert len(data.held_out.slices) + len(data.held_out.sources) == counts["test"]
    for slices in (data.slices, data.sources):
        assert slices.min() == -1
        assert slices.max() > 0.9
        assert slices.median() < -0.5
