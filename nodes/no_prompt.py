"""FaithDiff No Prompt: conditioning without a text encoder, for the nano model."""

from __future__ import annotations

import comfy.model_patcher
import torch
from comfy_api.latest import io

from ..faithdiff_core.unet_layers import SIZE_EMBEDDING_CHANNELS
from .seam.inputs import checked
from .seam.types import NANO_CATEGORY
from .seam.unet_loader import require_sdxl

PROMPT_TOKENS = 77
"""Length of a CLIP prompt."""


class FaithDiffNoPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffNoPrompt",
            display_name="FaithDiff No Prompt",
            category=NANO_CATEGORY,
            description="An all-zero prompt of the width that the MODEL expects, so that no text encoder is needed. The "
            "nano model is trained with it.",
            inputs=[io.Model.Input("model", tooltip="The SDXL-family MODEL that the conditioning is for.")],
            outputs=[io.Conditioning.Output(tooltip="For both positive and negative.")],
        )

    @classmethod
    @checked
    def execute(cls, model: comfy.model_patcher.ModelPatcher) -> io.NodeOutput:
        unet_config = require_sdxl(model, "model").model_config.unet_config
        pooled = torch.zeros(1, unet_config["adm_in_channels"] - SIZE_EMBEDDING_CHANNELS)
        return io.NodeOutput([[torch.zeros(1, PROMPT_TOKENS, unet_config["context_dim"]), {"pooled_output": pooled}]])
