"""Single denoising steps of several MODELs in turn, each in a sampling run of the host's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import comfy.model_patcher
import comfy.sample
import comfy.samplers
import torch

CFG = 5.0
"""Official test.py:33."""
TIMESTEP = 500
"""Half way; a step costs the same at each."""

Result = TypeVar("Result")
Predict = Callable[[], torch.Tensor]


def noisy(model: comfy.model_patcher.ModelPatcher, height_lat: int, width_lat: int) -> tuple[torch.Tensor, float]:
    """A latent (1, 4, H, W) at the noise level of `TIMESTEP`, and that level."""
    sigma = float(model.get_model_object("model_sampling").sigmas[TIMESTEP])
    noise = torch.randn(1, 4, height_lat, width_lat, generator=torch.Generator().manual_seed(5))
    return noise * (sigma**2 + 1) ** 0.5, sigma


def together(
    models: dict[str, comfy.model_patcher.ModelPatcher],
    prompts: tuple[list, list],
    x_BCHW: torch.Tensor,
    sigma: float,
    act: Callable[[dict[str, Predict]], Result],
) -> Result:
    """`act` of what predicts for each MODEL: the denoised latent with guidance, as a sampler of the host asks for it.

    The runs are open one inside the other, since ways that are timed in turn all have to be in one.
    """
    results: list[Result] = []

    def enter(left: list[str], entered: dict[str, Predict]) -> None:
        if not left:
            results.append(act(entered))
            return
        name, *others = left

        def inside(denoiser: Any, noise: torch.Tensor, *_args: Any, extra_args: dict[str, Any], **_kwargs: Any) -> torch.Tensor:
            base = denoiser.inner_model.inner_model
            own = base.current_patcher
            sigma_B = torch.full((x_BCHW.shape[0],), sigma, device=noise.device)
            x = x_BCHW.to(noise)

            def predict() -> torch.Tensor:
                base.current_patcher = own  # the MODELs share one network, which knows the run that was opened last
                return denoiser(x, sigma_B, **extra_args)

            enter(others, {**entered, name: predict})
            return noise

        zeros = torch.zeros_like(x_BCHW)
        sampler = comfy.samplers.KSAMPLER(inside)
        sigmas = torch.tensor([sigma, 0.0])
        comfy.sample.sample_custom(models[name], zeros, CFG, sampler, sigmas, *prompts, zeros, disable_pbar=True)

    with torch.inference_mode():  # as the host runs its nodes
        enter(list(models), {})
    return results[0]
