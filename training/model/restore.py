"""Restoring a picture with the trainer's own sampler: to look at results, and to check the nodes against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from faithdiff_core.color_fix import fix_colors
from faithdiff_core.geometry import Size, crop_to, pad_to_latent_cells
from training.common.seeds import generator_for
from training.model.faithdiff import FaithDiffComposite
from training.model.networks import LATENT_SCALE, decode, encode, time_ids
from training.model.noise import sample


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, image_CHW: torch.Tensor) -> torch.Tensor:
    """Through the VAE and back, without noise: float32 (3, H, W) in [0, 1] both ways. What the VAE alone costs."""
    size = Size(image_CHW.shape[1], image_CHW.shape[2])
    latent = encode(vae, pad_to_latent_cells(image_CHW[None]) * 2.0 - 1.0).chunk(2, dim=1)[0]
    return ((crop_to(decode(vae, latent), size).clamp(-1, 1) + 1.0) / 2.0)[0]


@torch.no_grad()
def restore(
    model: FaithDiffComposite,
    vae: AutoencoderKL,
    lq_CHW: torch.Tensor,
    *,
    scale: int,
    target_px: int,
    steps: int = 20,
    seed: int = 0,
    start: str = "lq",
    colour: str = "adain",
) -> torch.Tensor:
    """Restore float32 (3, h, w) in [0, 1] at `scale` times its size; returns (3, scale h, scale w) in [0, 1].

    start: "lq" = noise over the encoded LQ picture, "noise" = noise alone. colour: a method of faithdiff_core.color_fix.
    """
    size = Size(lq_CHW.shape[1] * scale, lq_CHW.shape[2] * scale)
    enlarged = F.interpolate(lq_CHW[None], size=tuple(size), mode="bicubic").clamp(0, 1)
    padded = pad_to_latent_cells(enlarged) * 2.0 - 1.0
    latent = encode(vae, padded).chunk(2, dim=1)[0] * LATENT_SCALE
    features = model.encode_lq(padded)
    ids = time_ids((size.height, size.width), (0, 0), target_px)[None]
    noise = torch.randn(latent.shape, generator=generator_for(seed, "restore"))
    begin = latent if start == "lq" else None
    result = sample(lambda x, t: model.predict(x, t, ids, features), noise, begin, steps=steps)
    picture = (decode(vae, result / LATENT_SCALE).clamp(-1, 1) + 1.0) / 2.0
    return fix_colors(crop_to(picture, size), enlarged, colour)[0]
