"""Weights and inputs that anyone can make again from their names, as those of tests/data/official_vega.npz were made.

The file holds outputs of the official UNet class (JyChen9811/FaithDiff at f11af6c), run in fp32 on a CPU, at the size of
Segmind-Vega: `feat` (1, 512, 12, 16), the LQ encoder's features of `image`, and `eps_999`, `eps_500`, `eps_21` (2, 4, 12,
16), the network's output at those timesteps for the rows (unconditional, conditional).
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
import torch.nn.functional as F
from comfyui_faithdiff.faithdiff_core.alignment import AlignmentModule
from comfyui_faithdiff.faithdiff_core.architecture import AlignmentSizes, LQEncoderSizes
from comfyui_faithdiff.faithdiff_core.files.checkpoint import FaithDiffParts, assemble_released
from comfyui_faithdiff.faithdiff_core.files.metadata import FaithDiffMetadata
from comfyui_faithdiff.faithdiff_core.lq_encoder import LQEncoder

# Segmind-Vega, the smallest published net of the SDXL family that the host knows.
VEGA_UNET = {
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 1, 2],
    "mid_block_type": "UNetMidBlock2D",
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
SDXL_UNET = {**VEGA_UNET, "transformer_layers_per_block": [1, 2, 10], "mid_block_type": "UNetMidBlock2DCrossAttn"}


DRAWN_AT_ONCE = 2**16
"""Numbers that stay in a processor's cache until they are fp16: takes half the time of whole tensors, and gives the same."""


def _generator(name: bytes) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name)))


def weight_by_rule(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """fp16; norms near 1, biases near 0, everything else scaled by its fan-in."""
    generator = _generator(key.encode())
    if len(shape) == 1:
        a = generator.standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(1 + 0.05 * a if ("norm" in key or "ln_" in key) and key.endswith("weight") else 0.02 * a).half()
    fan_in = np.sqrt(np.prod(shape[1:]))
    result = torch.empty(int(np.prod(shape)), dtype=torch.float16)
    drawn = np.empty(DRAWN_AT_ONCE, dtype=np.float32)
    for part in result.split(DRAWN_AT_ONCE):
        generator.standard_normal(out=drawn[: len(part)], dtype=np.float32)
        part.copy_(torch.from_numpy(drawn[: len(part)] / fan_in))  # float64 before fp16: 1,970 encoder weights depend on it
    return result.view(shape)


def input_by_rule(name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(_generator(b"input:" + name.encode()).standard_normal(shape, dtype=np.float32))


def image_by_rule() -> torch.Tensor:
    """The image in [0, 1], (1, 3, 96, 128)."""
    return torch.sigmoid(F.interpolate(input_by_rule("image", 1, 3, 12, 16), (96, 128), mode="bicubic"))


def released_shapes(unet_config: dict) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file in the released layout, from diffusers' own UNet class and our modules."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_config).state_dict()
        encoder = LQEncoder(LQEncoderSizes(), operations=torch.nn).state_dict()
        alignment = AlignmentModule(AlignmentSizes(), mode="spatial", operations=torch.nn).state_dict()
    parts = FaithDiffParts(unet=None, lq_encoder=encoder, alignment=alignment, metadata=FaithDiffMetadata())
    return {k: tuple(t.shape) for k, t in {**unet, **assemble_released(parts)}.items()}


def released_by_rule(unet_config: dict) -> dict[str, torch.Tensor]:
    """A whole file in the released layout, fp16."""
    return {key: weight_by_rule(key, shape) for key, shape in released_shapes(unet_config).items()}
