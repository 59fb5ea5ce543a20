"""Feature networks: what they see, how they run, what they refuse, and pytorch-fid beside them."""

import io

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.metrics import extraction
from fastmrigan.metrics.extraction import onnx_network, radiomic_network, random_network
from fastmrigan.metrics.features import random_features
from fastmrigan.metrics.inception import random_inception
from fastmrigan.metrics.radiomics import radiomic_features


def heads(count, size=40, seed=0):
    draws = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    slices = np.full((count, size, size), -1.0)
    for each in slices:
        each[np.hypot(x, y) < draws.uniform(0.5, 0.9)] = draws.uniform(-0.5, 0.9)
        each += 0.05 * draws.standard_normal(each.shape)
    return slices.clip(-1, 1).astype(np.float32)


def save_onnx(path, nodes, shape, out, weights=(), kinds=(TensorProto.FLOAT, TensorProto.FLOAT)):
    graph = helper.make_graph(
        nodes,
        "features",
        [helper.make_tensor_value_info("image", kinds[0], shape)],
        [helper.make_tensor_value_info("out", kinds[1], out)],
        list(weights),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs, [output], **attributes)


def moments_network(path, channels=1, shape=("N", None, "H", "W"), out=("N", "d", 1, 1)):
    """[mean, maximum] of each channel: any network of the right face."""
    shape = [shape[0], channels, *shape[2:]]
    nodes = [
        node("GlobalAveragePool", ["image"], "mean"),
        node("GlobalMaxPool", ["image"], "most"),
        node("Concat", ["mean", "most"], "out", axis=1),
    ]
    return save_onnx(path, nodes, shape, out)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 8, 19])
def test_a_network_of_the_users_own(tmp_path, backend, channels, count):
    network = onnx_network(moments_network(tmp_path / "own.onnx", channels), backend=backend)
    assert network.dimension == 2 * channels
    slices = heads(count)
    rows = network(slices, shown=False)
    expected = np.stack([slices.mean((1, 2)), slices.max((1, 2))], 1).repeat(channels, 1)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert network.name.startswith("own.onnx (sha256 ")
    assert network.facts["engine"].startswith(
        f"{backend} (asked for), fp32, batch {extraction.BATCH}"
    )


@pytest.mark.parametrize(
    "shape", [(1, None, "H", "W"), (5, None, 40, 40), ("N", None, 40, "W"), ("N", None, 40, 40)]
)
def test_fixed_batches_and_sizes(tmp_path, shape):
    out = (shape[0], 2, 1, 1)
    network = onnx_network(moments_network(tmp_path / "own.onnx", shape=shape, out=out))
    slices = heads(7)
    expected = np.stack([slices.mean((1, 2)), slices.max((1, 2))], 1)
    np.testing.assert_allclose(network(slices, shown=False), expected, atol=1e-6)


def test_slices_are_resized_to_a_fixed_size(tmp_path):
    flat = [
        node("Flatten", ["image"], "out", axis=1),
    ]
    network = onnx_network(save_onnx(tmp_path / "f.onnx", flat, ["N", 1, 20, 30], ["N", 600]))
    assert network.dimension == 600
    slices = heads(3, size=64)
    expected = [
        np.asarray(Image.fromarray(x).resize((30, 20), Image.Resampling.BILINEAR)).ravel()
        for x in slices
    ]
    np.testing.assert_allclose(network(slices, shown=False), expected, atol=2e-5)


def test_row_i_depends_on_slice_i_alone(tmp_path):
    network = onnx_network(moments_network(tmp_path / "own.onnx"))
    slices = heads(11)
    np.testing.assert_array_equal(
        network(slices[9:10], shown=False), network(slices, shown=False)[9:10]
    )


def external(path):
    model = onnx.load(moments_network(path))
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    weight.data_location = TensorProto.EXTERNAL
    model.graph.initializer.append(weight)
    path.write_bytes(model.SerializeToString())


def two_outputs(path):
    model = onnx.load(moments_network(path))
    model.graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, None))
    path.write_bytes(model.SerializeToString())


def cut_short(path):
    data = moments_network(path).read_bytes()
    path.write_bytes(data[:-7])


def unknown_operator(path):
    save_onnx(path, [node("NoSuchThing", ["image"], "out")], ["N", 1, 8, 8], ["N", 2])


def single(kind, shape, out, **attributes):
    kinds = attributes.pop("kinds", (TensorProto.FLOAT, TensorProto.FLOAT))
    return lambda path: save_onnx(
        path, [node(kind, ["image"], "out", **attributes)], shape, out, kinds=kinds
    )


BAD_NETWORKS = {
    "external": (external, "keeps weights in another file"),
    "cut short": (cut_short, "not a whole ONNX file"),
    "no ONNX": (lambda path: path.write_bytes(b"\x93NUMPY" + bytes(80)), "not a whole ONNX file"),
    "empty": (lambda path: path.write_bytes(b""), "not a whole ONNX file"),
    "operator": (unknown_operator, "cannot be opened: "),
    "outputs": (two_outputs, "it has 1 inputs and 2 outputs"),
    "channels": (lambda path: moments_network(path, 2), r"its input is \[\?,2,\?,\?\]"),
    "volume": (single("Relu", ["N", 1, 4, 4, 4], ["N", 1, 4, 4, 4]), "its input is"),
    "vector": (single("Relu", ["N", 4], ["N", 4]), "its input is"),
    "integers": (
        single("Relu", ["N", 1, 8, 8], ["N", 1, 8, 8], kinds=(TensorProto.INT32,) * 2),
        "its input is i32",
    ),
    "classes": (
        single(
            "Cast",
            ["N", 1, 8, 8],
            ["N", 1, 8, 8],
            to=TensorProto.INT64,
            kinds=(TensorProto.FLOAT, TensorProto.INT64),
        ),
        "its output is i64",
    ),
    "picture": (single("Relu", ["N", 1, "H", "W"], ["N", 1, "H", "W"]), "more features of larger"),
    "one number": (
        single("ReduceMean", ["N", 1, 8, 8], [1, 1, 1, 1], keepdims=1),
        "its output is ",
    ),
}


