"""How far a fidelity decoder's picture is from the truth, in pixels. Pictures are (B, 3, H, W) in [-1, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F

SURROUNDINGS_PX = 9
"""Side of the mean that a pixel is compared with: wider than the strokes of letters that are lost first (2 to 4 px)."""
FLAT = 0.01
"""Added to a crop's mean contrast, about one step of 255: so that noise in a flat crop does not count as strokes."""


def pixel_loss(got_BCHW: torch.Tensor, wanted_BCHW: torch.Tensor, stroke_weight: float) -> torch.Tensor:
    """Mean over the crops of the weighted mean of |got - wanted|; all weights are 1 where `stroke_weight` is 0."""
    difference_BCHW = (got_BCHW.float() - wanted_BCHW.float()).abs()
    if not stroke_weight:
        return difference_BCHW.mean()
    weight_B1HW = stroke_weights(wanted_BCHW.float(), stroke_weight)
    weighed_B = (difference_BCHW.mean(1, keepdim=True) * weight_B1HW).mean((1, 2, 3))
    return (weighed_B / weight_B1HW.mean((1, 2, 3))).mean()


def stroke_weights(truth_BCHW: torch.Tensor, stroke_weight: float) -> torch.Tensor:
    """1 + stroke_weight * |truth - mean of its surroundings| / (the crop's mean of that), (B, 1, H, W)."""
    around_BCHW = F.avg_pool2d(truth_BCHW, SURROUNDINGS_PX, stride=1, padding=SURROUNDINGS_PX // 2, count_include_pad=False)
    contrast_B1HW = (truth_BCHW - around_BCHW).abs().mean(1, keepdim=True)
    return 1.0 + stroke_weight * contrast_B1HW / (contrast_B1HW.mean((2, 3), keepdim=True) + FLAT)


def mean_psnr_db(got_BCHW: torch.Tensor, wanted_BCHW: torch.Tensor) -> torch.Tensor:
    """Mean PSNR of the pictures, clamped to [-1, 1], for a range of 2; at most 100 dB a picture."""
    mse_B = (got_BCHW.float().clamp(-1, 1) - wanted_BCHW.float()).square().mean((1, 2, 3)) / 4
    return (-10 * torch.log10(mse_B + 1e-10)).mean()
