"""The parts of a recipe. The keywords of a network's section are those of its constructor."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Width = Annotated[int, Field(ge=1, le=1024)]  # channels
Beta = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Latent = Annotated[int, Field(ge=1, le=65536)]  # numbers a slice is drawn from
Norm = Literal["instance", "batch"]


# Generators from a latent.


class Dcgan(Section):
    network: Literal["dcgan"]
    latent: Latent = 100  # N(0, 1)
    width: Width = 64  # channels before the last layer


class DenseDcgan(Section):
    network: Literal["dcgan-dense"]
    latent: Latent = 100  # U(-1, 1)
    width: Width = 64


class Progan(Section):
    network: Literal["progan"]
    latent: Latent = 512  # N(0, 1)
    width: Width = 512  # channels of the widest stages
    base: PositiveInt = 8192  # stage s has base / 2^(s + 1) channels, at most `width`


# Generators from a slice.


class Resnet(Section):
    network: Literal["resnet"]
    width: Width = 64
    blocks: Annotated[int, Field(ge=1, le=64)] = 9  # 9 from 256x256 on, 6 below
    dropout: Share = 0.0  # within the blocks


class Resnet34(Section):
    network: Literal["resnet34"]
    width: Width = 64


class Unet(Section):
    network: Literal["unet"]
    width: Width = 64
    norm: Norm = "instance"
    dropout: Share = 0.0  # in the innermost decoding layers


class T1T2Unet(Section):
    network: Literal["t1t2-unet"]
    width: Width = 64
    downs: Annotated[int, Field(ge=1, le=9)] = 4  # encoding layers above the bottleneck
    dropout: Share = 0.5
    activation: Literal["leaky_relu", "relu"] = "leaky_relu"  # of the encoder


class AttentionUnet(Section):
    network: Literal["attention-unet"]
    width: Width = 64
    units: Annotated[int, Field(ge=1, le=7)] = 4  # encoding units
    norm: Norm = "batch"
    dropout: Share = 0.0
    slice_skip: bool = False  # the last layer sees the slice too


class StylePair(Section):
    network: Literal["style-pair"]
    width: Width = 64
    blocks: Annotated[int, Field(ge=1, le=64)] = 6
    code: Annotated[int, Field(ge=1, le=4096)] = 64  # numbers that say a reference's style


# Discriminators.


class DcganDiscriminator(Section):
    network: Literal["dcgan"]
    width: Width = 64  # channels after the first layer


class DenseDcganDiscriminator(Section):
    network: Literal["dcgan-dense"]
    width: Width = 64


class ProganDiscriminator(Section):
    network: Literal["progan"]
    width: Width = 512
    base: PositiveInt = 8192


class PatchGan(Section):
    network: Literal["patchgan"]
    width: Width = 64
    layers: Annotated[int, Field(ge=1, le=6)] = 3  # 3: each logit sees 70x70 pixels
    norm: Norm = "instance"


class T1T2Discriminator(Section):
    network: Literal["t1t2"]
    width: Width = 64
    downs: Annotated[int, Field(ge=1, le=7)] = 2
    activation: Literal["leaky_relu", "relu"] = "leaky_relu"


# Training.


class Optimiser(Section):
    name: Literal["adam"] = "adam"
    generator_lr: PositiveFloat = 2e-4
    discriminator_lr: PositiveFloat = 2e-4
    betas: tuple[Beta, Beta] = (0.5, 0.999)
    # Most that the norm of all generators' gradients together may be; above it they are scaled
    # down (Pascanu et al. 2013). None: whatever it is.
    generator_clip: PositiveFloat | None = None


class Schedule(Section):
    """The learning rate's course; epochs count from 1."""

    kind: Literal["constant", "linear"] = "constant"
    constant_epochs: PositiveInt = 100  # linear: at the full rate
    decay_epochs: PositiveInt = 100  # linear: then down to 0


