"""Weights from a file and from a seed, and their normalisation."""

import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.models.vgg19 import RELUS, Vgg19Features
from fastmrigan.style.weights import checked, load_weights, normalise_activations, random_weights


@pytest.fixture(scope="module")
def state(untouched):
    return {key: value.clone() for key, value in untouched.network.state_dict().items()}


def saved(tmp_path, state, **options):
    path = tmp_path / "vgg19.pth"
    torch.save(state, path, **options)
    return path


@pytest.mark.parametrize("zipped", [True, False])  # torchvision's own file is of the older format
def test_file_round_trip(tmp_path, state, zipped):
    classifier = {"classifier.6.weight": torch.zeros(10, 4), "classifier.6.bias": torch.zeros(10)}
    path = saved(tmp_path, state | classifier, _use_new_zipfile_serialization=zipped)
    found = load_weights(path)
    assert found.origin == "file"
    assert re.fullmatch("sha256 [0-9a-f]{64}", found.label)
    assert found.network.state_dict().keys() == state.keys()
    for key, value in found.network.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in found.network.parameters())
    assert "torchvision" not in sys.modules


def test_half_precision_is_read_as_float32(tmp_path, state):
    path = saved(tmp_path, {key: value.half() for key, value in state.items()})
    assert load_weights(path).network.features[0].weight.dtype == torch.float32


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


WRONG = [
    (lambda s: without(s, "features.34.bias"), r"features\.34\.bias is missing"),
    (lambda s: s | {"features.1.running_mean": torch.zeros(64)}, "'features.1.running_mean' is no"),
    (lambda s: s | {"features.2.weight": torch.zeros(64, 3, 3, 3)}, r"\[64, 3, 3, 3\], expected"),
    (lambda s: s | {"features.0.bias": torch.zeros(64, dtype=torch.int64)}, "torch.int64"),
    (lambda s: s | {"features.0.bias": 3}, "int, expected floating point"),
    (lambda s: s | {"features.0.bias": torch.full((64,), float("nan"))}, "NaN or infinite"),
]


@pytest.mark.parametrize(("change", "told"), WRONG)
def test_other_contents_are_refused(state, change, told):
    with pytest.raises(ModelRefused, match=told) as refused:
        checked(Path("vgg19.pth"), change(state), state)
    assert str(refused.value).startswith("vgg19.pth: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [([1, 2], "holds a list, not a state_dict"), ({"a": 1}, r"features\.0\.weight is missing")],
)
def test_another_file_of_torch_is_refused(tmp_path, content, told):
    with pytest.raises(ModelRefused, match=told):
        load_weights(saved(tmp_path, content))


def test_damage_is_refused(tmp_path, state):
    path = saved(tmp_path, state)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        middle = len(whole) // 2  # inside a weight
        assert archive.infolist()[0].file_size < middle
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(ModelRefused, match="not a readable file of weights"):
        load_weights(path)
    for content in (whole[:middle], b"words", b""):
        path.write_bytes(content)
        with pytest.raises(ModelRefused, match="not a readable file of weights"):
            load_weights(path)


def test_code_in_the_file_is_not_run(tmp_path):
    class Touch:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    with pytest.raises(ModelRefused, match="not a readable"):
        load_weights(saved(tmp_path, {"features.0.weight": Touch()}))
    assert not (tmp_path / "ran").exists()


def test_a_name_that_promises_another_hash_is_refused(tmp_path, state):
    path = saved(tmp_path, state)
    promised = path.rename(tmp_path / "vgg19-dcbb9e9d.pth")
    with pytest.raises(ModelRefused, match=r"promises a sha256 of dcbb9e9d.*fetch it again"):
        load_weights(promised)


def test_no_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.pth: no such file"):
        load_weights(tmp_path / "absent.pth")


def test_random_weights_hang_on_the_seed_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = random_weights(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = random_weights(3), random_weights(4)
    weight = first.network.features[34].weight
    assert torch.equal(weight, again.network.features[34].weight)
    assert not torch.equal(weight, other.network.features[34].weight)
    assert (first.origin, first.label) == ("random", "random, seed 3")


def with_biases(weights):
    """Trained filters have biases, random ones none: the scaling must carry them too."""
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in weights.network.convolutions().values():
            layer.bias.normal_(0, 0.05)
    return weights.network


def test_normalised_filters_have_mean_activation_one(weights, contents, styles):
    network = with_biases(weights)
    slices = torch.from_numpy(np.concatenate([contents, styles]))[:, None]
    original = Vgg19Features()
    original.load_state_dict(network.state_dict())
    below = normalise_activations(network, slices)
    with torch.no_grad():
        found, before = network(slices), original(slices)
    off = 0
    for name in RELUS:
        mean = found[name].mean(dim=(0, 2, 3))  # [C]
        raw = before[name].mean(dim=(0, 2, 3))
        floor = 1e-3 * raw.mean()
        off += int((raw < floor).sum())
        torch.testing.assert_close(
            mean[raw >= floor], torch.ones_like(mean[raw >= floor]), rtol=1e-3, atol=0
        )
        assert (mean[raw < floor] <= 1.001).all()
        # the function stays the same but for one factor a filter
        scale = raw.clamp(min=floor)[:, None, None]
        torch.testing.assert_close(found[name] * scale, before[name], rtol=1e-3, atol=1e-4)
    assert below == off


def test_a_dark_layer_is_refused(weights, contents):
    with torch.no_grad():
        weights.network.features[5].weight.zero_()
    with pytest.raises(ModelRefused, match="layer 2_1 answers to none of the slices"):
        normalise_activations(weights.network, torch.from_numpy(contents)[:, None])
