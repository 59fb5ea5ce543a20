"""The graph of every recipe's generator: what is folded, what is rewritten, what stays standard."""

import numpy as np
import onnxruntime
import pytest
import small_graphs
import torch
from onnx import helper

from fastmrigan.export.choice import REWRITES
from fastmrigan.export.graph import check_graph, norms_folded
from fastmrigan.export.parity import random_inputs

REFLECTED = {
    "t2-tumour-cyclegan",
    "style-transfer-gan",
    "ct-mri-cyclegan-resnet",
}
# Of each rewrite, recipes that it changes.
CHANGED = {
    "constants": ["style-transfer-gan"],
    "batch norms": ["tumour-dcgan128"],
    "inert biases": ["t2-tumour-cyclegan", "style-transfer-gan"],
    "transposed convolutions": ["tumour-dcgan64", "t1-t2-cyclegan-unet-v1"],
}


def ran(graph, facts, batch=3):
    """The inputs and what ONNX Runtime makes of them."""
    (x,) = random_inputs(facts.task, facts.input_shape, (batch,), seed=1)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    (got,) = session.run(None, {session.get_inputs()[0].name: x})
    return x, got


def expected_of(module, x):
    with torch.inference_mode():
        made = module(torch.from_numpy(x)).numpy()
    assert made.std() > 0.01  # a generator of nothing would agree with anything
    return made


def test_every_recipe_is_here():
    assert set(small_graphs.OVERRIDES) == set(small_graphs.NAMES)


@pytest.mark.parametrize("name", small_graphs.EACH)
@pytest.mark.parametrize("speed", [True, False])
def test_graph_of(name, speed):
    module, facts = small_graphs.generator(name, speed)
    graph = small_graphs.graph(name, speed)
    check_graph(graph, facts)
    nodes, weights = graph.graph.node, {each.name for each in graph.graph.initializer}

    assert "BatchNormalization" not in {node.op_type for node in nodes}
    constant = [node.name for node in nodes if all(i in weights for i in node.input if i)]
    assert constant == []
    if speed:
        for node in nodes:
            readers = [other.op_type for other in nodes if node.output[0] in other.input]
            if node.op_type in ("Conv", "ConvTranspose") and readers == ["InstanceNormalization"]:
                assert len(node.input) == 2, f"{node.name} keeps a bias that the norm removes"
    modes = [
        helper.get_attribute_value(each)
        for node in nodes
        if node.op_type == "Pad"
        for each in node.attribute
        if each.name == "mode"
    ]
    assert set(modes) == ({b"reflect"} if name in REFLECTED else set())

    x, got = ran(graph, facts)
    np.testing.assert_allclose(got, expected_of(module, x), rtol=0, atol=1e-4)


def test_every_rewrite_is_here():
    assert list(CHANGED) == list(REWRITES)


@pytest.mark.parametrize(
    ("rewrite", "name"),
    [
        pytest.param(rewrite, name, marks=[] if name == small_graphs.FAST else [pytest.mark.slow])
        for rewrite, names in CHANGED.items()
        for name in names
    ],
)
def test_each_rewrite_alone_keeps_the_slices(rewrite, name):
    """With biases before instance norms there to be dropped."""
    module, facts = small_graphs.generator(name, speed=False)
    graph = small_graphs.exported(name, speed=False)
    _, before = ran(graph, facts)
    assert REWRITES[rewrite].change(graph) > 0
    check_graph(graph, facts)
    x, after = ran(graph, facts)
    np.testing.assert_allclose(after, before, rtol=0, atol=2e-5)
    np.testing.assert_allclose(after, expected_of(module, x), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_batch_norms_behind_convolutions_are_folded_by_the_exporter():
    name = "tumour-dcgan64"
    module, facts = small_graphs.generator(name, speed=False)
    bare = small_graphs.exported(name, speed=False, folded=False)
    folded = small_graphs.exported(name, speed=False)
    counts = [
        sum(node.op_type == "BatchNormalization" for node in each.graph.node)
        for each in (bare, folded)
    ]
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert counts == [len(norms), 0]
    assert norms_folded(module, bare) == 0
    assert norms_folded(module, folded) == len(norms)
    x, before = ran(bare, facts)
    _, after = ran(folded, facts)
    np.testing.assert_allclose(after, before, rtol=0, atol=2e-5)
    np.testing.assert_allclose(after, expected_of(module, x), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["tumour-progan", pytest.param("tumour-dcgan128", marks=[pytest.mark.slow])]
)
def test_a_latent_of_zeros(name):
    """A pixel norm divides by what its epsilon keeps from zero; the exporter must not drop that."""
    module, facts = small_graphs.generator(name)
    x = np.zeros((2, *facts.input_shape), np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    session = onnxruntime.InferenceSession(small_graphs.graph(name).SerializeToString())
    (got,) = session.run(None, {"latent": x})
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


def test_biases_before_norms_are_there_to_be_dropped_and_kept():
    """They would make no file faster; `speed: true` leaves them out of the network."""
    module, _ = small_graphs.generator("t2-tumour-cyclegan", speed=False)
    convolutions = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    biased = [m for m in module.modules() if isinstance(m, convolutions) and m.bias is not None]
    graph = small_graphs.graph("t2-tumour-cyclegan", speed=False)

    def kept():
        nodes = [n for n in graph.graph.node if n.op_type in ("Conv", "ConvTranspose")]
        return sum(len(node.input) == 3 for node in nodes)

    assert (len(biased), kept()) == (10, 10)
    assert REWRITES["inert biases"].change(graph) == 9
    assert kept() == 1


@pytest.mark.slow
def test_batch_norm_is_there_to_be_folded():
    module, _ = small_graphs.generator("tumour-dcgan128")
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 3
    assert {node.op_type for node in small_graphs.graph("tumour-dcgan128").graph.node} >= {"Gemm"}


@pytest.mark.slow
def test_the_checkers_graph_has_types_for_what_is_left():
    """Folding leaves no shape behind of a value that is no more."""
    for name in ("style-transfer-gan", "tumour-dcgan128"):
        graph = small_graphs.graph(name).graph
        made = {output for node in graph.node for output in node.output}
        assert {value.name for value in graph.value_info} <= made
