"""PSNR and SSIM of float32 (3, H, W) pictures in [0, 1], over all channels, without cutting the border."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from training.degradation.kernels import gaussian

SSIM_WINDOW_PX, SSIM_SIGMA_PX = 11, 1.5
"""Wang et al. 2004, section III-B."""
C1, C2 = 0.01**2, 0.03**2


def psnr_db(image_CHW: torch.Tensor, reference_CHW: torch.Tensor) -> float:
    """Peak signal-to-noise ratio; infinity for equal pictures."""
    mse = (image_CHW.double() - reference_CHW.double()).square().mean().item()
    return math.inf if mse == 0 else -10.0 * math.log10(mse)


def ssim(image_CHW: torch.Tensor, reference_CHW: torch.Tensor) -> float:
    """Mean structural similarity over channels and the positions where the whole window fits."""
    window = gaussian(SSIM_WINDOW_PX, SSIM_SIGMA_PX, SSIM_SIGMA_PX).double()[None, None]
    window /= window.sum()

    def local_mean(x_CHW: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x_CHW[:, None], window)[:, 0]

    x, y = image_CHW.double(), reference_CHW.double()
    mean_x, mean_y = local_mean(x), local_mean(y)
    variance_x, variance_y = local_mean(x * x) - mean_x**2, local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    score = (2 * mean_x * mean_y + C1) * (2 * covariance + C2) / ((mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2))
    return score.mean().item()


METRICS = {"psnr": psnr_db, "ssim": ssim}
