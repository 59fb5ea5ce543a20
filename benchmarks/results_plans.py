"""What results_of.py runs: for each recipe its experiments on real slices."""

from __future__ import annotations

from dataclasses import replace

from results_experiment import Experiment
from results_pairs import (
    CT_MRI,
    EPOCHS_16,
    EPOCHS_150,
    ONE_SUBJECT,
    PIX2PIX,
    TWO_PATIENTS,
    both_ways,
    ct_mri,
    pix2pix,
)
from results_tumours import STYLE, normal_to_tumour, optimised, sampled, styled

PLANS: dict[str, tuple[Experiment, ...]] = {
    "pix2pix-attention-unet": (
        pix2pix("t1-t2", ONE_SUBJECT, "T1", "T2", PIX2PIX + EPOCHS_150),
        pix2pix("t2-t1", ONE_SUBJECT, "T2", "T1", PIX2PIX + EPOCHS_150),
        pix2pix("patients-t1-t2", TWO_PATIENTS, "T1", "T2", PIX2PIX + EPOCHS_16),
        pix2pix("patients-t2-t1", TWO_PATIENTS, "T2", "T1", PIX2PIX + EPOCHS_16),
    ),
    "t1-t2-cyclegan-unet-v4": (
        both_ways("t1-t2-cyclegan-unet-v4", "t1-t2", ONE_SUBJECT, "--set precision=bf16"),
    ),
    "t1-t2-cyclegan-unet-v4-improved": (
        both_ways("t1-t2-cyclegan-unet-v4-improved", "t1-t2", ONE_SUBJECT),
        both_ways(
            "t1-t2-cyclegan-unet-v4-improved",
            "patients",
            replace(TWO_PATIENTS, size=128),
            "--set size=128 --set generator.units=2 --set augmentation.shift=8 "
            "--set schedule.constant_epochs=5 --set schedule.decay_epochs=15 "
            "--set losses.tone_epochs=33 --set losses.patches_of=64",
        ),
    ),
    "tumour-dcgan64-improved": (sampled("tumour-dcgan64-improved", 64),),
    "tumour-dcgan128-improved": (sampled("tumour-dcgan128-improved", 128),),
    "t2-tumour-cyclegan-improved": (normal_to_tumour("t2-tumour-cyclegan-improved", 128),),
    "tumour-progan-improved": (sampled("tumour-progan-improved", 64, critic=True),),
    "ct-mri-cyclegan-resnet": (ct_mri(CT_MRI),),
    "style-transfer-gan": (styled("style-transfer-gan", STYLE),),
    "style-transfer": (optimised(20),),  # no recipe: a command of its own
}
