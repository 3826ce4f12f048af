"""A tiny SDXL-family FaithDiff with random weights: samples in milliseconds, and has every part of the real one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from comfyui_faithdiff.faithdiff_core.alignment import AlignmentModule
from comfyui_faithdiff.faithdiff_core.architecture import AlignmentSizes, LQEncoderSizes, config_of, unet_sizes
from comfyui_faithdiff.faithdiff_core.fidelity_decoder.files import header_of, put_together
from comfyui_faithdiff.faithdiff_core.fidelity_decoder.network import FidelityDecoder
from comfyui_faithdiff.faithdiff_core.fidelity_decoder.sizes import FidelityDecoderSizes
from comfyui_faithdiff.faithdiff_core.files.checkpoint import FaithDiffParts, assemble_adapter, assemble_full
from comfyui_faithdiff.faithdiff_core.files.metadata import FaithDiffMetadata
from comfyui_faithdiff.faithdiff_core.files.storage import write_safetensors
from comfyui_faithdiff.faithdiff_core.lq_encoder import LQEncoder

CONTEXT_CHANNELS = 64
POOLED_CHANNELS = 32
WIDTH = 32
"""Channels of the UNet's first level; the others have twice as many."""
ENCODER = LQEncoderSizes(block_out_channels=(32, 32, 64, 64), layers_per_block=1)
ALIGNMENT = AlignmentSizes(model_channels=WIDTH, feature_channels=64, mlp_channels=4 * WIDTH)
DECODER = FidelityDecoderSizes(widths=(8, 8, 12), blocks=(1, 2, 1), feature_channels=64)
UNET_CONFIG = {
    "image_size": 32,
    "use_checkpoint": False,
    "legacy": False,
    "num_classes": "sequential",
    "adm_in_channels": POOLED_CHANNELS + 6 * 256,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": WIDTH,
    "num_res_blocks": [1, 1, 1],
    "channel_mult": [1, 2, 2],
    "transformer_depth": [0, 1, 1],
    "transformer_depth_output": [0, 0, 1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": CONTEXT_CHANNELS,
    "num_head_channels": 32,
    "use_linear_in_transformer": True,
    "use_spatial_transformer": True,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
}


def random_weights(state: dict[str, torch.Tensor], seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """fp32 values for names and shapes, scaled by fan-in; norms near 1."""
    g = torch.Generator().manual_seed(seed)
    result = {}
    for name, like in state.items():
        value = torch.randn(like.shape, generator=g)
        if like.ndim > 1:
            result[name] = scale * value / like[0].numel() ** 0.5
        else:
            is_norm = name.endswith("weight")
            result[name] = 1 + 0.05 * value if is_norm else 0.02 * value
    return result


def unet_state(config: dict | None = None, seed: int = 0) -> dict[str, torch.Tensor]:
    """A UNet's weights in LDM names, from the host's own class."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    net = UNetModel(
        **(config or UNET_CONFIG), dtype=torch.float32, device=torch.device("meta"), operations=comfy.ops.disable_weight_init
    )
    return random_weights(net.state_dict(), seed)


def made_up_parts(mode: str = "pointwise", seed: int = 0) -> FaithDiffParts:
    unet = unet_state(seed=seed)
    encoder = LQEncoder(ENCODER, operations=torch.nn, device="meta").state_dict()
    alignment = AlignmentModule(ALIGNMENT, mode="spatial", operations=torch.nn, device="meta").state_dict()
    config = config_of(ENCODER, ALIGNMENT, unet_sizes(unet, {}))
    return FaithDiffParts(
        unet=unet,
        lq_encoder=random_weights(encoder, seed + 1),
        alignment=random_weights(alignment, seed + 2),
        metadata=FaithDiffMetadata(align_attention=mode, config=config, target_size_px=256),
    )


def write_full(path: Path, parts: FaithDiffParts) -> Path:
    write_safetensors(path, assemble_full(parts), parts.metadata.to_header())
    return path


def write_adapter(path: Path, parts: FaithDiffParts) -> Path:
    write_safetensors(path, assemble_adapter(parts), parts.metadata.to_header())
    return path


def write_vae(path: Path, seed: int = 5) -> Path:
    """A nano VAE of random weights."""
    import json

    import comfy.ldm.models.autoencoder
    from comfyui_faithdiff.nodes.seam.nano_vae import _host_config

    config = {"block_out_channels": [32, 64, 64, 64], "layers_per_block": 1, "norm_groups": 4, "latent_channels": 4}
    vae = comfy.ldm.models.autoencoder.AutoencoderKL(**_host_config(config))
    write_safetensors(path, random_weights(vae.state_dict(), seed), {"faithdiff.vae_config": json.dumps(config)})
    return path


def decoder_state(sizes: FidelityDecoderSizes = DECODER, seed: int = 6) -> dict[str, torch.Tensor]:
    """A fidelity decoder's weights, which change a picture by some tenths of its range."""
    state = random_weights(FidelityDecoder(sizes, operations=torch.nn, device="meta").state_dict(), seed)
    return {name: 0.1 * value if name.startswith("conv_out") else value for name, value in state.items()}


def write_decoder(path: Path, sizes: FidelityDecoderSizes = DECODER, seed: int = 6) -> Path:
    """A fidelity decoder of random weights."""
    write_safetensors(path, put_together(decoder_state(sizes, seed)), header_of(sizes, licence="MIT", training={}))
    return path


def with_unet(parts: FaithDiffParts, **changes: torch.Tensor) -> FaithDiffParts:
    return replace(parts, unet={**(parts.unet or {}), **changes})


def conditioning(seed: int, tokens: int = 77, batch: int = 1, **extra) -> list:
    g = torch.Generator().manual_seed(seed)
    context = torch.randn(batch, tokens, CONTEXT_CHANNELS, generator=g)
    return [[context, {"pooled_output": torch.randn(batch, POOLED_CHANNELS, generator=g), **extra}]]


def image(height_px: int, width_px: int, batch: int = 1, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """A host IMAGE (B, H, W, C) in [0, 1], smooth enough to be one."""
    g = torch.Generator().manual_seed(seed)
    small = torch.rand(batch, channels, max(2, height_px // 16), max(2, width_px // 16), generator=g)
    return torch.nn.functional.interpolate(small, (height_px, width_px), mode="bilinear").movedim(1, -1)
