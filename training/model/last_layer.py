"""The ablation of the paper's Table 5 that takes the VAE encoder's last features, 8 channels, in place of the penultimate ones.

For experiments: a file of such a network is none that the nodes know, so it is never exported.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from faithdiff_core.alignment import AlignmentModule
from faithdiff_core.architecture import AlignmentSizes, LQEncoderSizes
from faithdiff_core.lq_encoder import NORM_EPS, LQEncoder

LAST_CHANNELS = 8
"""Mean and log variance of SDXL's four latent channels."""


class LastLayerEncoder(LQEncoder):
    """The LQ encoder with the VAE encoder's own head; parameter names are those of diffusers' `AutoencoderKL.encoder`."""

    def __init__(self, sizes: LQEncoderSizes) -> None:
        super().__init__(sizes, operations=nn)
        width = sizes.block_out_channels[-1]
        self.conv_norm_out = nn.GroupNorm(sizes.norm_groups, width, eps=NORM_EPS)
        self.conv_out = nn.Conv2d(width, LAST_CHANNELS, 3, padding=1)

    def forward(self, lq_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 8, H/8, W/8)."""
        return self.conv_out(F.silu(self.conv_norm_out(super().forward(lq_BCHW))))


class LiftedAlignment(AlignmentModule):
    """The alignment module behind a 1x1 convolution from 8 channels to the width that it takes."""

    def __init__(self, sizes: AlignmentSizes, *, mode: str) -> None:
        super().__init__(sizes, mode=mode, operations=nn)
        self.lift = nn.Conv2d(LAST_CHANNELS, sizes.feature_channels, 1)

    def embed(self, features_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, 8, H, W) -> (B, model_channels, H, W)."""
        return super().embed(self.lift(features_BCHW))
