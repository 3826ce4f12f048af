"""Widths of the networks that can be trained: how to build them from diffusers and faithdiff_core, and how to read them off the
names and shapes of a file's weights (diffusers' names).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from faithdiff_core.architecture import AlignmentSizes, LQEncoderSizes
from faithdiff_core.fidelity_decoder.sizes import FidelityDecoderSizes

LATENT_SCALE = 0.13025
"""SDXL's latent scaling factor (diffusers AutoencoderKL config of SDXL, scaling_factor)."""
TIME_EMBED_DIM = 256
"""Width of each of the six SDXL size embeddings (addition_time_embed_dim)."""
CONTEXT_TOKENS = 77
HEAD_WIDTH = 64
"""Of the UNet's attention, as in SDXL."""
UNET_NORM_GROUPS = 32
"""Fixed in the host's SDXL UNet."""
State = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """All widths and depths of one FaithDiff and its VAE; defaults are SDXL's. The UNet's heads are 64 wide, as in the host's."""

    encoder: LQEncoderSizes = LQEncoderSizes()
    """Of the LQ encoder, and of the VAE that it comes from."""
    alignment: AlignmentSizes = AlignmentSizes()
    fidelity_decoder: FidelityDecoderSizes = FidelityDecoderSizes()
    unet_channels: tuple[int, int, int]
    unet_layers: int = 1
    """ResNet blocks on each level of the way down (one more on the way up)."""
    transformer_layers: tuple[int, int] = (1, 1)
    """Transformer blocks of one attention layer on the second and third level; the first has no attention."""
    middle_attention: bool = True
    """In the middle: an attention layer like the third level's between two ResNet blocks, or one ResNet block alone."""
    context_width: int
    pooled_width: int

    @property
    def vae_channels(self) -> tuple[int, ...]:
        """Widths of the VAE's levels."""
        return self.encoder.block_out_channels

    @property
    def vae_layers(self) -> int:
        """ResNet blocks on each of them."""
        return self.encoder.layers_per_block

    @property
    def vae_norm_groups(self) -> int:
        """Groups of every norm in it."""
        return self.encoder.norm_groups


_SDXL_SIDE: dict[str, Any] = {
    "unet_channels": (320, 640, 1280),
    "unet_layers": 2,
    "context_width": 2048,
    "pooled_width": 1280,
}


NETWORKS = {
    "nano": NetworkSpec(
        # 4 norm groups, not SDXL's 32: 32 groups of 32 channels normalise every channel by itself, and brightness is lost.
        # Measured after 60 steps of 8 crops of 128 px: 12.1 dB with 32 groups, 15.5 dB with 4.
        encoder=LQEncoderSizes(block_out_channels=(32, 64, 128, 128), layers_per_block=1, norm_groups=4),
        alignment=AlignmentSizes(model_channels=64, feature_channels=128, mlp_channels=256),
        fidelity_decoder=FidelityDecoderSizes(widths=(32, 64, 128), blocks=(1, 2, 4), feature_channels=128),
        unet_channels=(64, 128, 128),
        context_width=64,
        pooled_width=64,
    ),
    # SDXL's UNet config.json (2,567,463,684 parameters), for real training.
    "sdxl": NetworkSpec(transformer_layers=(2, 10), **_SDXL_SIDE),
    # Segmind-Vega's (745 million), the smallest published UNet of the family: for measurements.
    "vega": NetworkSpec(transformer_layers=(1, 2), middle_attention=False, **_SDXL_SIDE),
    # For tests only: seconds, not minutes.
    "tiny": NetworkSpec(
        encoder=LQEncoderSizes(block_out_channels=(8, 8, 16, 32), layers_per_block=1, norm_groups=4),
        alignment=AlignmentSizes(model_channels=64, feature_channels=32, mlp_channels=256, num_heads=2),
        fidelity_decoder=FidelityDecoderSizes(widths=(8, 8, 16), blocks=(1, 1, 1), feature_channels=32),
        unet_channels=(64, 64, 64),
        context_width=16,
        pooled_width=16,
    ),
}


def network_spec(name: str) -> NetworkSpec:
    """The widths called `name`.

    Raises:
        ValueError: an unknown name.
    """
    if name not in NETWORKS:
        raise ValueError(f"expected network {' or '.join(NETWORKS)}, got {name!r}, correct --set network=")
    return NETWORKS[name]


