"""The thin runtime: a model file in, slices out. Never imports torch.

generator = fastmrigan.runtime.load("model.onnx")
slices = generator.sample(16, seed=7)  # float32 [16, H, W] in [-1, 1]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastmrigan.runtime.generator import Generator, load

__all__ = ["Generator", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from fastmrigan.runtime import generator

        return getattr(generator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
