"""The habits of the official training scripts that cost time and teach nothing, each to be switched on by itself.

Re-created from what the scripts do (train_SDXL_stage_1.py, train_SDXL_stage_2.py at f11af6c), on our networks:
* stage 1 trains the alignment module alone, but nothing is frozen: the gradients of the UNet and the LQ encoder are computed at
  every step and added up for good, since the optimiser, which would clear them, does not know them (:630-639, :696-699);
* the LQ encoder runs with gradients, checkpointed level by level, so that its forward pass runs twice (:767-770, :906);
* both text encoders run at every step (stage 2 :913-919)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from faithdiff_core.lq_encoder import LQEncoder
from training.model.networks import CONTEXT_TOKENS, NetworkSpec


@dataclass(frozen=True, kw_only=True)
class Habits:
    """What a step does beyond what it needs."""

    unet_gradients: bool = False
    """The frozen UNet's gradients are computed and kept."""
    encoder_gradients: bool = False
    """The frozen LQ encoder's gradients are computed and kept."""
    encoder_checkpointing: bool = False
    """The LQ encoder's levels are computed again in the backward pass."""
    text_online: bool = False
    """Prompts are encoded at every step."""


OURS = Habits()
OFFICIAL = Habits(unet_gradients=True, encoder_gradients=True, encoder_checkpointing=True, text_online=True)


@dataclass(frozen=True, kw_only=True)
class TextSizes:
    """Width, layers and heads of the two text encoders, and the size of their vocabulary."""

    first: tuple[int, int, int]
    second: tuple[int, int, int]
    vocabulary: int
    dtype: torch.dtype


TEXT_SIZES = {
    # 0.24 GFLOP a prompt, 6.4 % of the nano UNet's forward pass at 256 px; SDXL's are 6.7 % of its UNet's at 512 px.
    "nano": TextSizes(first=(64, 4, 4), second=(128, 6, 4), vocabulary=1000, dtype=torch.float32),
    # SDXL's own: CLIP ViT-L and OpenCLIP bigG, 818 million parameters, in bf16 for the memory of small machines.
    "vega": TextSizes(first=(768, 12, 12), second=(1280, 32, 20), vocabulary=49408, dtype=torch.bfloat16),
}


class TextEncoders(torch.nn.Module):
    """Two CLIP text encoders with made-up weights."""

    def __init__(self, sizes: TextSizes, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        first, second = (self._config(sizes, *widths) for widths in (sizes.first, sizes.second))
        self.first = CLIPTextModel(first).to(sizes.dtype).requires_grad_(False)
        self.second = CLIPTextModelWithProjection(second).to(sizes.dtype).requires_grad_(False)
        self.last_token = sizes.vocabulary - 1

    def _config(self, sizes: TextSizes, width: int, layers: int, heads: int) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=sizes.vocabulary,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            projection_dim=self.spec.pooled_width,
            bos_token_id=sizes.vocabulary - 2,
            eos_token_id=sizes.vocabulary - 1,
            pad_token_id=sizes.vocabulary - 1,
        )

    @torch.no_grad()
    def forward(self, prompts: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Context (prompts, 77, context width) and pooled (prompts, pooled width). The nano UNet's context is narrower than its
        text encoders: the rest is computed and cut off."""
        tokens = torch.full((prompts, CONTEXT_TOKENS), self.last_token)
        first = self.first(tokens, output_hidden_states=True)
        second = self.second(tokens, output_hidden_states=True)
        context = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return context[..., : self.spec.context_width].float(), second.text_embeds.float()


@contextmanager
def checkpointed_levels(encoder: LQEncoder) -> Iterator[None]:
    """Inside, each level of the encoder keeps only its input for the backward pass; our own checkpoints of its blocks are off."""
    ours = {block: vars(block).pop("forward") for block in encoder.modules() if "forward" in vars(block)}
    levels = [*encoder.down_blocks, encoder.mid_block]
    for level in levels:
        level.forward = partial(checkpoint, level.forward, use_reentrant=False)
    try:
        yield
    finally:
        for level in levels:
            del level.forward
        for block, forward in ours.items():
            block.forward = forward
