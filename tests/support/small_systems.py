"""Every translating and sampling recipe made small, and slices to feed it."""

import numpy as np
import torch

from fastmrigan.training.recipe_file import load_recipe

SMALL = ["size=32", "batch=2", "epochs=null", "plot_epochs=[]", "sample_count=2", "log_every=1"]
NETWORKS = ["generator.width=4", "discriminator.width=4"]
CYCLE = [*SMALL, *NETWORKS, "source_label=null", "target_label=null"]
RESNET = ["generator.network=resnet", "generator={network: resnet, width: 4, blocks: 2}"]
RECIPES = {
    "t2-tumour-cyclegan": [*CYCLE, *RESNET, "losses.identity=0.5", "discriminator.layers=2"],
    "ct-mri-cyclegan-resnet": [*CYCLE, "size=64", "discriminator.layers=2"],
    "t1-t2-cyclegan-unet-v1": [*CYCLE, "generator.downs=3", "pool=4"],
    "pix2pix-attention-unet": [*SMALL, *NETWORKS, "generator.units=2", "discriminator.layers=2"],
    "style-transfer-gan": [
        *SMALL,
        *NETWORKS,
        "generator.blocks=1",
        "generator_back={network: resnet, width: 4, blocks: 1}",
        "discriminator.layers=2",
    ],
    "tumour-dcgan128": [*SMALL, *NETWORKS, "generator.latent=8", "label=null"],
    "tumour-progan": [*SMALL, "generator.width=8", "discriminator.width=8", "generator.latent=8"],
}


def small(name, *overrides):
    label = ["label=null"] if name == "tumour-progan" else []
    return load_recipe(name, [*RECIPES[name], *label, "steps=6", *overrides])


def slices(count, seed, size=32):
    drawn = np.random.default_rng(seed).uniform(-1, 1, (count, 1, size, size))
    return torch.from_numpy(drawn.astype(np.float32))
