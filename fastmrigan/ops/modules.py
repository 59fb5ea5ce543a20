"""Drop-in modules over fused instance norm, and the helper that swaps them in."""

from __future__ import annotations

import logging
from collections.abc import Collection

from torch import Tensor, nn
from torch.nn.utils import parametrize

from fastmrigan.ops.instance_norm import Activation, Backend, instance_norm
from fastmrigan.ops.instance_norm_kernel import ACTIVATIONS

logger = logging.getLogger("fastmrigan.ops")


class _FusedInstanceNorm(nn.Module):
    spatial: int

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = False,
        *,
        activation: Activation = "none",
        slope: float = 0.2,
        backend: Backend = "auto",
        device: object = None,
        dtype: object = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"{type(self).__name__}: expected activation {', '.join(ACTIVATIONS)}, "
                f"got {activation!r}"
            )
        # nn.InstanceNorm makes, initialises and names the parameters.
        norm = nn.InstanceNorm2d(num_features, eps, affine=affine, device=device, dtype=dtype)
        self.weight, self.bias = norm.weight, norm.bias  # [C] or None
        self.num_features = num_features
        self.eps = eps
        self.affine = affine
        self.activation = activation
        self.slope = slope
        self.backend = backend

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """x [N, C, ...] or [C, ...] to act(norm(x)) + residual, in x's dtype and memory format."""
        if x.ndim == self.spatial + 1:
            return self.forward(x[None], None if residual is None else residual[None])[0]
        wrong_channels = self.affine and x.shape[1:2] != (self.num_features,)
        if x.ndim != self.spatial + 2 or wrong_channels:
            axes = "D, H, W" if self.spatial == 3 else "H, W"
            raise ValueError(
                f"{type(self).__name__}: expected [N, {self.num_features}, {axes}], "
                f"got {list(x.shape)}"
            )
        return instance_norm(
            x,
            self.weight,
            self.bias,
            activation=self.activation,
            slope=self.slope,
            residual=residual,
            eps=self.eps,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        slope = f", slope={self.slope}" if self.activation == "leaky_relu" else ""
        return (
            f"{self.num_features}, eps={self.eps}, affine={self.affine}, "
            f"activation={self.activation}{slope}, backend={self.backend}"
        )


class FusedInstanceNorm2d(_FusedInstanceNorm):
    """nn.InstanceNorm2d and the activation behind it, with the same state_dict.

    forward(x [N, C, H, W], residual=None); see fastmrigan.ops.instance_norm. There are no running
    statistics, hence no momentum: training and evaluation compute the same. num_features is held
    against x where there are weights, as nn.InstanceNorm2d does.
    """

    spatial = 2


class FusedInstanceNorm3d(_FusedInstanceNorm):
    """The same for [N, C, D, H, W]."""

    spatial = 3


_FUSED = {nn.InstanceNorm2d: FusedInstanceNorm2d, nn.InstanceNorm3d: FusedInstanceNorm3d}
_ACTIVATIONS: dict[type[nn.Module], Activation] = {nn.ReLU: "relu", nn.LeakyReLU: "leaky_relu"}


def fuse_instance_norm(
    model: nn.Module, *, activations: bool = True, backend: Backend = "auto"
) -> int:
    """Swaps every nn.InstanceNorm2d and 3d inside `model`, in place; returns how many.

    Where a norm stands in an nn.Sequential and an nn.ReLU or nn.LeakyReLU follows, the activation
    is fused too and an nn.Identity takes its place, so that the names in the state_dict stay as
    they are; who reads the norm's own output there finds it activated (activations=False leaves
    them apart). Parameters are the same objects: an optimiser made before keeps working.

    Left alone, and logged with the reason: norms with running statistics, which need them in
    evaluation, and norms with a parametrization; norms and activations with hooks, which would no
    longer see their inputs, with a forward patched on the instance, or of a derived class.
    """
    swapped = 0
    for path, parent in list(model.named_modules()):
        children = list(parent._modules.items())  # named_children would skip a repeated module
        following = [*children[1:], ("", None)]
        for (name, norm), (after_name, after) in zip(children, following, strict=False):
            if not _may_be_swapped(norm, _FUSED, path, name):
                continue
            fused = _fused(norm, backend)
            in_sequence = type(parent).forward is nn.Sequential.forward and not _patched(parent)
            fusing = activations and in_sequence
            if fusing and _may_be_swapped(after, _ACTIVATIONS, path, after_name):
                fused.activation = _ACTIVATIONS[type(after)]
                fused.slope = getattr(after, "negative_slope", fused.slope)
                parent._modules[after_name] = nn.Identity()
            parent._modules[name] = fused
            swapped += 1
    return swapped


def _fused(norm: nn.Module, backend: Backend) -> _FusedInstanceNorm:
    fused = _FUSED[type(norm)](norm.num_features, norm.eps, norm.affine, backend=backend)
    fused.weight, fused.bias = norm.weight, norm.bias
    return fused.train(norm.training)


def _may_be_swapped(
    module: nn.Module | None, kinds: Collection[type[nn.Module]], path: str, name: str
) -> bool:
    """Whether the module is one of `kinds` and no more; what is more than that is logged."""
    if module is None or not isinstance(module, tuple(kinds)):
        return False
    why_not = _why_not(module, kinds)
    if why_not:
        where = ".".join(filter(None, (path, name)))
        logger.warning("fuse_instance_norm: left %s alone: %s", where, why_not)
    return not why_not


def _why_not(module: nn.Module, kinds: Collection[type[nn.Module]]) -> str:
    """What a swap would lose, or ""."""
    if parametrize.is_parametrized(module):  # of a derived class too, hence asked first
        return "it is parametrised"
    if type(module) not in kinds:
        return f"it is of a derived class, {type(module).__name__}"
    if _patched(module):
        return "its forward is patched"
    if getattr(module, "track_running_stats", False):
        return "it keeps running statistics"
    return "it has hooks" if _has_hooks(module) else ""


def _patched(module: nn.Module) -> bool:
    return "forward" in vars(module)


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
