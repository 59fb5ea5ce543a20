"""The order of slices, augmentation, the EMA and its batch norm, atomic writes."""

import copy
import errno

import numpy as np
import pytest
import torch
from torch import nn

from fastmrigan import files
from fastmrigan.errors import DiskFull, UsageError
from fastmrigan.models.dcgan import DcganGenerator
from fastmrigan.training import ema
from fastmrigan.training.data import SliceOrder, TrainingData, checked, flip_half
from fastmrigan.training.recipe import Ema, load_recipe


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (4, 4), (7, 5), (3, 8)])
def test_every_epoch_sees_every_slice_once(count, batch):
    order = SliceOrder(count, batch, seed=5)
    seen = torch.cat([order.batch_of(step) for step in range(3 * count)])
    epochs = seen.reshape(-1, count)
    assert (epochs.sort(1).values == torch.arange(count)).all()
    assert count < 4 or not torch.equal(epochs[0], epochs[1])
    again = SliceOrder(count, batch, seed=5)
    assert torch.equal(again.batch_of(7), seen[7 * batch : 8 * batch])  # from anywhere
    other = SliceOrder(1000, batch, seed=6).batch_of(0)
    assert not torch.equal(SliceOrder(1000, batch, seed=5).batch_of(0), other)


def test_flip_half():
    torch.manual_seed(0)
    slices = torch.arange(400 * 6.0).reshape(400, 1, 2, 3)
    flipped = flip_half(slices)
    mirrored = (flipped == slices.flip(-1)).flatten(1).all(1)
    kept = (flipped == slices).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize(
    ("count", "label", "text"),
    [
        (100, None, "100 training slices are fewer than one batch of 128; use --set batch=100"),
        (9, "tumour", "9 training slices labelled 'tumour' are fewer .* use --set batch=9"),
        (0, None, "0 training slices .*; prepare more slices"),
    ],
)
def test_fewer_slices_than_a_batch(count, label, text):
    recipe = load_recipe("tumour-dcgan64", [] if label is None else [f"label={label}"])
    with pytest.raises(UsageError, match=text):
        checked(TrainingData(torch.zeros(count, 1, 64, 64), {}), recipe, "data")


@pytest.mark.parametrize("options", [Ema(decay=0.9, ramp=False), Ema(decay=0.5), Ema(decay=0.999)])
def test_ema_against_a_reference(options):
    live = DcganGenerator(size=16, latent=3, width=2)
    mean = copy.deepcopy(live).requires_grad_(False)
    reference = [p.detach().double().numpy().copy() for p in live.parameters()]
    for step in range(20):
        for parameter in live.parameters():
            nn.init.normal_(parameter)
        ema.update(mean, live, step, options)
        d = min(options.decay, (1 + step) / (10 + step)) if options.ramp else options.decay
        reference = [
            d * r + (1 - d) * p.detach().double().numpy()
            for r, p in zip(reference, live.parameters(), strict=True)
        ]
    for parameter, expected in zip(mean.parameters(), reference, strict=True):
        np.testing.assert_allclose(parameter.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_calibrated_batch_norm_normalises():
    generator = DcganGenerator(size=16, latent=8, width=4)
    rng = torch.get_rng_state()
    ema.calibrate(generator, 8, seed=3)
    assert torch.equal(rng, torch.get_rng_state())
    assert not generator.training
    assert generator.layers[1].momentum == 0.1
    first = copy.deepcopy(generator.state_dict())
    ema.calibrate(generator, 8, seed=3)  # a function of weights and seed alone
    assert all(torch.equal(first[key], value) for key, value in generator.state_dict().items())
    with torch.no_grad():
        x = generator.layers[0](torch.randn(4096, 8)[:, :, None, None])
        x = generator.layers[1](x)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(x.shape[1]), atol=0.1, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(x.shape[1]), atol=0.1, rtol=0)


def test_write_whole_leaves_the_old_file_when_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_whole(path, b"old")

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DiskFull, match="file: no space left; free some, run the same command"):
        files.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
