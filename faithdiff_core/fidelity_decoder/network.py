"""The fidelity decoder: a small network behind the VAE decoder that sees the LQ picture.

SDXL's latent holds four numbers for 8 x 8 px, so thin strokes and fine texture that the LQ picture still has are lost in it,
whatever the denoising does. StableSR (Wang et al. 2024, section 3.3) feeds encoder features into the levels of the VAE decoder
("controllable feature wrapping"). Here the decoder stays as it is, and what it drew is corrected afterwards, at the picture's own
size, by a network that sees the drawn picture, the LQ picture and the LQ encoder's features. It has no norm over positions, so
that tiles with a margin give the whole picture's values; nothing of it depends on which VAE decoded.

    restored = decoded + fidelity * (keep * (lq - decoded) + correction)

`keep`, one number a pixel, says how much of the LQ picture stands; `correction` is what neither picture has. Both come from a
layer that starts at zero, so an untrained network gives the decoded picture, and fidelity 0 does so always.

Shapes: B batch, C channels, H and W pixels, multiples of 8; level l of the network has pixels of 2^(l + 1) px.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .sizes import FEATURE_LEVEL, FidelityDecoderSizes

NORM_EPS = 1e-6
"""That of the LQ encoder's norms."""
PICTURES = 2
"""That the network sees: the decoded one and the LQ one."""
OUTPUTS = 4
"""Of a pixel: how much of the LQ picture is kept, and a correction of red, green and blue."""


class GatedBlock(nn.Module):
    """Two residual branches: positions are mixed by a 3x3 depthwise convolution, then channels; each half gates the other.

    After NAFNet's block (Chen et al. 2022, section 3), without its attention over the whole picture, which a tile could not know.
    """

    def __init__(self, channels: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        wide = 2 * channels
        self.expand = operations.Conv2d(channels, wide, 1, **factory)
        self.mix = operations.Conv2d(wide, wide, 3, padding=1, groups=wide, **factory)
        self.join = operations.Conv2d(channels, channels, 1, **factory)
        self.expand_channels = operations.Conv2d(channels, wide, 1, **factory)
        self.join_channels = operations.Conv2d(channels, channels, 1, **factory)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = x_BCHW + self.join(gate(self.mix(self.expand(channel_norm(x_BCHW)))))
        return x_BCHW + self.join_channels(gate(self.expand_channels(channel_norm(x_BCHW))))


def channel_norm(x_BCHW: torch.Tensor) -> torch.Tensor:
    """Mean 0 and variance 1 over the channels of each position, in fp32 inside. Scale and shift are the next layer's matter."""
    values = x_BCHW.float()
    centred = values - values.mean(1, keepdim=True)
    return (centred * (centred.square().mean(1, keepdim=True) + NORM_EPS).rsqrt()).to(x_BCHW.dtype)


def gate(x_BCHW: torch.Tensor) -> torch.Tensor:
    """The product of the two halves of the channels."""
    first, second = x_BCHW.chunk(2, dim=1)
    return first * second


class FidelityDecoder(nn.Module):
    """What the decoded picture becomes where the photo knows better.

    Args:
        sizes: widths and depths, read from the file (`sizes.fidelity_decoder_sizes`).
        operations: namespace with Conv2d.
    """

    def __init__(
        self,
        sizes: FidelityDecoderSizes,
        *,
        operations: Any,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        factory = {"dtype": dtype, "device": device}
        self.sizes = sizes
        widths = sizes.widths

        def level_blocks(level: int) -> nn.Sequential:
            return nn.Sequential(*(GatedBlock(widths[level], operations, **factory) for _ in range(sizes.blocks[level])))

        levels = range(len(widths))
        self.conv_in = operations.Conv2d(4 * 3 * PICTURES, widths[0], 3, padding=1, **factory)
        self.feature_in = operations.Conv2d(sizes.feature_channels, widths[FEATURE_LEVEL], 1, **factory)
        self.down_blocks = nn.ModuleList(level_blocks(level) for level in levels)
        self.downsamplers = nn.ModuleList(
            operations.Conv2d(a, b, 2, stride=2, **factory) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.upsamplers = nn.ModuleList(
            operations.Conv2d(b, 4 * a, 1, **factory) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.up_blocks = nn.ModuleList(level_blocks(level) for level in levels[:-1])
        self.conv_out = operations.Conv2d(widths[0], 4 * OUTPUTS, 3, padding=1, **factory)

    def forward(
        self, decoded_BCHW: torch.Tensor, lq_BCHW: torch.Tensor, features_BCHW: torch.Tensor, fidelity: torch.Tensor | float = 1.0
    ) -> torch.Tensor:
        """The picture (B, 3, H, W), about [-1, 1].

        Args:
            decoded_BCHW: the VAE's picture (B, 3, H, W), about [-1, 1].
            lq_BCHW: the LQ picture at the same size, in [-1, 1].
            features_BCHW: the LQ encoder's features (B, feature_channels, H/8, W/8).
            fidelity: 0 gives `decoded_BCHW` bit for bit, 1 all that the network knows; or one for each pixel, (B, 1, H, W).
        """
        keep_B1HW, correction_BCHW = self.corrections(decoded_BCHW, lq_BCHW, features_BCHW)
        return decoded_BCHW + fidelity * (keep_B1HW * (lq_BCHW - decoded_BCHW) + correction_BCHW)

    def corrections(
        self, decoded_BCHW: torch.Tensor, lq_BCHW: torch.Tensor, features_BCHW: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """How much of the LQ picture is kept, (B, 1, H, W), and what is added besides, (B, 3, H, W)."""
        h = self.conv_in(F.pixel_unshuffle(torch.cat([decoded_BCHW, lq_BCHW], 1), 2))
        skips: list[torch.Tensor] = []
        for level, blocks in enumerate(self.down_blocks):
            if level:
                skips.append(h)
                h = self.downsamplers[level - 1](h)
            if level == FEATURE_LEVEL:
                h = h + self.feature_in(channel_norm(features_BCHW))
            h = blocks(h)
        for level in reversed(range(len(self.up_blocks))):
            h = F.pixel_shuffle(self.upsamplers[level](h), 2) + skips[level]
            h = self.up_blocks[level](h)
        out = F.pixel_shuffle(self.conv_out(h), 2)
        return out[:, :1], out[:, 1:]


def start_at_zero(decoder: FidelityDecoder) -> None:
    """Make an untrained network's picture the decoded one."""
    nn.init.zeros_(decoder.conv_out.weight)
    nn.init.zeros_(decoder.conv_out.bias)
