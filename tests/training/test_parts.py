"""The EMA and its batch norm, atomic writes."""

import copy
import errno

import numpy as np
import pytest
import torch
from torch import nn

from fastmrigan import files
from fastmrigan.errors import DiskFull
from fastmrigan.models.dcgan import DcganGenerator
from fastmrigan.training import ema
from fastmrigan.training.sections import Ema


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
    batches = ema.seeded_latents(4096, 8, 3).split(64)
    ema.calibrate(generator, batches)
    assert torch.equal(rng, torch.get_rng_state())
    assert not generator.training
    assert generator.layers[1].momentum == 0.1
    first = copy.deepcopy(generator.state_dict())
    ema.calibrate(generator, batches)  # a function of weights and batches alone
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
