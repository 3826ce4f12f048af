"""The release's sampling loop, small: Euler over leading-spaced timesteps (951, 901, ... 1 with 20 steps)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from training.model.noise import TRAIN_TIMESTEPS, alphas_cumprod


def leading_timesteps(steps: int) -> list[int]:
    """Diffusers' "leading" spacing with offset 1, the host's `ddim_uniform`, from noisy to clean."""
    if not 1 <= steps <= TRAIN_TIMESTEPS:
        raise ValueError(f"expected 1 to {TRAIN_TIMESTEPS} sampling steps, got {steps}, choose for example 20")
    stride = TRAIN_TIMESTEPS // steps
    return [index * stride + 1 for index in reversed(range(steps))]


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
    cumprod = alphas_cumprod()
    timesteps = leading_timesteps(steps)
    sigmas = [sigma_of(timestep, cumprod) for timestep in timesteps] + [0.0]
    x = noise_BCHW * sigmas[0] + (0.0 if start_BCHW is None else start_BCHW)
    for timestep, sigma, following in zip(timesteps, sigmas, sigmas[1:], strict=False):
        scaled = x / (sigma**2 + 1.0) ** 0.5
        noise = predict_noise(scaled, torch.full((len(x),), timestep, dtype=torch.int64))
        x = x + noise * (following - sigma)
    return x
