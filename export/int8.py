"""int8 by NNCF's post-training quantisation: QuantizeLinear and DequantizeLinear around what is
computed in int8, ranges from calibration.

NNCF (github.com/openvinotoolkit/nncf) sends usage statistics through openvino-telemetry; here it is
told not to, since a machine beside patients' data reports nothing to anyone.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastmrigan.errors import MissingDependency

if TYPE_CHECKING:
    import onnx

Float32 = npt.NDArray[np.float32]

SILENT = "NNCF_CI"  # NNCF's own variable: with it set when NNCF is imported, it reports nothing


def need_nncf() -> None:
    """Raises MissingDependency before minutes are spent on the rest."""
    import importlib.util

    if importlib.util.find_spec("nncf") is None:
        raise MissingDependency("nncf", "int8", "--precision int8")


def int8_graph(model: onnx.ModelProto, inputs: Sequence[Float32]) -> onnx.ModelProto:
    """A copy of a float32 graph whose convolutions and dense layers compute in int8.

    inputs: what it is calibrated on, [batch, …] each, such as it will meet.
    Raises MissingDependency where NNCF is not installed.
    """
    import onnx

    need_nncf()
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    name = copy.graph.input[0].name
    with _quiet():
        import nncf

        feeds = nncf.Dataset([{name: x} for x in inputs])
        made = nncf.quantize(copy, feeds, subset_size=len(inputs))
    made.ClearField("metadata_props")
    made.producer_name, made.producer_version = model.producer_name, model.producer_version
    return onnx.shape_inference.infer_shapes(made, strict_mode=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF without its statistics, log lines and progress bars."""
    os.environ.setdefault(SILENT, "1")
    logger = logging.getLogger("nncf")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            Path(os.devnull).open("w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
        ):
            yield
    finally:
        logger.setLevel(before)
