"""A discriminator for the fidelity decoder: it learns to tell true patches from corrected ones, and the decoder to pass for true.

It trains in the same step and by the same optimiser as the decoder, and no file for the nodes has it. Patches: Isola et al. 2017
(section 3.2.2). Hinge losses: Lim and Ye 2017. No norms: those of a batch would tie crops, and so processes, together.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from training.common.seeds import seed_for
from training.config.schema import TrainConfig

WIDTHS = (64, 128, 256)
"""Of its levels, each half as large as the one before (the first three of Isola et al., appendix 6.1.2)."""
LEAK = 0.2
"""Slope of its activations below 0 (there)."""


class Opinions(NamedTuple):
    """How true each patch seems, (B, 1, H/8, W/8): above 0 true, below made up."""

    of_truth: torch.Tensor
    of_made: torch.Tensor
    """Moves the discriminator: the picture is given."""
    for_decoder: torch.Tensor
    """The same numbers. Moves the picture: the discriminator is given."""


class PatchDiscriminator(nn.Module):
    """Pictures (B, 3, H, W), about [-1, 1], to one number for each patch of 38 px, 8 px apart."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *WIDTHS[:-1])
        self.levels = nn.ModuleList(
            nn.Conv2d(before, width, 4, stride=2, padding=1) for before, width in zip(inputs, WIDTHS, strict=True)
        )
        self.conv_out = nn.Conv2d(WIDTHS[-1], 1, 3, padding=1)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        h = image_BCHW
        for level in self.levels:
            h = F.leaky_relu(level(h), LEAK)
        return self.conv_out(h)


def build_discriminator(config: TrainConfig) -> PatchDiscriminator:
    """One with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(config.seed, "model-init", "discriminator"))
        return PatchDiscriminator()


def opinions(discriminator: PatchDiscriminator, made_BCHW: torch.Tensor, truth_BCHW: torch.Tensor) -> Opinions:
    """What it thinks of a picture and of its truth."""
    given = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    return Opinions(
        of_truth=discriminator(truth_BCHW),
        of_made=discriminator(made_BCHW.detach()),
        for_decoder=functional_call(discriminator, given, (made_BCHW,)),
    )


def discriminator_loss(found: Opinions) -> torch.Tensor:
    """(): what is missing of a margin of 1 on either side."""
    return F.relu(1.0 - found.of_truth.float()).mean() + F.relu(1.0 + found.of_made.float()).mean()


def decoder_loss(found: Opinions) -> torch.Tensor:
    """(): lower, the truer the picture seems."""
    return -found.for_decoder.float().mean()