class Ema(Section):
    """A running mean of the generator's weights: kept beside it, never fed back into training."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    # Early on the decay is min(decay, (1 + step) / (10 + step)), so that short runs have one too.
    ramp: bool = True


class Augmentation(Section):
    """What is done to real slices, afresh at each step; nothing by default."""

    resize: Annotated[float, Field(ge=1, le=2)] = 1.0  # bicubic, then a random crop to the size
    shift: Annotated[int, Field(ge=0, le=256)] = 0  # pixels: padded with background, then cropped
    horizontal_flip: bool = False  # half of the slices
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0  # degrees, to either side
    zoom: Annotated[float, Field(ge=1, le=2)] = 1.0  # larger or smaller by up to this factor
    # Zhao et al. 2020, on all that a discriminator sees: translation, cutout, colour.
    diffaugment: tuple[Literal["translation", "cutout", "colour"], ...] = ()

    @field_validator("diffaugment")
    @classmethod
    def _once_each(cls, policies: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(policies)) < len(policies):
            raise ValueError("name each policy once")
        return policies


class Guards(Section):
    """What happens where training fails: a loss that is not finite, a discriminator collapsed."""

    collapse_steps: PositiveInt | None = None  # steps of a lost game that count as collapse
    then: Literal["stop", "rollback"] = "stop"  # rollback: to the last checkpoint, other draws
    rollbacks: PositiveInt = 3  # then it stops after all


class GanDeviations(Section):
    """Departures from the paper, each off by default."""

    real_label: Annotated[float, Field(gt=0.5, le=1)] = 1.0  # below 1: one-sided label smoothing
    # Standard deviation of the Gaussian noise on all that the discriminator sees, after Arjovsky
    # and Bottou 2017, falling to 0 in a line: coarse structure is judged before fine.
    instance_noise: NonNegativeFloat = 0.0
    instance_noise_steps: PositiveInt = 1000  # until it is 0


class CycleLosses(Section):
    """adversarial_weight * L_GAN + cycle * L_cyc + identity * L_identity + structure * L_structure
    + patches * L_patches + tone * L_tone, both directions summed, + transport * L_transport, which
    is of the direction to the target alone."""

    adversarial: Literal["log", "lsgan"] = "lsgan"
    adversarial_weight: NonNegativeFloat = 1.0
    cycle: NonNegativeFloat = 10.0  # L1
    identity: NonNegativeFloat = 0.5  # L1; 0 leaves the pass out
    identity_times_cycle: bool = True  # the weight is identity * cycle, as in the reference
    structure: NonNegativeFloat = 0.0  # L1 of MIND, of a translation against its source
    # Sliced Wasserstein, of slices made against as many real ones, of each process by itself: that
    # of two halves of a batch is not half of the whole's.
    patches: NonNegativeFloat = 0.0
    patches_of: Annotated[int, Field(ge=0, le=10_000)] = 0  # the last slices of each side; 0: batch
    tone: NonNegativeFloat = 0.0  # L1 against the source by the fitted curve of grey levels
    # Over so many the tone's weight falls to 0 in a line, and that of the patches rises from 0;
    # more than there are: neither comes to its end. Without tone that of the patches is constant.
    tone_epochs: PositiveInt = 100
    # Squared distance of random features of whole slices from where optimal transport puts them.
    transport: NonNegativeFloat = 0.0
    transport_batch: Annotated[int, Field(ge=1, le=512)] = 16  # sources translated for it a step
    discriminator: PositiveFloat = 0.5  # times (loss on real + loss on fake)


class Pix2PixLosses(Section):
    adversarial: Literal["log", "lsgan"] = "log"
    l1: NonNegativeFloat = 100.0
    discriminator: PositiveFloat = 0.5


class ProganLosses(Section):
    gradient_penalty: NonNegativeFloat = 10.0
    drift: NonNegativeFloat = 1e-3  # times the mean squared score of real slices
    critic_steps: Annotated[int, Field(ge=1, le=38)] = 1  # a step of the generator


class Growth(Section):
    """How a progressive GAN grows: at each stage so many steps of fading in, then of rest."""

    fade_share: Share = 0.5  # of a stage's steps
    stage_shares: tuple[PositiveFloat, ...] = ()  # of all steps, by stage; empty: equal


class StylePairLosses(Section):
    """L_GAN + cycle * L_cyc + style * L_style."""

    adversarial: Literal["log", "lsgan"] = "lsgan"
    cycle: NonNegativeFloat = 10.0  # L1 of F(G(x, y)) and x
    style: NonNegativeFloat = 10.0  # L1 of G(F(y), G(x, y)) and y
    discriminator: PositiveFloat = 0.5
