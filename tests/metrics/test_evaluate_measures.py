"""Which measures an evaluation takes, and what each of them needs."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.metrics import classifier_measures, downstream, evaluation_inputs
from fastmrigan.metrics.choice import MEASURES, choose
from fastmrigan.metrics.distances import sample_warnings, small_fid
from fastmrigan.metrics.extraction import FeatureNetwork
from fastmrigan.metrics.slice_sets import read_slice_set

pytestmark = pytest.mark.usefixtures("short_classifier")


def of_sizes(real, made):
    sides = (SimpleNamespace(slices=np.empty((n, 1, 1))) for n in (real, made))
    return SimpleNamespace(**dict(zip(("real", "made"), sides, strict=True)))


def test_warning_only_for_small_samples():
    assert sample_warnings(of_sizes(2048, 5000), {"frechet"}) == []
    assert small_fid(of_sizes(2048, 5000)) == ""
    for only in ("frechet", "radiomics"):
        (warning,) = sample_warnings(of_sizes(2047, 5000), {only, "kid"})
        assert warning.startswith("Small sample: 2,047 real slices.")
    assert small_fid(of_sizes(2048, 2047)).startswith("Small sample: with 2,047 slices on a side")


def test_no_warning_of_small_samples_without_a_distance(world, measure):
    """Frechet distances alone grow as samples shrink."""
    assert sample_warnings(of_sizes(50, 50), set(MEASURES) - {"frechet", "radiomics"}) == []
    assert measure(world.data, world.synthetic, only=("diversity",)).warnings == []


@pytest.mark.parametrize(
    ("only", "skip", "thorough", "chosen"),
    [
        ((), (), False, set(MEASURES) - {"two-sample", "utility"}),
        ((), (), True, set(MEASURES)),
        ((), ("frechet,kid", "pairs"), True, set(MEASURES) - {"frechet", "kid", "pairs"}),
        (("utility", "pairs, kid"), (), False, {"utility", "pairs", "kid"}),
        (("kid",), ("frechet",), False, {"kid"}),
        (("two-sample",), (), True, {"two-sample"}),
    ],
)
def test_choice_of_measures(only, skip, thorough, chosen):
    assert choose(only, skip, thorough=thorough) == chosen


def test_wrong_choices(world, measure):
    with pytest.raises(UsageError, match="--only 'ssim': unknown; choose among pairs, sources"):
        choose(["ssim"], [])
    with pytest.raises(UsageError, match="--only and --skip leave nothing"):
        choose(["kid"], ["kid"])
    given = (world.data, world.synthetic)
    for name, reason in (
        ("pairs", "--real is no prepared dataset of pairs"),
        ("utility", "give --classifier-data"),
        ("discriminator", "needs the --run of a GAN"),
    ):
        with pytest.raises(UsageError, match=f"--only {name}: .*{reason}"):
            measure(*given, only=(name,))


def test_only_some(world, measure):
    found = measure(world.data, world.synthetic, only=("diversity",))
    assert [m.key for m in found.measures] == ["pair_ssim"]
    assert found.left_out == {}


def test_features_of_the_users_own(world, tmp_path, measure):
    model = own_network(tmp_path / "own.onnx")
    found = measure(
        world.data, world.synthetic, features=model, only=("frechet", "kid", "manifold")
    )
    assert {"fd_random", "fd_own", "fd_own_floor", "kd_own", "precision"} <= {
        m.key for m in found.measures
    }
    real, made = (
        read_slice_set(path).slices.reshape(-1, 8, 8, 8, 8).mean(axis=(2, 4)).reshape(-1, 64)
        for path in (world.data, world.synthetic)
    )
    mean = np.square(real.mean(axis=0) - made.mean(axis=0)).sum()
    assert found.value("fd_own") > mean > 0
    assert "own.onnx" in found.settings["own features"]


def test_fid(world, monkeypatch, measure):
    """With Inception in place (here a stand-in for its features) distances are FID and KID."""
    asked = []

    def stand_in(weights, precision):
        asked.append((weights, precision))
        tiles = lambda x, **_: x.reshape(-1, 8, 8, 8, 8).mean(axis=(2, 4)).reshape(-1, 64)  # noqa: E731
        return FeatureNetwork("Inception v3", 64, tiles, {"engine": "none"})

    monkeypatch.setattr(evaluation_inputs, "inception_network", stand_in)
    options = {"label": "tumour", "inception_precision": "bf16"}
    options["only"] = ("frechet", "kid", "manifold", "copies")
    found = measure(world.data, world.synthetic, inception_weights=Path("file.pth"), **options)
    assert asked == [(Path("file.pth"), "bf16")]
    measures = {m.key: m for m in found.measures}
    assert measures["fid"].reference == measures["fid_floor"].value > 0
    for text in ("published Inception features", "grey replicated", "Small sample: with 50 slices"):
        assert text in measures["fid"].meaning
    assert {"kid", "kid_subsets", "kid_subsets_sd", "copies_inception_flagged"} <= measures.keys()
    assert "published Inception" in measures["precision"].meaning
    assert found.left_out == {}
    assert found.settings["Inception, engine"] == "none"
    monkeypatch.setenv("FASTMRIGAN_INCEPTION", "x.pth")
    measure(world.data, world.synthetic, only=("frechet",))
    measure(world.data, world.synthetic, only=("diversity",))  # needs no Inception
    assert asked[1:] == [(None, "fp32")]


def test_wrong_inception_weights(world, tmp_path, measure):
    (tmp_path / "w.pth").write_bytes(b"no weights")
    with pytest.raises(ModelRefused, match=r"w\.pth: .*sha256"):
        measure(world.data, world.synthetic, inception_weights=tmp_path / "w.pth")


@pytest.mark.slow
def test_thorough(world, monkeypatch, measure):
    """What takes minutes: told apart by a classifier, and the use of synthetic tumours."""
    short = partial(downstream.tumour_utility, steps=30, seeds=1)
    monkeypatch.setattr(classifier_measures, "tumour_utility", short)
    found = measure(
        world.data,
        world.synthetic,
        label="tumour",
        classifier_data=world.data,
        only=("two-sample", "utility"),
    )
    value = {m.key: m for m in found.measures}
    assert value["real_or_fake"].interval[0] < 0.6  # both sides are discs of the same kind
    assert value["utility_synthetic"].reference == value["utility_real"].value
    assert value["utility_synthetic"].value > 0.7
    low, high = value["utility_gain"].interval
    assert low <= value["utility_gain"].value <= high
    assert {m.section for m in found.measures} == {"sets", "tumours"}


def own_network(path):
    """Means of 8x8 tiles: [N, 1, 64, 64] to [N, 64]."""
    from onnx import TensorProto, helper, save

    nodes = [
        helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["y"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 64, 64])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 64])],
    )
    opset = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path
