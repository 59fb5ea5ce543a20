"""The baseline of train_step.py: a step of CycleGAN in plain PyTorch, as it is commonly written.

Networks and order of operations are those of the reference implementation (Zhu, Park, Isola, Efros,
ICCV 2017; pytorch-CycleGAN-and-pix2pix with its defaults): ResNet-9 generators, 70x70 PatchGAN
discriminators, instance norm without affine behind biased convolutions, least-squares adversarial
losses, lambda 10, identity 0.5, an image pool of 50, Adam at 2e-4. Source is its A, target its B.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

LAMBDA, IDENTITY, POOL = 10.0, 0.5, 50
RATE, BETAS = 2e-4, (0.5, 0.999)


class Block(nn.Module):
    """x [N, width, H, W] to x + norm(conv(relu(norm(conv(x)))))."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=bias),
            nn.InstanceNorm2d(width),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=bias),
            nn.InstanceNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def make_generator(width: int = 64, blocks: int = 9, *, bias: bool = True) -> nn.Module:
    """Slices [N, 1, H, W] to the same; 11,365,633 parameters. bias: before the norms."""
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(1, width, 7, bias=bias), *normed(width)]
    for wide in (width, width * 2):  # [N, wide * 2, half the side]
        layers += [nn.Conv2d(wide, wide * 2, 3, 2, 1, bias=bias), *normed(wide * 2)]
    layers += [Block(width * 4, bias) for _ in range(blocks)]
    for wide in (width * 4, width * 2):  # [N, wide / 2, twice the side]
        up = nn.ConvTranspose2d(wide, wide // 2, 3, 2, 1, 1, bias=bias)
        layers += [up, *normed(wide // 2)]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 1, 7), nn.Tanh())


def normed(width: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(width), nn.ReLU(inplace=True)]


def make_discriminator(width: int = 64, *, bias: bool = True) -> nn.Module:
    """Slices [N, 1, H, W] to logits [N, 1, H / 8 - 2, W / 8 - 2]; 2,762,689 parameters."""
    layers = [nn.Conv2d(1, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
    for inner, outer, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
        layers += [
            nn.Conv2d(width * inner, width * outer, 4, stride, 1, bias=bias),
            nn.InstanceNorm2d(width * outer),
            nn.LeakyReLU(0.2, inplace=True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(width * 8, 1, 4, 1, 1))


class Pool:
    """Fakes of earlier steps, half of the time shown to the discriminator in place of new ones."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []  # [1, 1, H, W] each

    def query(self, fakes: Tensor) -> Tensor:
        shown = []
        for fake in fakes.detach().split(1):
            if len(self.kept) < POOL:
                self.kept.append(fake)
            elif random.random() > 0.5:
                place = random.randrange(POOL)
                fake, self.kept[place] = self.kept[place], fake
            shown.append(fake)
        return torch.cat(shown)


class Baseline:
    """Networks, optimisers and the step, in parts that an ablation can change one by one."""

    fused_adam: bool | None = None  # as PyTorch takes it where nobody asks
    biased = True

    def __init__(self, width: int = 64, blocks: int = 9, device: str = "cpu") -> None:
        generators = [make_generator(width, blocks, bias=self.biased) for _ in range(2)]
        discriminators = [make_discriminator(width, bias=self.biased) for _ in range(2)]
        self.networks = {
            "generator": generators[0],
            "generator_back": generators[1],
            "discriminator": discriminators[0],
            "discriminator_back": discriminators[1],
        }
        for network in self.networks.values():
            network.to(device)
        self.adam_g = self.adam(generators)
        self.adam_d = self.adam(discriminators)
        self.pool_target, self.pool_source = Pool(), Pool()
        self.labels = {real: torch.tensor(float(real), device=device) for real in (True, False)}
        self.adversarial, self.l1 = nn.MSELoss(), nn.L1Loss()

    def adam(self, networks: list[nn.Module]) -> torch.optim.Optimizer:
        parameters = [parameter for network in networks for parameter in network.parameters()]
        return torch.optim.Adam(parameters, RATE, BETAS, fused=self.fused_adam)

    def judged(self, logits: Tensor, real: bool) -> Tensor:
        return self.adversarial(logits, self.labels[real].expand_as(logits))

    def step(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        """source, target: [N, 1, H, W] in [-1, 1]. The losses by name, each before its weight."""
        losses, fake_target, fake_source = self.step_generators(source, target)
        _, _, judge, judge_back = self.networks.values()
        for network in (judge, judge_back):
            network.requires_grad_(True)
        self.adam_d.zero_grad()
        fake_target = self.pool_target.query(fake_target)
        losses["loss_d_target"] = self.backward_discriminator(judge, target, fake_target)
        fake_source = self.pool_source.query(fake_source)
        losses["loss_d_source"] = self.backward_discriminator(judge_back, source, fake_source)
        self.adam_d.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def step_generators(
        self, source: Tensor, target: Tensor
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The losses, the fake target and the fake source."""
        made = self.translate(source, target)
        _, _, judge, judge_back = self.networks.values()
        for network in (judge, judge_back):
            network.requires_grad_(False)
        self.adam_g.zero_grad()
        losses = self.backward_generators(source, target, made)
        self.adam_g.step()
        return losses, made[0], made[2]

    def translate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fake target, the source again, fake source, the target again."""
        there, back, *_ = self.networks.values()
        fake_target = there(source)
        source_again = back(fake_target)
        fake_source = back(target)
        target_again = there(fake_source)
        return fake_target, source_again, fake_source, target_again

    def identities(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        there, back, *_ = self.networks.values()
        return there(target), back(source)

    def backward_generators(
        self, source: Tensor, target: Tensor, made: tuple[Tensor, ...]
    ) -> dict[str, Tensor]:
        _, _, judge, judge_back = self.networks.values()
        fake_target, source_again, fake_source, target_again = made
        same_target, same_source = self.identities(source, target)
        losses = {
            "loss_identity_target": self.l1(same_target, target),
            "loss_identity_source": self.l1(same_source, source),
            "loss_g_target": self.judged(judge(fake_target), True),
            "loss_g_source": self.judged(judge_back(fake_source), True),
            "loss_cycle_source": self.l1(source_again, source),
            "loss_cycle_target": self.l1(target_again, target),
        }
        losses["loss_g"] = (
            losses["loss_g_target"]
            + losses["loss_g_source"]
            + LAMBDA * (losses["loss_cycle_source"] + losses["loss_cycle_target"])
            + LAMBDA * IDENTITY * (losses["loss_identity_target"] + losses["loss_identity_source"])
        )
        losses["loss_g"].backward()
        return losses

    def backward_discriminator(self, judge: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        loss_real = self.judged(judge(real), True)
        loss_fake = self.judged(judge(fake), False)
        loss = 0.5 * (loss_real + loss_fake)
        loss.backward()
        return loss
