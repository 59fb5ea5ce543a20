"""The PyTorch face of the native kernels, each with a plain-PyTorch twin.

Rules of the room: inputs are checked here, once; the kernels assume. Each operator is registered
with torch.library (fake kernel, autograd), so that torch.compile, torch.export and DDP see it.
`backend` is "native", "torch" or "auto"; what "auto" took is logged once, to the logger
`fastmrigan.ops`. The strided convolutions are no operator: modules of PyTorch's whose backward is
another composition of its own operators, under autograd alone.
"""

from fastmrigan.ops.instance_norm import instance_norm, instance_norm_torch
from fastmrigan.ops.memory import keep_freed_memory
from fastmrigan.ops.modules import FusedInstanceNorm2d, FusedInstanceNorm3d, fuse_instance_norm

__all__ = [
    "FusedInstanceNorm2d",
    "FusedInstanceNorm3d",
    "fuse_instance_norm",
    "instance_norm",
    "instance_norm_torch",
    "keep_freed_memory",
]
