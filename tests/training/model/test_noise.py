"""Noise schedule, sampler and learning rate against diffusers and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler
from support.compare import CHANGED, NETWORK, ONE_MODULE, assert_close

from training.common.seeds import generator_for
from training.loop.schedule import lr_factor
from training.model.noise import add_noise, alphas_cumprod, draw_noise, leading_timesteps, noise_loss, sample
from training.optim.ema import EMA

SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def test_noise_schedule_is_that_of_diffusers() -> None:
    scheduler = DDPMScheduler(**SDXL)
    assert torch.equal(alphas_cumprod(), scheduler.alphas_cumprod)
    latent, noise, timestep = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0, 500, 999])
    expected = scheduler.add_noise(latent, noise, timestep)  # type: ignore[arg-type]
    assert_close(add_noise(latent, noise, timestep, alphas_cumprod()), expected, ONE_MODULE)
    assert alphas_cumprod()[999].sqrt().item() == pytest.approx(0.0683, abs=1e-4)


def test_noise_is_added_in_fp32_whatever_comes_in() -> None:
    latent, noise = torch.randn(1, 4, 8, 8).half(), torch.randn(1, 4, 8, 8).half()
    assert add_noise(latent, noise, torch.tensor([3]), alphas_cumprod()).dtype == torch.float32
    assert noise_loss(latent, noise).dtype == torch.float32


def test_noise_offset_is_one_number_a_channel() -> None:
    plain = draw_noise((4, 16, 16), 0.0, generator_for(0, "n"))
    shifted = draw_noise((4, 16, 16), 0.02, generator_for(0, "n"))
    offset = shifted - plain
    # The range that is rounded is that of what the offset was added to.
    assert_close(plain + offset.mean((1, 2), keepdim=True), shifted, ONE_MODULE)
    assert offset.abs().max() > CHANGED
    many = torch.stack([draw_noise((4, 1, 1), 0.5, generator_for(index, "n")) for index in range(4000)])
    assert many.var().item() == pytest.approx(1 + 0.5**2, rel=0.05)


def test_sampler_is_diffusers_euler_with_leading_spacing() -> None:
    scheduler = EulerDiscreteScheduler(**SDXL, timestep_spacing="leading", steps_offset=1)
    scheduler.set_timesteps(20)
    assert leading_timesteps(20) == [int(t) for t in scheduler.timesteps] == list(range(951, 0, -50))

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x * 0.7 + t.view(-1, 1, 1, 1) / 1000)

    noise, start = torch.randn(2, 4, 6, 5), torch.randn(2, 4, 6, 5)
    x = noise * scheduler.sigmas[0] + start
    for t in scheduler.timesteps:
        x = scheduler.step(predict(scheduler.scale_model_input(x, t), t.long().expand(2)), t, x, return_dict=False)[0]
    assert_close(sample(predict, noise, start, steps=20), x, NETWORK)


def test_sampler_finds_the_latent_when_the_noise_is_known() -> None:
    truth, noise = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 6, 6)
    cumprod = alphas_cumprod()

    def oracle(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        kept = cumprod[t].view(-1, 1, 1, 1)
        return (x - kept.sqrt() * truth) / (1 - kept).sqrt()

    assert_close(sample(oracle, noise, None, steps=20), truth, NETWORK)


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    factors = [lr_factor(step, steps=100, warmup_steps=10) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1.0 == max(factors)
    assert factors[55] == pytest.approx(0.5, abs=1e-6)
    assert factors[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert all(late <= early for early, late in zip(factors[10:], factors[11:], strict=False))


def test_ema_follows_the_formula_in_fp32() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3, dtype=torch.float16))
    ema = EMA({"p": parameter}, max_decay=0.9)
    shadow = torch.zeros(3)
    for step in range(60):
        with torch.no_grad():
            parameter.add_(0.25)
        ema.update({"p": parameter}, step)
        decay = min(0.9, (1 + step) / (10 + step))
        shadow = decay * shadow + (1 - decay) * parameter.detach().float()
    assert ema.shadow["p"].dtype == torch.float32
    assert_close(ema.shadow["p"], shadow, ONE_MODULE)
