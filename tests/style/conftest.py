"""What the tests of this room share: slices drawn by formula, one network of VGG's shape."""

import copy

import numpy as np
import pytest
import torch

from fastmrigan.style.weights import Weights, normalise_activations, random_weights


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads on tensors this small spend their time on waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def untouched():
    return random_weights(0)


@pytest.fixture
def weights(untouched):
    """Random filters of seed 0, a copy that the test may normalise."""
    return Weights(copy.deepcopy(untouched.network), untouched.origin, untouched.label)


@pytest.fixture(scope="session")
def contents():
    """Three discs with an inner disc, float32 [3, 32, 32]."""
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    disc, inner = x**2 + y**2 < 0.7, [(x - d) ** 2 + y**2 < 0.1 for d in (-0.3, 0.0, 0.3)]
    return np.stack([disc * 1.0 + i * 0.8 - 1 for i in inner]).astype(np.float32)


@pytest.fixture(scope="session")
def styles():
    """Two slices of stripes, float32 [2, 32, 32]."""
    y, x = np.mgrid[0:32, 0:32]
    return np.stack([np.sin(x * 1.5), np.sin(x + y)]).astype(np.float32) * np.float32(0.9)


@pytest.fixture(scope="session")
def normalised(untouched, contents, styles):
    """The same filters, normalised on those slices; not to be changed."""
    network = copy.deepcopy(untouched.network)
    normalise_activations(network, torch.from_numpy(np.concatenate([contents, styles]))[:, None])
    return network
