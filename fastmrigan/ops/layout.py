"""Where the elements of a [N, C, ...] tensor stand, as the kernels understand it."""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from torch import Tensor

logger = logging.getLogger("fastmrigan.ops")

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
_said: set[str] = set()


def say_once(text: str, level: int = logging.INFO) -> None:
    """Logs `text` the first time it comes."""
    if text not in _said:
        _said.add(text)
        logger.log(level, text)


class Layout(NamedTuple):
    """strides, in elements: from n to n + 1; and from one plane to the next or, in channels_last,
    from one position to the next."""

    channels_last: bool
    strides: tuple[int, int]


def dense_strides(x: Tensor, channels_last: bool) -> tuple[int, int]:
    """The strides of a tensor of x's shape that fills its memory."""
    n, c = x.shape[:2]
    a_sample = x.numel() // n if n else 1
    return a_sample, c if channels_last else a_sample // max(c, 1)


def layout_of(x: Tensor) -> Layout | None:
    """The layout of x [N, C, H, W] or [N, C, D, H, W], or None where only a copy would have one."""
    if x.is_contiguous():
        return Layout(False, dense_strides(x, False))
    if x.is_contiguous(memory_format=CHANNELS_LAST[x.ndim]):
        return Layout(True, dense_strides(x, True))
    step = _dense_step(x)
    if step == 1:
        return Layout(False, (x.stride(0), x.stride(1)))
    if step is not None and x.stride(1) == 1 and step >= x.shape[1]:
        return Layout(True, (x.stride(0), step))
    return None


def _dense_step(x: Tensor) -> int | None:
    """The one stride that takes every position of a plane to the next, or None."""
    step = expected = None
    for size, stride in zip(reversed(x.shape[2:]), reversed(x.stride()[2:]), strict=True):
        if size == 1:
            continue
        if expected is not None and stride != expected:
            return None
        step = stride if step is None else step
        expected = stride * size
    return 1 if step is None else step


def memory_format(x: Tensor, channels_last: bool) -> torch.memory_format:
    return CHANNELS_LAST[x.ndim] if channels_last else torch.contiguous_format


def empty_in(x: Tensor, channels_last: bool) -> Tensor:
    """A dense tensor of x's shape, type and device."""
    return torch.empty_like(x, memory_format=memory_format(x, channels_last))


def with_layout(x: Tensor, name: str) -> tuple[Tensor, Layout]:
    """x itself and its layout; or a contiguous copy, which is logged."""
    layout = layout_of(x)
    if layout is None:
        say_once(
            f"instance_norm: {name} is neither contiguous nor channels_last: "
            "copied before each call"
        )
        return x.contiguous(), Layout(False, dense_strides(x, False))
    return x, layout


def in_layout(x: Tensor, channels_last: bool, name: str) -> tuple[Tensor, tuple[int, int]]:
    """x itself where it has the wanted layout, or a copy that has it, which is logged; strides."""
    layout = layout_of(x)
    if layout is not None and layout.channels_last == channels_last:
        return x, layout.strides
    wanted = memory_format(x, channels_last)
    copy = x.contiguous(memory_format=wanted)
    if copy is not x:  # a plane of one element is in both formats
        say_once(f"instance_norm: {name} is not {wanted} as x is: copied before each call")
    return copy, dense_strides(x, channels_last)
