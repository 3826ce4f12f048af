"""The diffusion objective: SDXL's noise schedule, noise with an offset, L1 on the noise (paper, section 3; official stage 2
:899-936).
"""

from __future__ import annotations

import torch

TRAIN_TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


def alphas_cumprod() -> torch.Tensor:
    """SDXL's cumulative signal power, float32 (1000,): betas are the squares of a linear ramp of square roots
    ("scaled_linear").
    """
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_TIMESTEPS, dtype=torch.float32) ** 2
    return torch.cumprod(1.0 - betas, dim=0)


def draw_noise(shape: tuple[int, ...], noise_offset: float, generator: torch.Generator) -> torch.Tensor:
    """N(0, 1) plus `noise_offset` times one normal number a channel; float32 (C, h, w). The offset is part of the target."""
    return torch.randn(shape, generator=generator) + noise_offset * torch.randn(shape[0], 1, 1, generator=generator)


def add_noise(
    latent_BCHW: torch.Tensor, noise_BCHW: torch.Tensor, timestep_B: torch.Tensor, cumprod: torch.Tensor
) -> torch.Tensor:
    """sqrt(a_t) latent + sqrt(1 - a_t) noise, in float32 (fp16 is up to 7 % off at the smallest t)."""
    kept = cumprod.to(latent_BCHW.device)[timestep_B].view(-1, 1, 1, 1)
    return kept.sqrt() * latent_BCHW.float() + (1.0 - kept).sqrt() * noise_BCHW.float()


def noise_loss(predicted_BCHW: torch.Tensor, noise_BCHW: torch.Tensor) -> torch.Tensor:
    """Mean absolute error, in float32."""
    return (predicted_BCHW.float() - noise_BCHW.float()).abs().mean()
