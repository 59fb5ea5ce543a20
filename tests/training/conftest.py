"""What the tests of this room share."""

import pytest


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads on tensors this small spend their time on waiting for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
