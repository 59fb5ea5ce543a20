"""What a run trains on: one side or two, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from prepared_sets import ON_DISK, OPTIONS, make_sets

from fastmrigan.errors import UsageError
from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.imaging.quantise import to_uint16
from fastmrigan.training.data import (
    DataOptions,
    load_paired,
    load_unconditional,
    load_unpaired,
    with_channels,
)
from fastmrigan.training.order import Indices, TwoSidedOrder
from fastmrigan.training.slice_file import SliceFile


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return make_sets(tmp_path_factory.mktemp("sets"))


def stored(folder, array, split, label=None):
    """float32 [N, 1, H, W], by the prepared dataset's own reader."""
    dataset = PreparedDataset.open(folder)
    take = dataset.slices if array == "slices" else dataset.targets
    return torch.from_numpy(take(split, label))[:, None]


# Each loader: how it is called, and the sides it should hand out, (folder, array, label) each.
LOADERS = {
    "all": (lambda s, o: load_unconditional(s / "labelled", o), ("labelled", "slices", None), None),
    "label": (
        lambda s, o: load_unconditional(s / "labelled", o, label="tumour"),
        ("labelled", "slices", "tumour"),
        None,
    ),
    "paired": (
        lambda s, o: load_paired(s / "paired", o),
        ("paired", "targets", None),
        ("paired", "slices", None),
    ),
    "paired reverse": (
        lambda s, o: load_paired(s / "paired", o, reverse=True),
        ("paired", "slices", None),
        ("paired", "targets", None),
    ),
    "two labels": (
        lambda s, o: load_unpaired(s / "labelled", o, target_label="tumour", source_label="normal"),
        ("labelled", "slices", "tumour"),
        ("labelled", "slices", "normal"),
    ),
    "two labels reverse": (
        lambda s, o: load_unpaired(
            s / "labelled", o, target_label="tumour", source_label="normal", reverse=True
        ),
        ("labelled", "slices", "normal"),
        ("labelled", "slices", "tumour"),
    ),
    "two sets": (
        lambda s, o: load_unpaired(s / "mr", o, source=s / "ct"),
        ("mr", "slices", None),
        ("ct", "slices", None),
    ),
    "two sets reverse": (
        lambda s, o: load_unpaired(s / "mr", o, source=s / "ct", source_label="ct", reverse=True),
        ("ct", "slices", "ct"),
        ("mr", "slices", None),
    ),
    "pairs forgotten": (
        lambda s, o: load_unpaired(s / "paired", o),
        ("paired", "targets", None),
        ("paired", "slices", None),
    ),
}


@pytest.mark.parametrize("options", [OPTIONS, ON_DISK], ids=["in memory", "on disk"])
@pytest.mark.parametrize("name", LOADERS)
def test_loaders(sets, name, options):
    load, target, source = LOADERS[name]
    data = load(sets, options)
    assert data.paired == name.startswith("paired")
    assert data.held_out.paired == (data.paired or name == "pairs forgotten")
    for part, split in ((data, "train"), (data.held_out, "test")):
        assert isinstance(part.slices, SliceFile) == (options is ON_DISK)
        expected = stored(sets / target[0], target[1], split, target[2])
        assert part.slices.shape == expected.shape
        assert torch.equal(part.slices[:], expected)
        if source is None:
            assert part.sources is None
            assert part.count == len(expected)
            continue
        of_source = stored(sets / source[0], source[1], split, source[2])
        assert torch.equal(part.sources[:], of_source)
        assert part.count == max(len(expected), len(of_source))
    assert data.held_out.held_out is None


def test_what_the_checkpoint_says(sets):
    info = load_unpaired(sets / "mr", OPTIONS, source=sets / "ct", source_label="ct").info
    mr, ct = PreparedDataset.open(sets / "mr").info, PreparedDataset.open(sets / "ct").info
    assert (info["fingerprint"], info["source"]["fingerprint"]) == (mr.fingerprint, ct.fingerprint)
    assert (info["contrast"], info["source_contrast"]) == ("t1", "ct")
    assert (info["label"], info["source"]["label"]) == (None, "ct")
    assert info["training_slices"] == mr.split.counts["train"]
    assert info["source"]["training_slices"] == ct.split.counts["train"]
    assert str(sets) not in str(info)
    one = load_unconditional(sets / "labelled", OPTIONS).info
    assert "source" not in one
    info = load_paired(sets / "paired", OPTIONS, reverse=True).info
    assert (info["contrast"], info["source_contrast"], info["paired"]) == ("t1", "t2", True)


