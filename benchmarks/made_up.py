"""FaithDiff with made-up weights at the sizes that are measured, in the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import comfy.model_patcher
import torch
from comfyui_faithdiff.faithdiff_core.alignment import AlignmentModule
from comfyui_faithdiff.faithdiff_core.architecture import AlignmentSizes, LQEncoderSizes, config_of, unet_sizes
from comfyui_faithdiff.faithdiff_core.files.checkpoint import FaithDiffParts
from comfyui_faithdiff.faithdiff_core.files.metadata import FaithDiffMetadata
from comfyui_faithdiff.faithdiff_core.geometry import LATENT_CELL_PX, Size
from comfyui_faithdiff.faithdiff_core.lq_encoder import LQEncoder
from comfyui_faithdiff.nodes.align_latent import FaithDiffAlignLatent
from comfyui_faithdiff.nodes.seam.bundle import FaithDiffFeatures, FaithDiffModel, build_model
from comfyui_faithdiff.nodes.seam.unet_loader import WEIGHT_DTYPES, load_unet
from support import by_rule, tiny


@dataclass(frozen=True, kw_only=True)
class Widths:
    """A FaithDiff's networks: in the host's terms, and the UNet once more in diffusers'.

    Attributes:
        px, rounds: what is measured where nothing else is asked for.
    """

    unet: dict[str, Any]
    diffusers: dict[str, Any]
    encoder: LQEncoderSizes
    alignment: AlignmentSizes
    px: int
    rounds: int


_LARGE = {
    **tiny.UNET_CONFIG, "model_channels": 320, "num_head_channels": 64, "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4], "context_dim": 2048, "adm_in_channels": 2816,
}  # fmt: skip
_NANO_CHANNELS = 64
_RELEASED: dict[str, Any] = {"encoder": LQEncoderSizes(), "alignment": AlignmentSizes()}
SIZES = {
    # training/model/networks.py's nano net, but for the norm groups, which cost nothing
    "nano": Widths(
        unet={
            **tiny.UNET_CONFIG, "model_channels": _NANO_CHANNELS, "num_head_channels": 64,
            "context_dim": 64, "adm_in_channels": 64 + 6 * 256,
        },
        diffusers={
            **by_rule.VEGA_UNET, "block_out_channels": (64, 128, 128), "layers_per_block": 1,
            "transformer_layers_per_block": [1, 1, 1], "mid_block_type": "UNetMidBlock2DCrossAttn",
            "attention_head_dim": [1, 2, 2], "cross_attention_dim": 64, "projection_class_embeddings_input_dim": 64 + 6 * 256,
        },
        encoder=LQEncoderSizes(block_out_channels=(32, 64, 128, 128), layers_per_block=1),
        alignment=AlignmentSizes(model_channels=_NANO_CHANNELS, feature_channels=128, mlp_channels=4 * _NANO_CHANNELS),
        px=512, rounds=7,
    ),
    # H comfy/model_detection.py, unet_config_from_diffusers_unet: Segmind_Vega and SDXL
    "vega": Widths(
        unet={
            **_LARGE, "transformer_depth": [0, 0, 1, 1, 2, 2], "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
            "transformer_depth_middle": -1,
        },
        diffusers=by_rule.VEGA_UNET, px=512, rounds=3, **_RELEASED,
    ),
    "sdxl": Widths(
        unet={
            **_LARGE, "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
            "transformer_depth_middle": 10,
        },
        diffusers=by_rule.SDXL_UNET, px=512, rounds=2, **_RELEASED,
    ),
}  # fmt: skip


class MadeUp(NamedTuple):
    model: comfy.model_patcher.ModelPatcher
    faithdiff: FaithDiffModel
    alignment_state: dict[str, torch.Tensor]
    """As files hold it, unfolded."""
    widths: Widths


def parts_of(widths: Widths) -> FaithDiffParts:
    """Random weights in fp32, seeded; queries and keys of the alignment are there as in the release."""
    unet = tiny.unet_state(widths.unet)
    encoder = LQEncoder(widths.encoder, operations=torch.nn, device="meta").state_dict()
    alignment = AlignmentModule(widths.alignment, mode="spatial", operations=torch.nn, device="meta").state_dict()
    config = config_of(widths.encoder, widths.alignment, unet_sizes(unet, {}))
    return FaithDiffParts(
        unet=unet,
        lq_encoder=tiny.random_weights(encoder, 1),
        alignment=tiny.random_weights(alignment, 2),
        metadata=FaithDiffMetadata(config=config),
    )


def made_up(size: str) -> MadeUp:
    """The networks of one size, loaded as the node would load a file of them; one copy of the UNet's weights."""
    widths = SIZES[size]
    parts = parts_of(widths)
    faithdiff = build_model(parts, "")
    assert parts.unet is not None
    model = load_unet(parts.unet, parts.metadata.config, WEIGHT_DTYPES["default"])
    return MadeUp(model, faithdiff, parts.alignment, widths)


def features_of(made: MadeUp, height_px: int, width_px: int) -> FaithDiffFeatures:
    """Random features, as if encoded from one image of this size."""
    cells = (height_px // LATENT_CELL_PX, width_px // LATENT_CELL_PX)
    values = torch.randn(1, made.widths.alignment.feature_channels, *cells, generator=torch.Generator().manual_seed(3))
    image_BHWC = torch.zeros(1, 1, 1, 3).expand(-1, height_px, width_px, -1)
    return FaithDiffFeatures(values, Size(height_px, width_px), made.faithdiff, image_BHWC)


def aligned(made: MadeUp, features: FaithDiffFeatures) -> comfy.model_patcher.ModelPatcher:
    """The MODEL behind FaithDiff Align Latent."""
    latent = {"samples": torch.zeros(1, 4, *features.features_BCHW.shape[-2:])}
    return FaithDiffAlignLatent.execute(made.model, features, latent, 1.0, 0.0, 1.0, "noise").args[0]


def prompts(widths: Widths) -> tuple[list, list]:
    """Host conditionings (positive, negative) of 77 tokens."""
    generator = torch.Generator().manual_seed(4)
    pooled = widths.unet["adm_in_channels"] - 6 * 256

    def prompt() -> list:
        context = torch.randn(1, 77, widths.unet["context_dim"], generator=generator)
        return [[context, {"pooled_output": torch.randn(1, pooled, generator=generator)}]]

    return prompt(), prompt()
