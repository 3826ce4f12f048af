"""Blur kernels, each (size, size) float32 with sum 1. Shapes of the families: Real-ESRGAN paper, section 3.1."""

from __future__ import annotations

import math

import torch


def grid(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """X and y of every cell, in px from the centre, float64 (size, size). `size` is odd."""
    assert size % 2 == 1, size
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def squared_distance(size: int, sigma_x_px: float, sigma_y_px: float, angle_rad: float) -> torch.Tensor:
    """v^T S^-1 v, where S has the axes sigma_x and sigma_y turned by `angle_rad`; float64 (size, size)."""
    x, y = grid(size)
    along = x * math.cos(angle_rad) + y * math.sin(angle_rad)
    across = -x * math.sin(angle_rad) + y * math.cos(angle_rad)
    return (along / sigma_x_px) ** 2 + (across / sigma_y_px) ** 2


def gaussian(size: int, sigma_x_px: float, sigma_y_px: float, angle_rad: float = 0.0, beta: float = 1.0) -> torch.Tensor:
    """exp(-d^(2 beta) / 2); beta 1 is the Gaussian, others the generalised one."""
    kernel = torch.exp(-0.5 * squared_distance(size, sigma_x_px, sigma_y_px, angle_rad) ** beta)
    return (kernel / kernel.sum()).float()


def plateau(size: int, sigma_x_px: float, sigma_y_px: float, angle_rad: float, beta: float) -> torch.Tensor:
    """1 / (1 + d^(2 beta)): flat in the middle."""
    kernel = 1.0 / (1.0 + squared_distance(size, sigma_x_px, sigma_y_px, angle_rad) ** beta)
    return (kernel / kernel.sum()).float()


def sinc(size: int, cutoff_rad: float) -> torch.Tensor:
    """Circular low-pass filter w J1(w r) / (2 pi r), the cause of ringing. `cutoff_rad` w in (0, pi]."""
    x, y = grid(size)
    radius = torch.sqrt(x * x + y * y)
    centre = size // 2
    radius[centre, centre] = 1.0
    kernel = cutoff_rad * torch.special.bessel_j1(cutoff_rad * radius) / (2 * math.pi * radius)
    kernel[centre, centre] = cutoff_rad**2 / (4 * math.pi)  # the limit for r -> 0
    return (kernel / kernel.sum()).float()