def test_batches_follow_the_order(sets):
    data = load_unpaired(sets / "mr", ON_DISK, source=sets / "ct")
    order = TwoSidedOrder(len(data.slices), len(data.sources), 3, seed=1)
    for step in range(4):
        indices = order.batch_of(step)
        target, source = data.batch(indices)
        assert torch.equal(target, stored(sets / "mr", "slices", "train")[indices.target])
        assert torch.equal(source, stored(sets / "ct", "slices", "train")[indices.source])
    plain = load_unconditional(sets / "mr", OPTIONS)
    assert plain.batch(Indices(torch.tensor([0])))[1] is None


@pytest.mark.parametrize("limit", [0, 2**30])
def test_16_bits_are_kept(tmp_path, limit):
    """One slice that holds every value there is, by way of a 16-bit PNG."""
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).permutation(65536).astype(np.uint16).reshape(256, 256)
    Image.fromarray(pixels).save(tmp_path / "in" / "all.png")
    options = PrepareOptions(size=256, label="", grading="minmax", test_fraction=0)
    prepare(tmp_path / "in", tmp_path / "set", options)
    asked = DataOptions(256, 1, memory_limit_bytes=limit)
    slices = load_unconditional(tmp_path / "set", asked).slices[:]
    assert slices.dtype == torch.float32
    assert len(slices.unique()) == 65536
    np.testing.assert_array_equal(to_uint16(slices[0, 0].numpy()), pixels)
    np.testing.assert_allclose(slices[0, 0].numpy(), pixels / 32767.5 - 1, atol=1.2e-7)


def test_three_channels_repeat_the_grey_slice():
    slices = torch.rand(2, 1, 4, 4)
    assert with_channels(slices, 1) is slices
    assert torch.equal(with_channels(slices, 3), torch.cat([slices] * 3, 1))


@pytest.mark.parametrize(
    ("load", "text"),
    [
        (
            lambda s: load_unconditional(s / "large", OPTIONS),
            "large: slices are 64x64, mine trains at 32x32; prepare them with --size 32, or train"
            " at theirs with --set size=64$",
        ),
        (
            lambda s: load_unpaired(s / "mr", OPTIONS, source=s / "large"),
            r"mr: slices are 32x32; .*large: slices are 64x64, mine trains at 32x32; .* --size 32$",
        ),
        (
            lambda s: load_unconditional(s / "labelled", OPTIONS, label="tumor"),
            "labelled: no label 'tumor'; it has 'normal', 'tumour'",
        ),
        (
            lambda s: load_unpaired(s / "mr", OPTIONS, source=s / "ct", source_label="CT"),
            "ct: no label 'CT'; it has 'ct'",
        ),
        (
            lambda s: load_unconditional(s / "mr", DataOptions(32, 20)),
            r"mr: (\d) training slices are fewer than one batch of 20; use --set batch=\1",
        ),
        (
            lambda s: load_unconditional(s / "labelled", DataOptions(32, 20), label="tumour"),
            r"(\d) training slices labelled 'tumour' are fewer .*; use --set batch=\1$",
        ),
        (
            lambda s: load_unpaired(s / "ct", DataOptions(32, 6), source=s / "mr"),
            r"mr: (\d) training slices of the source side are fewer than one batch of 6; .*=\1$",
        ),
        (
            lambda s: load_unpaired(s / "mr", DataOptions(32, 6), source=s / "ct"),
            r"mr: (\d) training slices of the target side are fewer than one batch of 6; .*=\1$",
        ),
        (
            lambda s: load_unconditional(s / "mr", DataOptions(32, 4, world=2)),
            r"fewer than one batch of 8 \(4 on each of 2 ranks\); use --set batch=2$",
        ),
        (
            lambda s: load_unconditional(s / "mr", DataOptions(32, 4, world=3, smallest_batch=2)),
            r"one batch of 12 \(4 on each of 3 ranks\); prepare more slices or start fewer ranks$",
        ),
        (
            lambda s: load_paired(s / "mr", OPTIONS),
            "mr: not a paired data set, and mine learns from registered pairs; prepare it with --p",
        ),
        (
            lambda s: load_unpaired(
                s / "labelled", OPTIONS, target_label="tumour", source_label="tumour"
            ),
            r"source_label and target_label are both 'tumour'; name two of its labels \('normal',",
        ),
        (
            lambda s: load_unpaired(s / "labelled", OPTIONS, target_label="tumour"),
            r"Give source_label and target_label \(it has 'normal', 'tumour'\), or .*--source-data",
        ),
        (
            lambda s: load_unpaired(s / "mr", OPTIONS, source=s / "paired"),
            "paired: a paired data set holds both sides already; give it alone, without --source",
        ),
        (
            lambda s: load_unpaired(s / "mr", OPTIONS, source=s / "mr"),
            "mr: source and target are the same slices; give two",
        ),
        (lambda s: load_unpaired(s / "mr", OPTIONS, source=s / "in"), "in: not a prepared data"),
    ],
)
def test_refused(sets, load, text):
    with pytest.raises(UsageError, match=text) as caught:
        load(sets)
    assert "\n" not in str(caught.value)