@pytest.mark.parametrize("case", BAD_NETWORKS)
def test_bad_networks_are_refused_in_a_line(tmp_path, case):
    make, text = BAD_NETWORKS[case]
    path = tmp_path / "bad.onnx"
    make(path)
    with pytest.raises(ModelRefused, match=text) as caught:
        onnx_network(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"--features .*none\.onnx: cannot be read: No such file"):
        onnx_network(tmp_path / "none.onnx")


def test_nan_is_refused(tmp_path):
    path = save_onnx(
        tmp_path / "log.onnx",
        [node("Log", ["image"], "log"), node("GlobalAveragePool", ["log"], "out")],
        ["N", 1, "H", "W"],
        ["N", 1, 1, 1],
    )
    with pytest.raises(
        ModelRefused, match=f"NaN or infinite features of slices 0 to {extraction.BATCH - 1}"
    ):
        onnx_network(path)(heads(9), shown=False)


@pytest.mark.parametrize(
    ("make", "same"), [(random_network, random_features), (radiomic_network, radiomic_features)]
)
def test_networks_that_need_no_file(make, same):
    network, slices = make(), heads(5)
    rows = network(slices, shown=False)
    assert rows.shape == (5, network.dimension)
    np.testing.assert_array_equal(rows, same(slices, shown=False))


@pytest.mark.parametrize("wrong", [np.zeros((8, 8), np.float32), np.zeros((2, 8, 8))])
def test_wrong_slices(wrong):
    with pytest.raises(UsageError, match=r"radiomic-style .*: expected float32 \[N, H"):
        radiomic_network()(wrong)


def test_nan_slices(tmp_path):
    slices = heads(20)
    slices[17, 3, 3] = np.nan
    with pytest.raises(UsageError, match="NaN or infinity in slices from 16 on"):
        onnx_network(moments_network(tmp_path / "own.onnx"))(slices, shown=False)


@pytest.mark.parametrize("shown", [True, False])
def test_progress(tmp_path, capsys, shown):
    network = onnx_network(moments_network(tmp_path / "own.onnx"))
    network(heads(2), label="slices of a test", shown=shown)
    assert ("slices of a test" in capsys.readouterr().err) == shown


def as_pytorch_fid_reads(slices, size=299):
    """A PNG of each slice, opened as RGB, in [0, 1], resized, in [-1, 1]."""
    seen = []
    for each in slices:
        png = io.BytesIO()
        grey = np.round((each.astype(np.float64) + 1) * 127.5).astype(np.uint8)
        Image.fromarray(grey).save(png, "png")
        rgb = np.asarray(Image.open(png).convert("RGB"))
        seen.append(torch.from_numpy(rgb.copy()).permute(2, 0, 1).float().div(255))
    x = torch.nn.functional.interpolate(
        torch.stack(seen), (size, size), mode="bilinear", align_corners=False
    )
    return 2 * x - 1  # [N, 3, 299, 299]


@pytest.mark.parametrize("size", [16, 64, 299, 512])
def test_inception_sees_what_pytorch_fid_reads_from_a_file(size):
    slices = heads(2, size)
    seen = extraction.as_8_bit_file(slices)
    assert seen.shape == (2, 1, 299, 299)
    expected = as_pytorch_fid_reads(slices).numpy()
    np.testing.assert_allclose(np.broadcast_to(seen, expected.shape), expected, atol=3e-7)


@pytest.fixture(scope="module")
def inception():
    return random_inception(seed=2)


@pytest.mark.parametrize("backend", ["torch", "openvino", "onnxruntime"])
def test_inception_is_the_same_on_every_engine(inception, backend):
    network = extraction.of_inception(inception, "random", backend=backend, batch=2)
    slices = heads(3, 48)
    with torch.inference_mode():
        expected = inception(as_pytorch_fid_reads(slices)[:, :1]).numpy()
    rows = network(slices, shown=False)
    assert rows.shape == (3, 2048)
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    assert (", fp32, batch 2") in network.facts["engine"]


@pytest.mark.gpu
def test_inception_on_a_cuda_device_is_fp32_and_not_tf32():
    slices = heads(5, 48)
    with torch.inference_mode():
        expected = random_inception(seed=2)(as_pytorch_fid_reads(slices)[:, :1]).numpy()
    network = extraction.of_inception(random_inception(seed=2), "random")
    assert network.facts["engine"].endswith("on cuda, fp32, batch 64")
    np.testing.assert_allclose(network(slices, shown=False), expected, atol=1e-4)


def test_an_unknown_precision(inception):
    with pytest.raises(UsageError, match="precision 'fp16': features are computed in fp32 or bf16"):
        extraction.of_inception(inception, "random", "fp16")


@pytest.mark.slow
def test_bf16_says_how_far_it_drifts(inception, capsys):
    try:
        network = extraction.of_inception(inception, "random", "bf16", backend="openvino")
    except UsageError as error:
        pytest.skip(str(error))
    slices = heads(12, 48)
    rows = network(slices, label="made")
    exact = extraction.of_inception(inception, "random", backend="openvino")(slices, shown=False)
    off = np.abs(rows - exact).max()
    assert 1e-4 < off < 0.1 * exact.std() + 0.05
    assert network.name == "random, in bf16"
    assert f"up to {off:.2g} off" in network.facts["bf16 drift"]
    assert network.facts["bf16 drift"] in capsys.readouterr().err
