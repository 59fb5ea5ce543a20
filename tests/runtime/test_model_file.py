"""What the runtime accepts as a model file, and how it refuses the rest."""

from __future__ import annotations

import hashlib

import onnx
import pytest
import tiny_model as tiny
from onnx import TensorProto, helper

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.runtime import onnx_wire
from fastmrigan.runtime.model_file import read_model_file


def test_reads_what_was_written(write_model):
    path = write_model()
    model = read_model_file(path)
    assert model.metadata.recipe == "tiny"
    assert model.metadata.slice_size == (16, 16)
    assert model.metadata.notice == "for research; not for diagnosis"
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_metadata_equals_the_onnx_package(write_model):
    model = onnx.load(write_model())
    entry = model.metadata_props.add()
    entry.key, entry.value = "second", "Größe"
    expected = {p.key: p.value for p in model.metadata_props}
    assert onnx_wire.metadata(model.SerializeToString()) == expected


FIGURES = {"version": "1", "device": "CPU", "max_abs_error": 0.1, "psnr_db": 60.0}
ODD_ENGINES = [
    *(5, None, [], "openvino-bf16", {"version": "1", "device": "CPU"}),
    *(FIGURES | {"psnr_db": odd} for odd in (None, "50", True, [50.0], float("nan"), 10**400)),
]
ODD_PARITY = [
    *({"openvino-bf16": engine} for engine in ODD_ENGINES),
    *({"real_slices": {"openvino-bf16": engine}} for engine in ODD_ENGINES),
    *({"real_slices": odd} for odd in (None, 5, True, "openvino-bf16", ["openvino-bf16"])),
]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "has no fastmrigan metadata"),
        ("{", "is not JSON"),
        ("[]", "wrong at document"),
        (tiny.metadata(schema_version=2), "schema version 2, this fastmrigan knows up to 1"),
        (tiny.metadata(task="dream"), "wrong at task"),
        (tiny.metadata(surprise=1), "wrong at surprise"),
        (tiny.metadata(latent_size=None), "must state latent_size"),
        (tiny.metadata(latent_size=0), "wrong at latent_size"),
        (
            tiny.metadata(slice_size=[0, 16]),
            r"wrong at slice_size\.0: .* greater than or equal to 1",
        ),
        (tiny.metadata(slice_size=[16, -16]), r"wrong at slice_size\.1"),
        (tiny.metadata(parity={"openvino-bf16": "x"}), "wrong at parity"),
        (tiny.metadata(latent_size="16"), "wrong at latent_size"),
        (tiny.metadata(rewrites={"constants": 0}), r"wrong at rewrites\.constants"),
        (tiny.metadata(rewrites=["constants"]), "wrong at rewrites"),
        *((tiny.metadata(parity=parity), "wrong at parity") for parity in ODD_PARITY),
        ("[" * 200_000, "is not JSON"),
        ('{"schema_version": ' + "1" * 5000 + "}", "is not JSON"),
    ],
)
def test_wrong_metadata_is_refused(write_model, document, message):
    path = write_model(document)
    with pytest.raises(ModelRefused, match=message) as refused:
        read_model_file(path)
    assert str(path) in str(refused.value)
    assert refused.value.exit_code == 5


def test_a_flipped_byte_is_refused_wherever_it_falls(write_model):
    path = write_model()
    whole = path.read_bytes()
    for at in range(0, len(whole), 61):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            model = read_model_file(path)
        except ModelRefused:
            continue
        # Only the metadata's own free text may differ unnoticed: the graph cannot.
        assert model.metadata.graph_sha256 == read_model_file(write_model()).metadata.graph_sha256
        path = write_model()


def test_every_truncation_is_refused_or_lacks_metadata(write_model):
    path = write_model()
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelRefused):
            read_model_file(path)


@pytest.mark.parametrize("content", [b"", b"not a model\n", b"\x00" * 64, b"\xff" * 64])
def test_files_that_are_no_model_are_refused(tmp_path, content):
    path = tmp_path / "no.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelRefused, match="not a whole ONNX file"):
        read_model_file(path)


def external(tensor: onnx.TensorProto) -> onnx.TensorProto:
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    return tensor


def graph_with_external(place: str) -> onnx.ModelProto:
    model = tiny.tiny_graph()
    if place == "initializer":
        external(model.graph.initializer[0])
    elif place == "constant":
        tensor = external(helper.make_tensor("c", TensorProto.FLOAT, [1], [0.0]))
        model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    else:
        tensor = external(helper.make_tensor("c", TensorProto.FLOAT, [1], [0.0]))
        inner = helper.make_graph([], "inner", [], [], [tensor])
        model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner))
    return model


@pytest.mark.parametrize("place", ["initializer", "constant", "subgraph"])
def test_external_data_is_refused_wherever_it_hides(write_model, place):
    path = write_model(graph=graph_with_external(place))
    with pytest.raises(ModelRefused, match="keeps weights in another file"):
        read_model_file(path)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def test_graphs_nested_without_end_are_refused(tmp_path):
    graph = b""
    for _ in range(500):  # graph > node > attribute > graph …
        graph = field(1, field(5, field(6, graph)))
    path = tmp_path / "deep.onnx"
    path.write_bytes(field(7, graph))
    with pytest.raises(ModelRefused, match="nested deeper"):
        read_model_file(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.onnx: cannot read the model file: No such file"):
        read_model_file(tmp_path / "absent.onnx")
