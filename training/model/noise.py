"""SDXL's noise schedule, and what is made by it: the diffusion objective, noise with an offset and L1 on it (paper, section 3;
official stage 2 :899-936), and the release's sampling loop, small: Euler over leading-spaced timesteps (951, 901, ... 1 with 20
steps).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

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


def leading_timesteps(steps: int) -> list[int]:
    """Diffusers' "leading" spacing with offset 1, the host's `ddim_uniform`, from noisy to clean."""
    if not 1 <= steps <= TRAIN_TIMESTEPS:
        raise ValueError(f"expected 1 to {TRAIN_TIMESTEPS} sampling steps, got {steps}, choose for example 20")
    stride = TRAIN_TIMESTEPS // steps
    return [index * stride + 1 for index in reversed(range(steps))]


@cache
def sigmas_of(steps: int) -> tuple[float, ...]:
    """Noise over signal at each of the leading timesteps, and 0 at the end."""
    cumprod = alphas_cumprod()
    return (*(sigma_of(timestep, cumprod) for timestep in leading_timesteps(steps)), 0.0)


def sigma_of(timestep: int, cumprod: torch.Tensor) -> float:
    """Noise over signal, sqrt((1 - a) / a), at a timestep."""
    kept = cumprod[min(timestep, TRAIN_TIMESTEPS - 1)].double()
    return float(((1.0 - kept) / kept).sqrt())


@torch.no_grad()
def sample(
    predict_noise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    noise_BCHW: torch.Tensor,
    start_BCHW: torch.Tensor | None,
    *,
    steps: int,
) -> torch.Tensor:
    """Denoise to a latent (B, 4, h, w) in model units (the VAE's times 0.13025).

    predict_noise(x, t): x is the scaled (variance preserving) latent, t (B,) int64. `start_BCHW` is the clean latent that the
    first noisy one is made of ("lq"), None starts from noise alone.
    """
    timesteps, sigmas = leading_timesteps(steps), sigmas_of(steps)
    x = noise_BCHW * sigmas[0] + (0.0 if start_BCHW is None else start_BCHW)
    for timestep, sigma, following in zip(timesteps, sigmas, sigmas[1:], strict=False):
        scaled = x / (sigma**2 + 1.0) ** 0.5
        noise = predict_noise(scaled, torch.full((len(x),), timestep, dtype=torch.int64))
        x = x + noise * (following - sigma)
    return x
