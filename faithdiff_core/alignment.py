"""The alignment module: fuses LQ features with the UNet's first features (FaithDiff, section 3.2).

The noisy latent after the UNet's first convolution and the LQ features after `ConditionEmbedding` are concatenated per
position, pass two Transformer blocks and a linear layer; the result is added to the UNet's first features (official
unet_2d_condition_vae_extension.py:570-579).

Two modes of the blocks' attention, which the file names (`faithdiff.align_attention`):

* `pointwise`: attention reduced to its value path, x + W_o (W_v ln(x) + b_v) + b_o. The released code feeds (B, H*W, C) to
  an attention that expects (sequence, batch, C), so it attends over the *batch* (official :242, :576-577); with one image, or
  with the two equal rows of classifier-free guidance, the softmax runs over equal keys and returns the value. This mode is
  that, exactly, and does not depend on what else is in the batch.
* `spatial`: self-attention over the H*W positions of one image, which the paper describes; for weights trained so.

Shapes: B batch, C channels, H and W latent size, N = H*W positions, D = 2 * model_channels token width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .architecture import AlignmentSizes
from .attention import Attention, torch_attention

CONDITION_NORM_GROUPS = 32
"""Official unet_2d_condition_vae_extension.py:208."""
CONDITION_NORM_EPS = 1e-6
"""Official :208."""
LAYER_NORM_EPS = 1e-5
"""torch's default, official :229."""


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """X * sigmoid(1.702 x), the approximation that the released MLPs were trained with (official :226)."""
    return x * torch.sigmoid(1.702 * x)


class ConditionEmbedding(nn.Module):
    """GroupNorm, conv, SiLU, conv: LQ features to the UNet's first width. Independent of the timestep."""

    def __init__(self, feature_channels: int, model_channels: int, operations: Any, **factory: Any):
        super().__init__()
        self.norm_in = operations.GroupNorm(CONDITION_NORM_GROUPS, feature_channels, eps=CONDITION_NORM_EPS, **factory)
        self.conv_in = operations.Conv2d(feature_channels, feature_channels, 3, padding=1, **factory)
        self.conv_out = operations.Conv2d(feature_channels, model_channels, 3, padding=1, **factory)

    def forward(self, features_BCHW: torch.Tensor) -> torch.Tensor:
        return self.conv_out(F.silu(self.conv_in(self.norm_in(features_BCHW))))


class AlignmentBlock(nn.Module):
    """Pre-norm Transformer block: attention (see the file's head for its two modes), then an MLP with QuickGELU.

    `folded` replaces W_v and W_o of the pointwise mode by their product `value_out` (see `checkpoint.fold_pointwise_attention`).
    """

    def __init__(self, sizes: AlignmentSizes, mode: str, folded: bool, attention: Attention, operations: Any, **factory: Any):
        super().__init__()
        width = sizes.token_channels
        self.num_heads = sizes.num_heads
        self.attention = attention if mode == "spatial" else None
        self.folded = folded
        self.norm1 = operations.LayerNorm(width, eps=LAYER_NORM_EPS, **factory)
        self.norm2 = operations.LayerNorm(width, eps=LAYER_NORM_EPS, **factory)
        self.mlp_up = operations.Linear(width, sizes.mlp_channels, **factory)
        self.mlp_down = operations.Linear(sizes.mlp_channels, width, **factory)
        if folded:
            self.value_out = operations.Linear(width, width, **factory)
            return
        if mode == "spatial":
            self.to_q = operations.Linear(width, width, **factory)
            self.to_k = operations.Linear(width, width, **factory)
        self.to_v = operations.Linear(width, width, **factory)
        self.to_out = operations.Linear(width, width, **factory)

    def attend(self, x_BND: torch.Tensor) -> torch.Tensor:
        if self.folded:
            return self.value_out(x_BND)
        if self.attention is None:
            return self.to_out(self.to_v(x_BND))
        return self.to_out(self.attention(self.to_q(x_BND), self.to_k(x_BND), self.to_v(x_BND), self.num_heads))

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        x_BND = x_BND + self.attend(self.norm1(x_BND))
        return x_BND + self.mlp_down(quick_gelu(self.mlp_up(self.norm2(x_BND))))


class AlignmentModule(nn.Module):
    """LQ features and the UNet's first features to what is added to the latter.

    Args:
        sizes: widths and depths, read from the file (`architecture.AlignmentSizes`).
        mode: "pointwise" or "spatial".
        folded: pointwise only; hold W_o W_v as one matrix. For running, not for training.
        attention: used by the spatial mode only.
        operations: namespace with Conv2d, Linear, GroupNorm and LayerNorm.

    Raises:
        ValueError: unknown mode, or `folded` with the spatial mode.
    """

    def __init__(
        self,
        sizes: AlignmentSizes,
        *,
        mode: str = "pointwise",
        folded: bool = False,
        operations: Any,
        attention: Attention = torch_attention,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        if mode not in ("pointwise", "spatial"):
            raise ValueError(f"expected alignment mode 'pointwise' or 'spatial', got {mode!r}")
        if folded and mode == "spatial":
            raise ValueError("only the pointwise mode can be folded: spatial attention needs its value and output layers apart")
        factory = {"dtype": dtype, "device": device}
        self.sizes = sizes
        self.mode = mode
        self.condition_embedding = ConditionEmbedding(sizes.feature_channels, sizes.model_channels, operations, **factory)
        self.blocks = nn.ModuleList(
            AlignmentBlock(sizes, mode, folded, attention, operations, **factory) for _ in range(sizes.num_layers)
        )
        self.proj_out = operations.Linear(sizes.token_channels, sizes.model_channels, **factory)

    def embed(self, features_BCHW: torch.Tensor) -> torch.Tensor:
        """LQ features (B, feature_channels, H, W) to (B, model_channels, H, W). The same at every timestep."""
        return self.condition_embedding(features_BCHW)

    def forward(self, h_BCHW: torch.Tensor, embedded_BCHW: torch.Tensor) -> torch.Tensor:
        """What to add to `h_BCHW`, the output of the UNet's first convolution.

        Args:
            h_BCHW: (B, model_channels, H, W).
            embedded_BCHW: `embed`'s output, same shape.
        """
        tokens_BND = torch.cat([h_BCHW, embedded_BCHW], dim=1).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens_BND = block(tokens_BND)
        return self.proj_out(tokens_BND).transpose(1, 2).reshape(h_BCHW.shape)
