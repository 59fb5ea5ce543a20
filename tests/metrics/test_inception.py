"""The FID variant of Inception v3: its structure, its weight file, its ONNX form, its peers."""

import hashlib
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.metrics import inception
from fastmrigan.metrics.inception import load_inception, random_inception
from fastmrigan.metrics.inception_onnx import to_onnx

PUBLISHED_BYTES = 95_628_359  # of pt_inception-2015-12-05-6726825d.pth
PUBLISHED_ENTRIES = 566


@pytest.fixture(scope="module")
def network():
    return random_inception(seed=1)


@pytest.fixture
def grey():
    """Two inputs [2, 1, 299, 299] in [-1, 1] with black corners."""
    y, x = np.mgrid[-1:1:299j, -1:1:299j]
    head = np.where(np.hypot(x, y) < 0.8, np.sin(9 * x) * np.cos(7 * y), -1)
    return torch.from_numpy(np.stack([head, np.roll(head, 40, 1)])[:, None].astype(np.float32))


def test_the_state_is_that_of_the_published_file(network):
    state = network.state_dict()
    assert len(state) == PUBLISHED_ENTRIES
    size = sum(value.numel() * value.element_size() for value in state.values())
    assert PUBLISHED_BYTES - 150_000 < size < PUBLISHED_BYTES  # the rest are names
    for key, shape in {
        "Conv2d_1a_3x3.conv.weight": [32, 3, 3, 3],
        "Mixed_5b.branch5x5_2.conv.weight": [64, 48, 5, 5],
        "Mixed_6a.branch3x3dbl_3.bn.running_var": [96],
        "Mixed_6c.branch7x7dbl_4.conv.weight": [160, 160, 7, 1],
        "Mixed_7c.branch3x3dbl_3b.conv.weight": [384, 384, 3, 1],
        "fc.weight": [1008, 2048],
    }.items():
        assert list(state[key].shape) == shape
    assert not any("Aux" in key for key in state)


def test_shapes_on_the_way(network, grey):
    sizes = {}
    hooks = [
        layer.register_forward_hook(lambda m, i, out, name=name: sizes.update({name: out.shape}))
        for name, layer in network.named_children()
    ]
    with torch.inference_mode():
        assert network(grey).shape == (2, 2048)
    for hook in hooks:
        hook.remove()
    for name, expected in {
        "Conv2d_1a_3x3": (32, 149),
        "Conv2d_2b_3x3": (64, 147),
        "pool_1": (64, 73),
        "Conv2d_4a_3x3": (192, 71),
        "Mixed_5b": (256, 35),
        "Mixed_5d": (288, 35),
        "Mixed_6a": (768, 17),
        "Mixed_6e": (768, 17),
        "Mixed_7a": (1280, 8),
        "Mixed_7c": (2048, 8),
    }.items():
        assert sizes[name] == (2, expected[0], expected[1], expected[1])


def test_mean_pooling_leaves_its_padding_out(network):
    ones = torch.ones(1, 192, 35, 35)
    for block in (network.Mixed_5b, network.Mixed_6d, network.Mixed_7b):
        assert (block.pool(ones) == 1).all()  # with padding counted, corners would be 4/9


def test_the_last_block_pools_by_maximum(network):
    spike = torch.zeros(1, 1, 8, 8)
    spike[0, 0, 4, 4] = 9
    assert network.Mixed_7b.pool(spike).max() == pytest.approx(1)
    assert (network.Mixed_7c.pool(spike) == 9).sum() == 9


def test_batch_norm_folds_into_the_convolution(network):
    layer = network.Mixed_7a.branch7x7x3_2
    weight, bias = layer.folded()
    x = torch.randn(2, 192, 9, 9, generator=torch.Generator().manual_seed(0))
    plain = torch.relu(torch.nn.functional.conv2d(x, weight, bias, padding=(0, 3)))
    torch.testing.assert_close(plain, layer(x), atol=1e-5, rtol=1e-5)


def test_the_onnx_form_is_the_same_network(network, grey):
    import onnx
    import onnxruntime

    data = to_onnx(network)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"grey": grey.numpy()})
    with torch.inference_mode():
        expected = network(grey).numpy()
    assert expected.std() > 0.05  # of order one, or nothing would be compared
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_seeded_and_leaves_the_global_stream_alone():
    state = torch.get_rng_state()
    one, two, other = (random_inception(seed).fc.weight for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.fixture
def file(tmp_path, monkeypatch, network):
    """A file that is taken for the published one."""
    path = tmp_path / inception.WEIGHTS
    torch.save(network.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "SHA256", digest)
    return path


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_the_published_file_is_loaded(file, network, monkeypatch, by):
    monkeypatch.setenv("FASTMRIGAN_INCEPTION", str(file) if by == "environment" else "elsewhere")
    loaded = load_inception(None if by == "environment" else file)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_any_other_file_is_refused(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(
        ModelRefused, match=r"6726825d\.pth: not Inception's published weights \(sh"
    ):
        load_inception(file)
    assert ModelRefused.exit_code == 5


@pytest.mark.parametrize(
    ("argument", "environment", "text"),
    [
        (None, None, "FID needs Inception's published weights: fetch pt_inception-2015-12-05"),
        (None, "/no/such.pth", "FASTMRIGAN_INCEPTION=/no/such.pth: no such file; fetch pt_inc"),
        ("/no/other.pth", "/no/such.pth", "--inception-weights /no/other.pth: no such file; fe"),
    ],
)
def test_without_a_file_the_message_says_where_it_is(monkeypatch, argument, environment, text):
    monkeypatch.delenv("FASTMRIGAN_INCEPTION", raising=False)
    if environment:
        monkeypatch.setenv("FASTMRIGAN_INCEPTION", environment)
    with pytest.raises(UsageError, match=text) as caught:
        load_inception(Path(argument) if argument else None)
    for part in (inception.WEIGHTS, "https://github.com/mseitzer/pytorch-fid/releases", "\n"):
        assert (part in str(caught.value)) == (part != "\n")


def test_the_digest_is_the_one_in_the_files_name():
    assert len(inception.SHA256) == 64
    assert inception.WEIGHTS.endswith(f"-{inception.SHA256[:8]}.pth")


@pytest.mark.slow
def test_equals_torch_fidelitys_network(network, tmp_path, monkeypatch):
    """Another port of the same graph, with the same names; its resize and range are its own."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    try:
        theirs = importlib.import_module("peers").torch_fidelity_inception()
    except ImportError as absent:
        pytest.skip(str(absent))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    peer = theirs.FeatureExtractorInceptionV3(
        "inception", ["2048"], feature_extractor_weights_path=str(tmp_path / "weights.pth")
    )
    draws = np.random.default_rng(0)
    seen = torch.from_numpy(draws.integers(0, 256, (2, 1, 299, 299), dtype=np.uint8))
    with torch.inference_mode():
        expected = peer(seen.expand(-1, 3, -1, -1))[0]
        found = network((seen.float() - 128) / 128)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_loading_leaves_the_global_stream_alone(file):
    state = torch.get_rng_state()
    load_inception(file)
    assert torch.equal(torch.get_rng_state(), state)
