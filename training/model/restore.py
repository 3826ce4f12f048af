"""Restoring a picture with the trainer's own sampler: to look at results, and to check the nodes against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from faithdiff_core.color_fix import fix_colors
from faithdiff_core.fidelity_decoder.network import FidelityDecoder
from faithdiff_core.geometry import Size, crop_to, pad_to_latent_cells
from training.common.seeds import generator_for
from training.model.faithdiff import FaithDiffComposite
from training.model.networks import LATENT_SCALE, decode, encode, time_ids
from training.model.noise import sample


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What the VAE made of a latent, and what a fidelity decoder sees beside it. H and W are the result's, H' and W' multiples
    of 8.
    """

    decoded_1CHW: torch.Tensor
    """Float32 (1, 3, H', W') in [-1, 1]."""
    enlarged_1CHW: torch.Tensor
    """The LQ picture at the result's size, float32 (1, 3, H, W) in [0, 1]."""
    features_1CHW: torch.Tensor
    """The LQ encoder's, (1, C, H'/8, W'/8)."""


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, image_CHW: torch.Tensor) -> torch.Tensor:
    """Through the VAE and back, without noise: float32 (3, H, W) in [0, 1] both ways. What the VAE alone costs."""
    size = Size(image_CHW.shape[1], image_CHW.shape[2])
    latent = encode(vae, pad_to_latent_cells(image_CHW[None]) * 2.0 - 1.0).chunk(2, dim=1)[0]
    return ((crop_to(decode(vae, latent), size).clamp(-1, 1) + 1.0) / 2.0)[0]


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
    decoder: FidelityDecoder | None = None,
    fidelity: float = 1.0,
) -> torch.Tensor:
    """Restore float32 (3, h, w) in [0, 1] at `scale` times its size; returns (3, scale h, scale w) in [0, 1].

    start: "lq" = noise over the encoded LQ picture, "noise" = noise alone. colour: a method of faithdiff_core.color_fix, after
    the decoder. fidelity: 0 to 1, of `decoder`; 0 is as without one, bit for bit.
    """
    made = decoded(model, vae, lq_CHW, scale=scale, target_px=target_px, steps=steps, seed=seed, start=start)
    return finished(made, decoder, fidelity, colour)


@torch.no_grad()
def decoded(
    model: FaithDiffComposite,
    vae: AutoencoderKL,
    lq_CHW: torch.Tensor,
    *,
    scale: int,
    target_px: int,
    steps: int | None,
    seed: int = 0,
    start: str = "lq",
) -> Decoded:
    """The first half of `restore`. steps None = the LQ picture's own latent is decoded, without the model."""
    size = Size(lq_CHW.shape[1] * scale, lq_CHW.shape[2] * scale)
    enlarged = F.interpolate(lq_CHW[None], size=tuple(size), mode="bicubic").clamp(0, 1)
    padded = pad_to_latent_cells(enlarged) * 2.0 - 1.0
    latent = encode(vae, padded).chunk(2, dim=1)[0] * LATENT_SCALE
    features = model.encode_lq(padded)
    if steps is not None:
        ids = time_ids((size.height, size.width), (0, 0), target_px)[None]
        noise = torch.randn(latent.shape, generator=generator_for(seed, "restore"))
        begin = latent if start == "lq" else None
        latent = sample(lambda x, t: model.predict(x, t, ids, features), noise, begin, steps=steps)
    picture = decode(vae, latent / LATENT_SCALE).clamp(-1, 1)
    return Decoded(decoded_1CHW=picture, enlarged_1CHW=enlarged, features_1CHW=features)


@torch.no_grad()
def finished(made: Decoded, decoder: FidelityDecoder | None, fidelity: float, colour: str) -> torch.Tensor:
    """The second half of `restore`: the fidelity decoder, then the colours; float32 (3, H, W) in [0, 1]."""
    picture = made.decoded_1CHW
    if decoder is not None and fidelity:
        padded = pad_to_latent_cells(made.enlarged_1CHW) * 2.0 - 1.0
        picture = decoder(picture, padded, made.features_1CHW, fidelity).clamp(-1, 1)
    size = Size(*made.enlarged_1CHW.shape[-2:])
    return fix_colors(crop_to((picture + 1.0) / 2.0, size), made.enlarged_1CHW, colour)[0]
