"""The LQ encoder: the SDXL VAE's encoder cut before its output head (FaithDiff, section 3.2).

It turns the degraded image, already resized to the target size, into features at 1/8 of its size. Parameter names
are those of diffusers' `AutoencoderKL.encoder`, which are also those under `denoise_encoder.` in the released file.

Shapes: B batch, C channels, H and W pixels of the level at hand.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .architecture import LQEncoderSizes
from .attention import Attention, attend_in_chunks, torch_attention

NORM_EPS = 1e-6
"""Official unet_2d_condition_vae_extension.py:91,103 (resnet_eps)."""


class ResnetBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 conv, twice, with a residual connection (1x1 conv where the width changes)."""

    def __init__(self, in_channels: int, out_channels: int, norm_groups: int, operations: Any, **factory: Any):
        super().__init__()
        self.norm1 = operations.GroupNorm(norm_groups, in_channels, eps=NORM_EPS, **factory)
        self.conv1 = operations.Conv2d(in_channels, out_channels, 3, padding=1, **factory)
        self.norm2 = operations.GroupNorm(norm_groups, out_channels, eps=NORM_EPS, **factory)
        self.conv2 = operations.Conv2d(out_channels, out_channels, 3, padding=1, **factory)
        self.conv_shortcut = operations.Conv2d(in_channels, out_channels, 1, **factory) if in_channels != out_channels else None

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x_BCHW)))
        return self.add_skip(self.conv2(F.silu(self.norm2(h))), x_BCHW)

    def add_skip(self, h_BCHW: torch.Tensor, x_BCHW: torch.Tensor) -> torch.Tensor:
        return h_BCHW + (x_BCHW if self.conv_shortcut is None else self.conv_shortcut(x_BCHW))


class Downsampler(nn.Module):
    """Halves height and width; pads right and bottom only, as the SDXL VAE does (downsample_padding=0)."""

    def __init__(self, channels: int, operations: Any, **factory: Any):
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, stride=2, **factory)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.conv(F.pad(x_BCHW, (0, 1, 0, 1)))


class DownBlock(nn.Module):
    """One resolution level: residual blocks, then a halving except on the last level."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: int,
        norm_groups: int,
        downsample: bool,
        operations: Any,
        **factory: Any,
    ):
        super().__init__()
        widths = [in_channels] + [out_channels] * layers
        self.resnets = nn.ModuleList(
            ResnetBlock(a, b, norm_groups, operations, **factory) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.downsamplers = nn.ModuleList([Downsampler(out_channels, operations, **factory)]) if downsample else None

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        for resnet in self.resnets:
            x_BCHW = resnet(x_BCHW)
        for downsampler in self.downsamplers or ():
            x_BCHW = downsampler(x_BCHW)
        return x_BCHW


class SpatialAttention(nn.Module):
    """One-head self-attention over all positions of one image."""

    def __init__(self, channels: int, norm_groups: int, attention: Attention, operations: Any, **factory: Any):
        super().__init__()
        self.group_norm = operations.GroupNorm(norm_groups, channels, eps=NORM_EPS, **factory)
        self.to_q = operations.Linear(channels, channels, **factory)
        self.to_k = operations.Linear(channels, channels, **factory)
        self.to_v = operations.Linear(channels, channels, **factory)
        self.to_out = nn.ModuleList([operations.Linear(channels, channels, **factory)])
        self.attention = attention

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        tokens_BNC = self.group_norm(x_BCHW).flatten(2).transpose(1, 2)
        out_BNC = attend_in_chunks(self.attention, self.to_q(tokens_BNC), self.to_k(tokens_BNC), self.to_v(tokens_BNC))
        return x_BCHW + self.to_out[0](out_BNC).transpose(1, 2).reshape(x_BCHW.shape)


class MidBlock(nn.Module):
    """A residual block, attention, a residual block, at the last level's size."""

    def __init__(self, channels: int, norm_groups: int, attention: Attention, operations: Any, **factory: Any):
        super().__init__()
        self.attentions = nn.ModuleList([SpatialAttention(channels, norm_groups, attention, operations, **factory)])
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, norm_groups, operations, **factory) for _ in range(2))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x_BCHW)))


class LQEncoder(nn.Module):
    """Degraded image to features.

    Args:
        sizes: widths and depths, read from the file (`architecture.LQEncoderSizes`).
        attention: called in the middle block with one head over all H/8 * W/8 positions.
        operations: namespace with Conv2d, Linear and GroupNorm.
    """

    def __init__(
        self,
        sizes: LQEncoderSizes,
        *,
        operations: Any,
        attention: Attention = torch_attention,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        factory = {"dtype": dtype, "device": device}
        self.sizes = sizes
        widths = sizes.block_out_channels
        self.conv_in = operations.Conv2d(sizes.in_channels, widths[0], 3, padding=1, **factory)
        self.down_blocks = nn.ModuleList(
            DownBlock(
                widths[max(i - 1, 0)],
                width,
                sizes.layers_per_block,
                sizes.norm_groups,
                i < len(widths) - 1,
                operations,
                **factory,
            )
            for i, width in enumerate(widths)
        )
        self.mid_block = MidBlock(widths[-1], sizes.norm_groups, attention, operations, **factory)

    def forward(self, lq_BCHW: torch.Tensor) -> torch.Tensor:
        """Features (B, block_out_channels[-1], H/8, W/8) of images (B, 3, H, W) in [-1, 1], H and W multiples of 8."""
        h = self.conv_in(lq_BCHW)
        for block in self.down_blocks:
            h = block(h)
        return self.mid_block(h)
