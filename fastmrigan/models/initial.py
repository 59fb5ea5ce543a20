"""The initial weights of DCGAN, pix2pix and CycleGAN, for networks of convolutions and norms.

Radford, Metz, Chintala, ICLR 2016; Isola, Zhu, Zhou, Efros, CVPR 2017 (section 6.2).
"""

from __future__ import annotations

from torch import nn

from fastmrigan.ops import FusedInstanceNorm2d

SPREAD = 0.02  # standard deviation
MAPS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
NORMS = (nn.BatchNorm2d, FusedInstanceNorm2d)


def normal_weights(network: nn.Module) -> None:
    """Draws every weight of `network` anew, in the order of its modules, from torch's global RNG.

    Convolutions and dense layers N(0, 0.02), a norm's scale N(1, 0.02), every bias 0; running
    statistics as at the start. Raises TypeError for a layer of another kind that holds parameters,
    which would keep whatever its constructor drew.
    """
    for layer in network.modules():
        own = dict(layer.named_parameters(recurse=False))
        if isinstance(layer, MAPS):
            nn.init.normal_(layer.weight, 0.0, SPREAD)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
        if isinstance(layer, NORMS) and layer.weight is not None:
            nn.init.normal_(layer.weight, 1.0, SPREAD)
        if "bias" in own:
            nn.init.zeros_(own["bias"])
        if own and not isinstance(layer, (*MAPS, *NORMS)):
            raise TypeError(
                f"normal_weights: expected convolutions, dense layers and norms, got "
                f"{type(layer).__name__} with parameters {', '.join(own)}; initialise it apart"
            )
