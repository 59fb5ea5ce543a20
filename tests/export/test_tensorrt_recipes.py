"""The generator of every recipe built by tensorrt-rtx, which needs no GPU, in fp32 and as a typed
fp16 graph; each in a process of its own, for a compute capability that is given. No engine is run.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import small_graphs
import tiny_model as tiny

from fastmrigan.export.precision import typed_graph
from fastmrigan.export.tensorrt import EngineOptions, build_engine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx absent: pip install tensorrt-rtx"
    ),
]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", small_graphs.NAMES)
def test_every_recipes_generator_is_built(name, precision, write_model, tmp_path):
    _, facts = small_graphs.generator(name)
    graph = small_graphs.graph(name)
    document = tiny.metadata(
        task=facts.task,
        recipe=name,
        latent_size=facts.latent_size,
        slice_size=facts.slice_size,
        precision=precision,
    )
    model = write_model(document, graph if precision == "fp32" else typed_graph(graph, precision))
    options = EngineOptions("tensorrt-rtx", (1, 4), "8.9")
    document = build_engine(model, tmp_path / "recipe.engine", options)
    assert (document["model"]["recipe"], document["precision"]) == (name, precision)
    assert document["size"] == (tmp_path / "recipe.engine").stat().st_size > 1000