def build_vae(spec: NetworkSpec) -> AutoencoderKL:
    """An untrained AutoencoderKL: (B, 3, H, W) in [-1, 1] <-> (B, 4, H/8, W/8)."""
    levels = len(spec.vae_channels)
    # diffusers' annotations say 1-tuples; longer ones are what it takes.
    kinds: Any = {
        "block_out_channels": spec.vae_channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    return AutoencoderKL(
        **kinds,
        layers_per_block=spec.vae_layers,
        latent_channels=4,
        norm_num_groups=spec.vae_norm_groups,
        scaling_factor=LATENT_SCALE,
    )


def encode(vae: AutoencoderKL, image_BCHW: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, H, W) in [-1, 1] -> posterior (B, 8, H/8, W/8): 4 channels of mean, 4 of log variance, in the VAE's own
    units.
    """
    posterior: Any = vae.encode(cast(Any, image_BCHW), return_dict=False)[0]
    return posterior.parameters


def decode(vae: AutoencoderKL, latent_BCHW: torch.Tensor) -> torch.Tensor:
    """Latents (B, 4, h, w) in the VAE's own units -> images (B, 3, 8 h, 8 w), about [-1, 1]."""
    decoded: Any = vae.decode(cast(Any, latent_BCHW), return_dict=False)
    return decoded[0]


def build_unet(spec: NetworkSpec) -> UNet2DConditionModel:
    """An untrained UNet of SDXL's topology: (B, 4, h, w) -> (B, 4, h, w)."""
    kinds: Any = {
        "block_out_channels": spec.unet_channels,
        # diffusers wants a number for the first level, too, and does not use it.
        "transformer_layers_per_block": (1, *spec.transformer_layers),
        # diffusers calls the number of heads `attention_head_dim`.
        "attention_head_dim": tuple(width // HEAD_WIDTH for width in spec.unet_channels),
    }
    return UNet2DConditionModel(
        **kinds,
        in_channels=4,
        out_channels=4,
        layers_per_block=spec.unet_layers,
        mid_block_type="UNetMidBlock2DCrossAttn" if spec.middle_attention else "UNetMidBlock2D",
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=spec.context_width,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_EMBED_DIM,
        projection_class_embeddings_input_dim=6 * TIME_EMBED_DIM + spec.pooled_width,
        norm_num_groups=UNET_NORM_GROUPS,
    )


def no_prompt(spec: NetworkSpec, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Conditioning without a prompt: zeros (B, 77, context width) and zeros (B, pooled width)."""
    return torch.zeros(batch, CONTEXT_TOKENS, spec.context_width), torch.zeros(batch, spec.pooled_width)


def time_ids(original_HW_px: tuple[int, int], origin_YX_px: tuple[int, int], target_px: int) -> torch.Tensor:
    """SDXL's six numbers, float32 (6,): original H, W, crop top, left, target H, W.

    fp32 on purpose: fp16 rounds sizes above 2048 px (the official trainer does).
    """
    return torch.tensor([*original_HW_px, *origin_YX_px, target_px, target_px], dtype=torch.float32)


def unet_widths(state: State) -> dict[str, Any]:
    """The fields of NetworkSpec that a UNet's weights tell.

    Raises:
        ValueError: they are no SDXL-family UNet's.
    """
    levels = _count(state, r"down_blocks\.(\d+)\.")
    try:
        return {
            "unet_channels": tuple(state[f"down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in range(levels)),
            "unet_layers": _count(state, r"down_blocks\.0\.resnets\.(\d+)\."),
            "transformer_layers": tuple(
                _count(state, rf"down_blocks\.{i}\.attentions\.0\.transformer_blocks\.(\d+)\.") for i in range(1, levels)
            ),
            "middle_attention": any(name.startswith("mid_block.attentions.") for name in state),
            "context_width": next(v.shape[1] for name, v in state.items() if name.endswith("attn2.to_k.weight")),
            "pooled_width": state["add_embedding.linear_1.weight"].shape[1] - 6 * TIME_EMBED_DIM,
        }
    except (KeyError, IndexError, StopIteration) as error:
        lacking = error.args[0] if isinstance(error, KeyError) else "attention"
        raise ValueError(f"expected an SDXL-family UNet, got one without {lacking}, choose another file") from None


def vae_widths(state: State, prefix: str = "") -> dict[str, Any]:
    """The fields of NetworkSpec that the encoder's weights tell; `prefix` stands before `down_blocks`.

    Raises:
        ValueError: they are no VAE encoder's.
    """
    levels = _count(state, rf"{re.escape(prefix)}down_blocks\.(\d+)\.")
    try:
        return {
            "vae_channels": tuple(state[f"{prefix}down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in range(levels)),
            "vae_layers": _count(state, rf"{re.escape(prefix)}down_blocks\.0\.resnets\.(\d+)\."),
        }
    except (KeyError, IndexError) as error:
        raise ValueError(f"expected a VAE encoder, got one without {error.args[0]}, choose another file") from None


def fits(widths: Mapping[str, Any], spec: NetworkSpec) -> bool:
    """Whether every width told is the network's."""
    return all(getattr(spec, name) == value for name, value in widths.items())


def require_fit(widths: Mapping[str, Any], spec: NetworkSpec, what: str, source: object) -> None:
    """Raise ValueError naming the first width that is not the network's, and the network that it would be."""
    for name, value in widths.items():
        if getattr(spec, name) != value:
            others = [other for other, each in NETWORKS.items() if fits(widths, each)]
            hint = f"choose another file or --set network={others[0]}" if others else "choose another file"
            raise ValueError(f"expected a {what} with {name} {getattr(spec, name)}, got {value} in {source}, {hint}")


def _count(state: State, pattern: str) -> int:
    return len({found[1] for name in state if (found := re.match(pattern, name))})
