"""The whole degradation of one picture: stage A, stage B about the small size, final filter, 8-bit rounding."""

from __future__ import annotations

import math

import torch

from training.common.seeds import choose, integer, uniform
from training.degradation import steps
from training.degradation.presets import FAMILY_WEIGHTS, Preset, Range, Stage

RESIZE_MODES = {"area": 1.0, "bilinear": 1.0, "bicubic": 1.0}
UPSCALE_MODES = {"nearest-exact": 1.0, "bilinear": 1.0, "bicubic": 1.0}
"""Official Realesrgan_offline_dataset.py:211-214: the LQ picture goes back to the target size by one of these."""
KERNEL_SIZES_PX = (7, 21)
"""Odd sizes between these (official realesrgan.py:81)."""


def draw_kernel(stage: Stage, generator: torch.Generator) -> torch.Tensor:
    """A blur kernel of the stage: a sinc filter with `sinc_prob`, else one of the six Gaussian-like families."""
    size = 2 * integer(generator, KERNEL_SIZES_PX[0] // 2, KERNEL_SIZES_PX[1] // 2) + 1
    if uniform(generator, 0, 1) < stage.sinc_prob:
        # official realesrgan.py:132-138: small kernels must not cut off too low
        return steps.sinc_kernel(size, uniform(generator, math.pi / 3 if size < 13 else math.pi / 5, math.pi))
    family = choose(generator, FAMILY_WEIGHTS)
    sigma_x = uniform(generator, *stage.blur_sigma_px)
    sigma_y, angle = sigma_x, 0.0
    if family.endswith("aniso"):
        sigma_y, angle = uniform(generator, *stage.blur_sigma_px), uniform(generator, -math.pi, math.pi)
    if family.startswith("plateau"):
        return steps.plateau_kernel(size, sigma_x, sigma_y, angle, _one_sided(stage.plateau_beta, generator))
    beta = _one_sided(stage.generalised_beta, generator) if family.startswith("generalised") else 1.0
    return steps.gaussian_kernel(size, sigma_x, sigma_y, angle, beta)


def _one_sided(span: Range, generator: torch.Generator) -> float:
    """Half of the draws below 1, half above: a uniform draw would nearly always flatten the kernel."""
    low, high = span
    if low < 1 < high and integer(generator, 0, 1):
        return uniform(generator, low, 1.0)
    return uniform(generator, max(low, 1.0), high)


def _noise(image_CHW: torch.Tensor, stage: Stage, generator: torch.Generator) -> torch.Tensor:
    gray = uniform(generator, 0, 1) < stage.gray_prob
    if uniform(generator, 0, 1) < stage.gaussian_prob:
        return steps.gaussian_noise(image_CHW, uniform(generator, *stage.gaussian_sigma_u8), gray, generator)
    return steps.poisson_noise(image_CHW, uniform(generator, *stage.poisson_scale), gray, generator)


def _resize_factor(stage: Stage, generator: torch.Generator) -> float:
    kind = choose(generator, stage.resize_weights)
    low, high = stage.resize_range
    if kind == "up":
        return uniform(generator, 1.0, max(high, 1.0))
    return uniform(generator, min(low, 1.0), 1.0) if kind == "down" else 1.0


def _quality(stage: Stage, generator: torch.Generator) -> int:
    return round(uniform(generator, *stage.jpeg_quality))


def _scaled(size_HW_px: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(round(size_HW_px[0] * factor), 1), max(round(size_HW_px[1] * factor), 1)


def degrade(image_CHW: torch.Tensor, preset: Preset, scale: int, generator: torch.Generator) -> torch.Tensor:
    """Degrade float32 (3, H, W) in [0, 1] to (3, round(H / scale), round(W / scale)), rounded to 8 bits.

    Order as in the official realesrgan.py:203-303, which follows Real-ESRGAN.
    """
    full = (int(image_CHW.shape[1]), int(image_CHW.shape[2]))
    small = _scaled(full, 1.0 / scale)
    out = image_CHW

    stage = preset.stage_a
    if uniform(generator, 0, 1) < stage.blur_prob:
        out = steps.blur(out, draw_kernel(stage, generator))
    out = steps.resize(out, _scaled(full, _resize_factor(stage, generator)), choose(generator, RESIZE_MODES))
    out = _noise(out, stage, generator).clamp(0, 1)
    out = steps.jpeg(out, _quality(stage, generator))

    stage = preset.stage_b
    if uniform(generator, 0, 1) < stage.blur_prob:
        out = steps.blur(out, draw_kernel(stage, generator))
    out = steps.resize(out, _scaled(small, _resize_factor(stage, generator)), choose(generator, RESIZE_MODES))
    out = _noise(out, stage, generator).clamp(0, 1)

    size = 2 * integer(generator, KERNEL_SIZES_PX[0] // 2, KERNEL_SIZES_PX[1] // 2) + 1
    final = (
        steps.sinc_kernel(size, uniform(generator, math.pi / 3, math.pi))
        if uniform(generator, 0, 1) < preset.final_sinc_prob
        else None
    )
    mode, quality = choose(generator, RESIZE_MODES), _quality(stage, generator)
    if integer(generator, 0, 1):
        out = _shrink(out, small, mode, final)
        out = steps.jpeg(out, quality)
    else:
        out = steps.jpeg(out, quality)
        out = _shrink(out, small, mode, final)
    return (out.clamp(0, 1) * 255.0).round() / 255.0


def _shrink(image_CHW: torch.Tensor, size_HW_px: tuple[int, int], mode: str, kernel: torch.Tensor | None) -> torch.Tensor:
    out = steps.resize(image_CHW, size_HW_px, mode)
    return (steps.blur(out, kernel) if kernel is not None else out).clamp(0, 1)


def upscale(image_CHW: torch.Tensor, size_HW_px: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Bring a degraded picture back to the target size by a randomly chosen method, clipped to [0, 1]."""
    return steps.resize(image_CHW, size_HW_px, choose(generator, UPSCALE_MODES)).clamp(0, 1)
