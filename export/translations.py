"""Our own operators in terms of standard ONNX ones, for torch.onnx.export's
custom_translation_table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx.helper import make_tensor
from onnxscript import opset18 as op

from fastmrigan.ops import instance_norm_op


def instance_norm(
    x: Any,
    weight: Any,
    bias: Any,
    residual: Any,
    activation: str,
    slope: float,
    eps: float,
) -> tuple[Any, Any]:
    """InstanceNormalization, Relu or LeakyRelu, and Add. The statistics, which only the backward
    reads, are not made: an empty tensor stands in their place."""
    channels = x.shape[1]
    ones = op.Constant(value=_tensor(np.ones(channels), x))
    zeros = op.Constant(value=_tensor(np.zeros(channels), x))
    scale = ones if weight is None else op.CastLike(weight, x)
    shift = zeros if bias is None else op.CastLike(bias, x)
    y = op.InstanceNormalization(x, scale, shift, epsilon=eps)
    if activation == "relu":
        y = op.Relu(y)
    elif activation == "leaky_relu":
        y = op.LeakyRelu(y, alpha=slope)
    if residual is not None:
        y = op.Add(y, residual)
    return y, op.Constant(value=_tensor(np.empty(0), x))


def _tensor(values: np.ndarray, like: Any) -> Any:
    return make_tensor("", like.dtype, values.shape, values)


TRANSLATIONS: dict[Any, Callable[..., Any]] = {instance_norm_op.instance_norm: instance_norm}
